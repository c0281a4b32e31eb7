//! What others do to the kernel: links that vanish, tables and routes of ours that somebody touches.

use std::thread;

use anyhow::{Context, Result};
use buoy_kernel::netlink::OwnPorts;
use buoy_kernel::nft::{TableEvent, TableEvents};
use crossbeam_channel::Sender;
use tracing::warn;

use super::Input;

/// Turns kernel events into inputs for as long as the process lives.
pub(crate) fn watch(own: OwnPorts, inputs: &Sender<Input>) -> Result<()> {
    let tables = TableEvents::subscribe(own).context("watch nftables")?;
    let sender = inputs.clone();
    thread::Builder::new()
        .name("table-events".to_owned())
        .spawn(move || watch_tables(tables, &sender))?;
    Ok(())
}

fn watch_tables(mut tables: TableEvents, inputs: &Sender<Input>) {
    loop {
        let input = match tables.wait(None) {
            Ok(Some(TableEvent::Foreign)) => Input::Foreign("our nftables tables"),
            Ok(Some(TableEvent::Lost)) => Input::Foreign("nftables, perhaps: events were lost"),
            Ok(None) => continue,
            Err(error) => {
                warn!("watch nftables: {error}");
                return;
            }
        };
        if inputs.send(input).is_err() {
            return;
        }
    }
}
