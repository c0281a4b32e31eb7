//! Removes from this node all that an agent of ours made.

use std::path::Path;

use anyhow::{Context, Result, bail};
use buoy_core::desired::NodeDesired;
use buoy_core::endpoint::{Attachment, Phase};
use buoy_core::op::Op;
use buoy_core::plan::{Scope, plan};
use buoy_daemon::http::Listen;
use buoy_kernel::netlink::OwnPorts;
use tracing::info;

use crate::adapters::bird::{self, Place};
use crate::adapters::kernel::{Hands, Namespaces, Originals};
use crate::attachments::Files;
use crate::clock;
use crate::files;
use crate::settings::Settings;

/// Rounds after which what is left is an error: flows are ended twice, with a pause between.
const ROUNDS: usize = 8;

/// Takes down links, routes and tables of ours, and gives settings back. Attachments stay on file as taken down: an agent
/// that starts here again releases their records, and so does a DEL.
pub fn cleanup(settings: &Settings) -> Result<()> {
    let state = &settings.state_dir;
    std::fs::create_dir_all(state).with_context(|| format!("make directory: {}", state.display()))?;
    let _held = files::hold(state)?;
    let originals = Originals::open(state)?;
    let mut hands = Hands::new(OwnPorts::default(), Namespaces::default(), originals, None)?;
    // First: nobody shall be sent here any more.
    bird::remove(&Place::new(&settings.run_dir))?;
    remove_rows(&mut hands)?;
    hands.delete_tables().context("delete the tables")?;
    hands.into_originals().restore()?;
    let attachments = Files::open(state)?;
    for attachment in attachments.load()?.into_values() {
        attachments.save(&Attachment {
            phase: Phase::Down,
            ..attachment
        })?;
    }
    remove_file(&settings.socket)?;
    match &settings.listen {
        Listen::Unix(path) => remove_file(path),
        Listen::Tcp(_) => Ok(()),
    }
}

/// Removes a file, if there is one.
fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove: {}", path.display()))
        }
        _ => Ok(()),
    }
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
