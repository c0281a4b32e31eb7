//! A store that is there and does not answer: another process keeps the file to itself (a backup gone wrong, a debugger, a
//! stuck transaction), or all members of an etcd stand still.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rusqlite::Connection;

use crate::binaries::Binaries;
use crate::etcd::Etcd;
use crate::run::Run;
use crate::store::Store;

/// What the other process says once it has the store.
const HELD: &str = "held";

/// A store that is held, until this is dropped.
#[derive(Debug)]
pub struct Locker {
    holder: Holder,
    since: Instant,
}

/// What keeps it from answering.
#[derive(Debug)]
enum Holder {
    Process(Child),
    Frozen(Arc<Etcd>),
}

impl Locker {
    /// Has another process begin an exclusive transaction on a store that is a file; freezes the members of an etcd. Error:
    /// it cannot be held.
    pub fn hold(run: &Run, store: &Store) -> Result<Self> {
        let holder = match store {
            Store::File(file) => Holder::Process(Self::hold_file(run, file)?),
            Store::Etcd(etcd) => {
                etcd.members().iter().try_for_each(crate::etcd::Member::freeze)?;
                Holder::Frozen(Arc::clone(etcd))
            }
            Store::Elsewhere(url) => bail!("not this lab's to hold: {url}"),
        };
        Ok(Self {
            holder,
            since: Instant::now(),
        })
    }

    fn hold_file(run: &Run, store: &Path) -> Result<Child> {
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
        Ok(child)
    }

    /// For how long it has been held.
    pub fn held(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        match &mut self.holder {
            Holder::Process(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            Holder::Frozen(etcd) => etcd.members().iter().for_each(|member| {
                let _ = member.thaw();
            }),
        }
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
