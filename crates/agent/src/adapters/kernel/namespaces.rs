//! Namespaces of workloads: kept open while somebody waits, else opened by path and checked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use buoy_core::endpoint::Netns;
use buoy_kernel::{Error, Result, netns};

/// Namespaces that clients handed over, by device and inode. A namespace that is kept open cannot end, so each is let go
/// as soon as its client has its answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Namespaces(Arc<Mutex<BTreeMap<(u64, u64), netns::Netns>>>);

impl Namespaces {
    /// Keeps one.
    pub(crate) fn keep(&self, netns: netns::Netns) {
        let id = netns.id();
        self.locked().insert((id.device, id.inode), netns);
    }

    /// Lets one go.
    pub(crate) fn release(&self, netns: &Netns) {
        self.locked().remove(&(netns.device, netns.inode));
    }

    /// One that is kept, or the one at the path if it still is the same.
    pub(crate) fn open(&self, wanted: &Netns) -> Result<netns::Netns> {
        if let Some(kept) = self.locked().get(&(wanted.device, wanted.inode)) {
            return kept.try_clone();
        }
        let found = netns::Netns::open(&wanted.path)?;
        if (found.id().device, found.id().inode) == (wanted.device, wanted.inode) {
            Ok(found)
        } else {
            Err(Error::NetnsGone {
                path: (&wanted.path).into(),
            })
        }
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<(u64, u64), netns::Netns>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
