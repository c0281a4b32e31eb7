//! How much is told: what repeats itself becomes one note with a count, and nobody can make an agent write without end.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::{News, Workload};
use crate::time::{Mono, Now};

/// How long the same news counts as a repetition.
const SAME: Duration = Duration::from_secs(10 * 60);
/// Least time between two writes of one note: repetitions in between are counted.
const REPEAT: Duration = Duration::from_secs(30);
/// Notes at once, and time for another one, about one workload.
const OF_ONE: Rate = Rate {
    burst: 20,
    every: Duration::from_secs(60),
};
/// The same about all workloads of a node together.
const OF_ALL: Rate = Rate {
    burst: 200,
    every: Duration::from_millis(500),
};
/// Notes that are remembered; more, and the one that was written first is forgotten.
const REMEMBERED: usize = 1024;

/// News to be written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Whom it is about.
    pub about: Workload,
    /// Tells the notes about one workload apart.
    pub number: u64,
    /// One word.
    pub reason: &'static str,
    /// Whether somebody should look at it.
    pub warning: bool,
    /// For people.
    pub message: String,
    /// When it happened first.
    pub first: Timestamp,
    /// When it happened last.
    pub last: Timestamp,
    /// How often it happened. One that happened more than once was to be written before, and may not have been.
    pub count: u32,
}

#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: u32,
    every: Duration,
}

/// What is left of a rate.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: u32,
    since: Mono,
}

impl Bucket {
    fn full(rate: Rate, now: Mono) -> Self {
        Self {
            left: rate.burst,
            since: now,
        }
    }

    fn fill(&mut self, rate: Rate, now: Mono) {
        let more = now.since(self.since).as_millis() / rate.every.as_millis();
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(more).min(rate.burst);
        self.since = if self.left == rate.burst {
            now
        } else {
            self.since.after(rate.every.saturating_mul(more))
        };
    }
}

/// A note that was written, and when.
#[derive(Clone, Debug)]
struct Written {
    note: Note,
    begun: Mono,
    at: Mono,
}

/// Decides what is written. Depends on what it was given alone.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    written: BTreeMap<(Workload, String), Written>,
    buckets: BTreeMap<String, Bucket>,
    all: Option<Bucket>,
    made: u64,
}

impl Limits {
    /// The note to write for news, if one is due: the first of its kind, or one that counts its repetitions.
    ///
    /// Error: how it was left out.
    pub fn admit(&mut self, news: &News, now: Now) -> Result<Note, Left> {
        // Hints are on the lines after the first, and may say how long something still takes.
        let text = news.what.to_string();
        let key = (
            news.about.clone(),
            text.lines().next().unwrap_or_default().to_owned(),
        );
        let same = |written: &&mut Written| now.mono.since(written.begun) < SAME;
        let Some(written) = self.written.get_mut(&key).filter(same) else {
            self.take(&news.about.uid, now.mono)?;
            let note = self.note(news, now);
            self.remember(key, &note, now.mono);
            return Ok(note);
        };
        written.note.count = written.note.count.saturating_add(1);
        written.note.last = now.wall;
        if now.mono.since(written.at) < REPEAT {
            return Err(Left::Counted);
        }
        written.at = now.mono;
        let note = written.note.clone();
        self.take(&note.about.uid, now.mono).map(|()| note)
    }

    fn take(&mut self, uid: &str, now: Mono) -> Result<(), Left> {
        let all = self.all.get_or_insert_with(|| Bucket::full(OF_ALL, now));
        all.fill(OF_ALL, now);
        if all.left == 0 {
            return Err(Left::Dropped);
        }
        if self.buckets.len() >= REMEMBERED {
            self.buckets.retain(|_, bucket| {
                bucket.fill(OF_ONE, now);
                bucket.left < OF_ONE.burst
            });
        }
        // Of those that are not full there are no more than were written while one fills.
        let one = self.buckets.entry(uid.to_owned());
        let one = one.or_insert_with(|| Bucket::full(OF_ONE, now));
        one.fill(OF_ONE, now);
        if one.left == 0 {
            return Err(Left::Dropped);
        }
        one.left -= 1;
        all.left -= 1;
        Ok(())
    }

    fn note(&mut self, news: &News, now: Now) -> Note {
        self.made += 1;
        let nanoseconds = u64::try_from(now.wall.as_nanosecond()).unwrap_or_default();
        Note {
            about: news.about.clone(),
            // Many are made at one instant, and another agent may have made some before.
            number: nanoseconds.saturating_add(self.made),
            reason: news.what.reason(),
            warning: news.what.is_warning(),
            message: news.what.to_string(),
            first: now.wall,
            last: now.wall,
            count: 1,
        }
    }

    fn remember(&mut self, key: (Workload, String), note: &Note, now: Mono) {
        if self.written.len() >= REMEMBERED {
            self.written.retain(|_, written| now.since(written.begun) < SAME);
        }
        if self.written.len() >= REMEMBERED {
            let oldest = self.written.iter().min_by_key(|(_, written)| written.begun);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.written.remove(&oldest);
            }
        }
        let written = Written {
            note: note.clone(),
            begun: now,
            at: now,
        };
        self.written.insert(key, written);
    }
}

/// How news was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It is counted, and told with the next of its kind.
    Counted,
    /// There is too much of it.
    Dropped,
}

#[cfg(test)]
#[path = "limit_tests.rs"]
mod tests;
