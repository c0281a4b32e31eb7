//! Following a store: lists, then watches, and through every failure hands on nothing but changes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use buoy_core::store::{Delta, Key, Prefix, Record, Revision, StoreError};

use crate::backoff::Backoff;
use crate::{Datastore, Event, WatchError, list};

/// What [`follow`] hands on.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are deltas")]
pub enum Feed {
    /// A record changed. The first list comes as changes, too.
    Delta(Delta),
    /// Everything up to this revision has been handed on. Comes after the first list, and whenever contact is back.
    Synced(Revision),
    /// The store is not where it was: it was restored from a copy. Then come all records, and what is gone.
    Restored,
    /// The store does not answer. What was handed on stays in force; it is tried again.
    Lost(StoreError),
}

/// Longest wait in a watch: how long it takes to see `stop`.
const LOOK: Duration = Duration::from_millis(500);

/// Follows the records of `interest` until `stop` is set or the sink breaks off. For a thread of its own.
///
/// Each record is handed on when it is first seen and whenever its revision is another; a deletion only if the record
/// was handed on before. After a compaction everything is listed again, and only the difference is handed on. A failure
/// takes nothing back. A store that turns out to be another, or to have gone back, is listed again, and all of it handed on.
pub fn follow(
    store: &dyn Datastore,
    interest: &[Prefix],
    stop: &AtomicBool,
    sink: &mut dyn FnMut(Feed) -> ControlFlow<()>,
) {
    follow_resting(store, interest, stop, sink, &|pause| rest(pause, stop));
}

/// The same, with somebody who lets a pause go by.
fn follow_resting(
    store: &dyn Datastore,
    interest: &[Prefix],
    stop: &AtomicBool,
    sink: &mut dyn FnMut(Feed) -> ControlFlow<()>,
    rest: &dyn Fn(Duration),
) {
    let mut follower = Follower {
        store,
        interest,
        sink,
        known: BTreeMap::new(),
        reached: None,
        is_fresh: false,
        highest: Revision(0),
        replaced: store.replaced(),
    };
    let mut backoff = Backoff::new();
    while !stop.load(Ordering::Relaxed) {
        match follower.keep_up(stop, &mut backoff) {
            Ok(()) | Err(Interruption::SinkGone) => return,
            Err(Interruption::Compacted) => {
                follower.reached = None;
                // A list that is too old at once, again and again, must not keep both busy.
                if follower.is_fresh {
                    rest(backoff.pause());
                }
            }
            Err(Interruption::Store(error)) => {
                if (follower.sink)(Feed::Lost(error)).is_break() {
                    return;
                }
                rest(backoff.pause());
            }
        }
    }
}

enum Interruption {
    SinkGone,
    Compacted,
    Store(StoreError),
}

impl From<WatchError> for Interruption {
    fn from(error: WatchError) -> Self {
        match error {
            WatchError::Compacted => Self::Compacted,
            WatchError::Store(error) => Self::Store(error),
        }
    }
}

struct Follower<'a> {
    store: &'a dyn Datastore,
    interest: &'a [Prefix],
    sink: &'a mut dyn FnMut(Feed) -> ControlFlow<()>,
    /// What was handed on and not deleted.
    known: BTreeMap<Key, Revision>,
    /// Up to where each prefix is known, in the order of `interest`; `None` before it was listed.
    reached: Option<Vec<Revision>>,
    /// Nothing was watched since the last list.
    is_fresh: bool,
    /// The store has been there.
    highest: Revision,
    /// How often it was another.
    replaced: u64,
}

