//! Records, as they change.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use anyhow::Result;
use buoy_core::view;
use buoy_datastore::{Datastore, Feed, follow};
use crossbeam_channel::Sender;

use super::Input;

/// Follows the datastore for as long as the process lives.
pub(crate) fn watch(store: Arc<dyn Datastore>, node: &str, inputs: Sender<Input>) -> Result<()> {
    let interest = view::interest(node);
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
