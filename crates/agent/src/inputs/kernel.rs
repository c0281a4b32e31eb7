//! What others do to the kernel: links that vanish, tables and routes of ours that somebody touches.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use buoy_core::endpoint::{AttachmentId, IfIndex, IfName};
use buoy_core::view::Routing;
use buoy_kernel::events::{Event, Events};
use buoy_kernel::link::Link;
use buoy_kernel::netlink::OwnPorts;
use buoy_kernel::nft::{TableEvent, TableEvents};
use buoy_kernel::route::Target;
use crossbeam_channel::Sender;
use tracing::warn;

use super::Input;
use crate::adapters::kernel::learnt_by;

/// Pause before a subscription that failed is made anew.
const PAUSE: Duration = Duration::from_secs(1);

/// Turns kernel events into inputs for as long as the process lives.
pub(crate) fn watch(own: &OwnPorts, routing: Routing, inputs: &Sender<Input>) -> Result<()> {
    let ports = own.clone();
    spawn("link-events", inputs, move || {
        let mut links = Events::subscribe(ports.clone())?;
        Ok(move || {
            links
                .wait(None)
                .map(|event| event.and_then(|event| link_event(event, routing)))
        })
    })?;
    let ports = own.clone();
    spawn("table-events", inputs, move || {
        let mut tables = TableEvents::subscribe(ports.clone())?;
        Ok(move || tables.wait(None).map(|event| event.map(table_event)))
    })
}

/// Subscribes at once, so that nothing is missed from here on, and again whenever a subscription fails.
fn spawn<N>(
    name: &str,
    inputs: &Sender<Input>,
    subscribe: impl Fn() -> buoy_kernel::Result<N> + Send + 'static,
) -> Result<()>
where
    N: FnMut() -> buoy_kernel::Result<Option<Input>> + Send + 'static,
{
    let mut next = subscribe().with_context(|| format!("subscribe: {name}"))?;
    let inputs = inputs.clone();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        loop {
            let input = match next() {
                Ok(Some(input)) => input,
                Ok(None) => continue,
                Err(error) => {
                    warn!("changes by others may be missed: {error}");
                    thread::sleep(PAUSE);
                    if let Ok(again) = subscribe() {
                        next = again;
                    }
                    Input::Foreign("something, perhaps: a subscription failed")
                }
            };
            if inputs.send(input).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

fn link_event(event: Event, routing: Routing) -> Option<Input> {
    match event {
        Event::DaemonPut(_) | Event::DaemonGone(_) if routing == Routing::Kernel => None,
        Event::DaemonPut(route) => Some(Input::Learnt(learnt_by(&route)?, true)),
        Event::DaemonGone(route) => Some(Input::Learnt(learnt_by(&route)?, false)),
        Event::LinkGone { ifindex, name } => Some(Input::LinkGone(IfName(name), IfIndex(ifindex.0))),
        Event::RoutePut(_) => Some(Input::Foreign("our routes")),
        Event::RouteGone(route) => match route.target {
            Target::Link { ifindex, .. } => Some(Input::RouteGone(IfIndex(ifindex.0))),
            Target::Unreachable => Some(Input::Foreign("our routes")),
        },
        Event::Lost => Some(Input::Foreign("links or routes, perhaps: events were lost")),
        // A link gets its alias when it is up.
        Event::Link(link) if link.up || !is_ours(&link) => None,
        Event::Link(link) => Some(Input::LinkDown(IfName(link.name), IfIndex(link.ifindex.0))),
    }
}

fn is_ours(link: &Link) -> bool {
    link.alias.as_deref().and_then(AttachmentId::from_alias).is_some()
}

fn table_event(event: TableEvent) -> Input {
    match event {
        TableEvent::Foreign => Input::Foreign("our nftables tables"),
        TableEvent::Lost => Input::Foreign("nftables, perhaps: events were lost"),
    }
}
