//! Removes from this node all that an agent of ours made.

use anyhow::{Context, Result, bail};
use buoy_core::desired::NodeDesired;
use buoy_core::op::Op;
use buoy_core::plan::{Scope, plan};
use buoy_kernel::netlink::OwnPorts;
use tracing::info;

use crate::adapters::kernel::{Hands, Namespaces, Originals};
use crate::clock;
use crate::settings::Settings;

/// Rounds after which what is left is an error: flows are ended twice, with a pause between.
const ROUNDS: usize = 8;

/// Takes down links, routes and tables of ours, gives settings back, and forgets the attachments. Records in the
/// datastore stay: addresses are released by DEL, and by the cluster's collector for a node that is gone.
pub fn cleanup(settings: &Settings) -> Result<()> {
    if std::os::unix::net::UnixStream::connect(&settings.socket).is_ok() {
        bail!(
            "an agent is running: {}\nstop it first",
            settings.socket.display()
        );
    }
    let originals = Originals::open(&settings.state_dir)?;
    let mut hands = Hands::new(OwnPorts::default(), Namespaces::default(), originals)?;
    remove_rows(&mut hands)?;
    hands.delete_tables().context("delete the tables")?;
    hands.into_originals().restore()?;
    for left in [
        settings.socket.clone(),
        settings.state_dir.join("attachments"),
        settings.spool(),
    ] {
        remove(&left)?;
    }
    Ok(())
}

/// Nothing is wanted: the plan towards that takes everything down.
fn remove_rows(hands: &mut Hands) -> Result<()> {
    let nothing = NodeDesired::default();
    for _ in 0..ROUNDS {
        let mut observed = hands.observe().context("read the kernel")?;
        if !observed.ruleset {
            observed.ruleset = true;
        }
        observed.ending.clear();
        let ops: Vec<Op> = plan(&nothing, &observed, &Scope::All, &|_| None, clock::mono()).ops;
        if ops.is_empty() {
            return Ok(());
        }
        for applied in hands.apply(ops) {
            match applied.result {
                Ok(_) => info!("{}", applied.op),
                Err(error) => bail!("{}: {}", applied.op, error.message),
            }
        }
    }
    bail!("something keeps coming back: is another agent running?")
}

fn remove(path: &std::path::Path) -> Result<()> {
    let removed = if path.is_dir() {
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    };
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove: {}", path.display()))
        }
        _ => Ok(()),
    }
}
