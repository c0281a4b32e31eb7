//! What others do to the kernel: links that vanish, tables and routes of ours that somebody touches.

use std::thread;

use anyhow::{Context, Result};
use buoy_core::endpoint::{IfIndex, IfName};
use buoy_kernel::events::{Event, Events};
use buoy_kernel::netlink::OwnPorts;
use buoy_kernel::nft::{TableEvent, TableEvents};
use buoy_kernel::route::Target;
use crossbeam_channel::Sender;
use tracing::error;

use super::Input;

/// Turns kernel events into inputs for as long as the process lives.
pub(crate) fn watch(own: OwnPorts, inputs: &Sender<Input>) -> Result<()> {
    let mut links = Events::subscribe(own.clone()).context("watch links and routes")?;
    let mut tables = TableEvents::subscribe(own).context("watch nftables")?;
    spawn("link-events", inputs, move || {
        links.wait(None).map(|event| event.and_then(link_event))
    })?;
    spawn("table-events", inputs, move || {
        tables.wait(None).map(|event| event.map(table_event))
    })
}

fn spawn(
    name: &str,
    inputs: &Sender<Input>,
    mut next: impl FnMut() -> buoy_kernel::Result<Option<Input>> + Send + 'static,
) -> Result<()> {
    let inputs = inputs.clone();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        loop {
            let input = match next() {
                Ok(Some(input)) => input,
                Ok(None) => continue,
                Err(error) => {
                    error!("changes by others are not seen any more; restart the agent: {error}");
                    return;
                }
            };
            if inputs.send(input).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

fn link_event(event: Event) -> Option<Input> {
    match event {
        Event::LinkGone { ifindex, name } => Some(Input::LinkGone(IfName(name), IfIndex(ifindex.0))),
        Event::RoutePut(_) => Some(Input::Foreign("our routes")),
        Event::RouteGone(route) => match route.target {
            Target::Link { ifindex, .. } => Some(Input::RouteGone(IfIndex(ifindex.0))),
            Target::Unreachable => Some(Input::Foreign("our routes")),
        },
        Event::Lost => Some(Input::Foreign("links or routes, perhaps: events were lost")),
        // A stranger's link is of interest only when its name is wanted, and then it is looked at.
        Event::Link(_) => None,
    }
}

fn table_event(event: TableEvent) -> Input {
    match event {
        TableEvent::Foreign => Input::Foreign("our nftables tables"),
        TableEvent::Lost => Input::Foreign("nftables, perhaps: events were lost"),
    }
}
