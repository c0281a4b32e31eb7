//! Whether the datastore takes writes, as the renewals of this node's own lease show.

use super::{GAP, PROOF, RENEWAL};
use crate::time::Mono;

/// Renewals of this node's own lease that followed each other without a gap.
///
/// Who takes writes from nobody may still answer everybody's readings. An owner that cannot renew is not dead then, so an
/// observer relies on its count only while its own writes succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steady {
    /// When the first of them had ended: it may have waited long for the store.
    since: Mono,
    /// When the last of them began.
    began: Mono,
}

impl Steady {
    /// Takes in a renewal that succeeded. After a gap they begin anew.
    pub fn renewed(before: Option<Self>, began: Mono, ended: Mono) -> Self {
        let since = before
            .filter(|before| before.lasts_at(ended))
            .map_or(ended, |before| before.since);
        Self { since, began }
    }

    /// Whether the datastore has taken writes for so long that whoever lives has renewed by now. One write is not enough,
    /// nor are two in one moment: it may be all that the store took.
    pub fn proves_writes(&self, now: Mono) -> bool {
        self.began >= self.since.after(RENEWAL / 2) && now >= self.since.after(PROOF) && self.lasts_at(now)
    }

    /// Whether there was no gap until then.
    fn lasts_at(&self, at: Mono) -> bool {
        at <= self.began.after(GAP)
    }
}
