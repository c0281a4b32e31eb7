//! Signals: SIGTERM and SIGINT stop, SIGHUP reads the settings again.

use std::thread;

use anyhow::{Context, Result};
use crossbeam_channel::Sender;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Input;

/// Turns signals into inputs for as long as the process lives.
pub(crate) fn watch(inputs: Sender<Input>) -> Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("signals")?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            let input = if signal == SIGHUP {
                Input::Reload
            } else {
                Input::Stop
            };
            if inputs.send(input).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}
