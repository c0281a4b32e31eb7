//! Another process that keeps a store to itself: a backup gone wrong, a debugger, a stuck transaction.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;

use crate::binaries::Binaries;
use crate::run::Run;

/// What the other process says once it has the store.
const HELD: &str = "held";

/// A store held by another process, until this is dropped.
#[derive(Debug)]
pub struct Locker {
    child: Child,
    since: Instant,
}

impl Locker {
    /// Has another process begin an exclusive transaction on the store in this file. Error: it does not get it.
    pub fn hold(run: &Run, store: &Path) -> Result<Self> {
        let mut child = Command::new(Binaries::find()?.lab)
            .arg("hold-store")
            .arg(store)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the process that holds the store")?;
        run.made_process(child.id());
        let mut said = String::new();
        let output = child.stdout.take().context("it has no output")?;
        BufReader::new(output).read_line(&mut said)?;
        ensure!(
            said.trim() == HELD,
            "the store could not be held: {}",
            store.display()
        );
        Ok(Self {
            child,
            since: Instant::now(),
        })
    }

    /// For how long it has been held.
    pub fn held(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other process: holds the store until standard input ends.
pub fn hold_until_eof(store: &Path) -> Result<()> {
    let mut connection = Connection::open(store)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Exclusive)?;
    writeln!(io::stdout(), "{HELD}")?;
    io::stdin().read_to_end(&mut Vec::new())?;
    transaction.rollback()?;
    Ok(())
}
