//! Records, as they change.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use anyhow::Result;
use buoy_api::ip::Family;
use buoy_api::ipam::AffinityOwner;
use buoy_core::store::Prefix;
use buoy_datastore::{Datastore, Feed, follow};
use crossbeam_channel::Sender;

use super::Input;

/// What a node has to know.
fn interest(node: &str) -> Vec<Prefix> {
    vec![
        Prefix::Pools,
        Prefix::Reservations,
        Prefix::Nodes,
        Prefix::Endpoints,
        Prefix::Felix,
        Prefix::ClusterInformations,
        Prefix::Profiles,
        Prefix::IpamConfig,
        Prefix::EpochFloor,
        Prefix::Blocks(Family::V4),
        Prefix::Blocks(Family::V6),
        Prefix::Affinities(AffinityOwner::Host(node.to_owned())),
        Prefix::Bindings,
        Prefix::BgpPeers,
        Prefix::BgpConfigurations,
    ]
}

/// Follows the datastore for as long as the process lives.
pub(crate) fn watch(store: Arc<dyn Datastore>, node: &str, inputs: Sender<Input>) -> Result<()> {
    let interest = interest(node);
    thread::Builder::new().name("watch".to_owned()).spawn(move || {
        let stop = AtomicBool::new(false);
        follow(store.as_ref(), &interest, &stop, &mut |feed| {
            let input = match feed {
                Feed::Delta(delta) => Input::Delta(delta),
                Feed::Synced(_) => Input::Synced,
                Feed::Lost(error) => Input::Lost(error.to_string()),
                Feed::Restored => Input::Restored,
            };
            if inputs.send(input).is_ok() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
    })?;
    Ok(())
}
