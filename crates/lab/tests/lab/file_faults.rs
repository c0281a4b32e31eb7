//! What happens to the embedded store under agents that share it: traffic does not suffer, nothing is taken from anybody,
//! every node says how it stands, and soon after the end all is as before.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, anyhow};
use buoy_lab::cluster::Cluster;
use buoy_lab::faults::Seen;
use buoy_lab::locker::Locker;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::endure::{Fault, endured, endured_slowly, shop};

#[test]
fn a_file_that_somebody_locks_takes_nothing() {
    Cluster::start().unwrap().test(|cluster| {
        let _shop = shop(cluster)?;
        let hold = || Locker::hold(cluster.run(), cluster.store());
        let locked = Fault::of_everybody(cluster, "locked", Seen::LOCKED);
        endured(cluster, &locked, hold, |locker| {
            drop(locker);
            Ok(())
        })?;
        slow(
            cluster,
            &Fault::of_everybody(cluster, "slow: 200 ms", Seen::IN_CONTACT),
        )
    });
}

/// Somebody locks it for 200 ms, again and again.
fn slow(cluster: &Cluster, fault: &Fault<'_>) -> Result<()> {
    let locker = Mutex::new(None);
    let set = |to| *locker.lock().unwrap_or_else(PoisonError::into_inner) = to;
    let lock = || {
        set(Some(Locker::hold(cluster.run(), cluster.store())?));
        Ok(())
    };
    let unlock = || {
        set(None);
        Ok(())
    };
    endured_slowly(cluster, fault, lock, unlock)
}

/// Its disk is in a mount namespace of the test, of which nothing is left afterwards.
#[test]
fn a_file_on_a_full_disk_keeps_everything_as_it_is_and_says_so() {
    Cluster::bare().unwrap().test(|cluster| {
        let all = || {
            let directory = cluster.store().file()?.parent().context("it is in a directory")?;
            small_disk(directory)?;
            cluster.begin()?;
            let shop = shop(cluster)?;
            let full = Fault::of_everybody(cluster, "full", Seen::NO_SPACE);
            let filler = directory.join("filler");
            endured(
                cluster,
                &full,
                || fill(&filler),
                |()| Ok(fs::remove_file(&filler)?),
            )?;
            drop(shop);
            cluster.nodes.iter().try_for_each(|node| node.stop_agent())
        };
        // Mounts are a thread's, and whatever it starts has them.
        thread::scope(|scope| scope.spawn(all).join().map_err(|_| anyhow!("it panicked"))?)
    });
}

fn small_disk(directory: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let nothing = None::<&str>;
    mount(
        nothing,
        "/",
        nothing,
        MsFlags::MS_REC | MsFlags::MS_SLAVE,
        nothing,
    )?;
    mount(
        Some("tmpfs"),
        directory,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=8m"),
    )?;
    Ok(())
}

/// Leaves no room at all.
fn fill(file: &Path) -> Result<()> {
    let mut file = File::create(file)?;
    for size in [4096, 1] {
        while file.write_all(&vec![7; size]).is_ok() {}
    }
    Ok(())
}