impl Follower<'_> {
    /// Lists if need be, and watches until `stop`.
    fn keep_up(&mut self, stop: &AtomicBool, backoff: &mut Backoff) -> Result<(), Interruption> {
        let reached = match self.reached.take() {
            Some(reached) => reached,
            None => self.list()?,
        };
        let known = reached.iter().min().copied().unwrap_or_default();
        let begin: Vec<_> = self
            .interest
            .iter()
            .cloned()
            .zip(reached.iter().copied())
            .collect();
        self.reached = Some(reached);
        let mut watch = self.store.watch(&begin)?;
        self.is_the_same()?;
        self.give(Feed::Synced(known))?;
        while !stop.load(Ordering::Relaxed) {
            for event in watch.next(LOOK)? {
                self.give_event(event)?;
            }
            self.is_fresh = false;
            backoff.reset();
            self.note_reached(watch.reached());
            self.is_the_same()?;
        }
        Ok(())
    }

    fn note_reached(&mut self, reached: Vec<Revision>) {
        self.highest = reached.iter().copied().fold(self.highest, Revision::max);
        self.reached = Some(reached);
    }

    /// Whether the store is the one that was listed. A watch of another goes on as if nothing had happened where that has
    /// come as far.
    fn is_the_same(&self) -> Result<(), Interruption> {
        if self.store.replaced() == self.replaced {
            return Ok(());
        }
        Err(Interruption::Compacted)
    }

    /// The store has these records at this revision. One that is older than what was known of it was put back. Whatever is
    /// known of a store that is another, or that has gone back, says nothing: not even the same revision of a record means the
    /// same.
    fn look_for_a_restore(&mut self, records: &[Record], at: Revision) -> Result<(), Interruption> {
        let replaced = self.store.replaced();
        let is_older = |record: &Record| self.known.get(&record.key) > Some(&record.revision);
        if replaced != self.replaced || at < self.highest || records.iter().any(is_older) {
            self.known.values_mut().for_each(|known| *known = Revision(0));
            self.highest = at;
            self.give(Feed::Restored)?;
            self.replaced = replaced;
            self.store.accept(replaced);
        }
        self.highest = self.highest.max(at);
        Ok(())
    }

    fn list(&mut self) -> Result<Vec<Revision>, Interruption> {
        let mut listed = Vec::with_capacity(self.interest.len());
        for prefix in self.interest {
            let (records, revision) = list(self.store, prefix.clone()).map_err(Interruption::Store)?;
            self.look_for_a_restore(&records, revision)?;
            self.give_difference(prefix, records, revision)?;
            listed.push(revision);
        }
        self.is_fresh = true;
        Ok(listed)
    }

    fn give_difference(
        &mut self,
        prefix: &Prefix,
        records: Vec<Record>,
        revision: Revision,
    ) -> Result<(), Interruption> {
        let listed: BTreeSet<Key> = records.iter().map(|record| record.key.clone()).collect();
        let gone = self
            .known
            .keys()
            .filter(|key| prefix.covers(key) && !listed.contains(*key));
        for key in gone.cloned().collect::<Vec<_>>() {
            self.give_deleted(key, revision)?;
        }
        for record in records {
            self.give_record(record)?;
        }
        Ok(())
    }

    fn give_event(&mut self, event: Event) -> Result<(), Interruption> {
        match event {
            Event::Put(record) => self.give_record(record),
            Event::Deleted(key, revision) => self.give_deleted(key, revision),
        }
    }

    fn give_record(&mut self, record: Record) -> Result<(), Interruption> {
        let Record { key, revision, value } = record;
        if self.known.insert(key.clone(), revision) == Some(revision) {
            return Ok(());
        }
        self.give(Feed::Delta(Delta {
            key,
            revision,
            value: Some(value),
        }))
    }

    fn give_deleted(&mut self, key: Key, revision: Revision) -> Result<(), Interruption> {
        if self.known.remove(&key).is_none() {
            return Ok(());
        }
        self.give(Feed::Delta(Delta {
            key,
            revision,
            value: None,
        }))
    }

    fn give(&mut self, feed: Feed) -> Result<(), Interruption> {
        match (self.sink)(feed) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Interruption::SinkGone),
        }
    }
}

/// Waits, unless told to stop.
fn rest(pause: Duration, stop: &AtomicBool) {
    let until = Instant::now() + pause;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || stop.load(Ordering::Relaxed) {
            return;
        }
        std::thread::sleep(left.min(LOOK));
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
