//! A place for a process that is started, killed and started again.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::exec::Process;

/// One process, running or not. Dropping it kills it.
#[derive(Debug, Default)]
pub(crate) struct Slot(Mutex<Option<Process>>);

impl Slot {
    /// Kills what runs here, and starts another.
    pub(crate) fn restart(&self, start: impl FnOnce() -> Result<Process>) -> Result<()> {
        self.kill();
        *self.lock() = Some(start()?);
        Ok(())
    }

    /// Kills it at once; nothing if it does not run.
    pub(crate) fn kill(&self) {
        if let Some(mut process) = self.lock().take() {
            process.kill();
        }
    }

    /// Whether it runs.
    pub(crate) fn is_running(&self) -> bool {
        self.lock().as_mut().is_some_and(Process::is_running)
    }

    /// Its process id. Error: it does not run.
    pub(crate) fn pid(&self) -> Result<u32> {
        Ok(self.lock().as_ref().context("it does not run")?.pid())
    }

    /// Lets it do nothing until [`Slot::thaw`].
    pub(crate) fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.lock().as_ref().context("it does not run")?.signal(signal)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
