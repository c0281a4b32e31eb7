//! Duties under way: one at a time for each subject, repeated with growing pauses while they fail.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Duty;
use crate::subject::Subject;
use crate::time::{Mono, Now};
use crate::view::View;

/// First and longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// Longest pause where a lease is concerned.
const LEASE_PAUSE: Duration = Duration::from_millis(500);
/// How long a duty that was done is believed, if the records that it wrote do not come back.
const BELIEVED: Duration = Duration::from_secs(1);

/// Duties under way at a time; the rest wait.
pub const AT_ONCE: usize = 1024;

/// A duty that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Why, for people.
    pub error: String,
    tries: u32,
    until: Mono,
}

/// What is owed, under way, done and failed.
#[derive(Debug, Default)]
pub struct Work {
    dirty: BTreeSet<Subject>,
    running: BTreeMap<Subject, Duty>,
    done: BTreeMap<Subject, (Duty, Mono)>,
    failed: BTreeMap<Subject, Failure>,
    ripening: BTreeMap<Subject, (Duty, Mono)>,
    for_lease: BTreeSet<Subject>,
    alarms: Alarms,
}

/// When to look at a subject again.
#[derive(Debug, Default)]
struct Alarms {
    by_time: BTreeSet<(Mono, Subject)>,
    by_subject: BTreeMap<Subject, Mono>,
}

impl Alarms {
    fn set(&mut self, subject: &Subject, at: Mono) {
        self.clear(subject);
        self.by_subject.insert(subject.clone(), at);
        self.by_time.insert((at, subject.clone()));
    }

    fn clear(&mut self, subject: &Subject) {
        if let Some(at) = self.by_subject.remove(subject) {
            self.by_time.remove(&(at, subject.clone()));
        }
    }

    fn due(&mut self, now: Mono) -> BTreeSet<Subject> {
        let due: BTreeSet<Subject> = self
            .by_time
            .iter()
            .take_while(|(at, _)| *at <= now)
            .map(|(_, subject)| subject.clone())
            .collect();
        for subject in &due {
            self.clear(subject);
        }
        due
    }
}

impl Work {
    /// Something about these subjects changed.
    pub fn look_at(&mut self, subjects: impl IntoIterator<Item = Subject>) {
        self.dirty.extend(subjects);
    }

    /// Whether something waits for this node's lease.
    pub fn wants_lease(&self) -> bool {
        !self.for_lease.is_empty()
    }

    /// This node's lease was taken or renewed: what waited for it is looked at again.
    pub fn lease_is_here(&mut self) {
        self.dirty.append(&mut self.for_lease);
    }

    /// How many duties are under way.
    pub fn under_way(&self) -> usize {
        self.running.len()
    }

    /// Whether a subject's duty is under way.
    pub fn is_running(&self, subject: &Subject) -> bool {
        self.running.contains_key(subject)
    }

    /// Duties to be carried out now.
    pub fn turn(&mut self, view: &View, now: Now) -> Vec<(Subject, Duty)> {
        self.dirty.extend(self.alarms.due(now.mono));
        let mut begun = Vec::new();
        while self.running.len() < AT_ONCE {
            let Some(subject) = self.dirty.pop_first() else {
                break;
            };
            // One that is under way is looked at again when it ends.
            if self.running.contains_key(&subject) {
                continue;
            }
            if let Some(duty) = self.next(view, &subject, now) {
                self.running.insert(subject.clone(), duty.clone());
                begun.push((subject, duty));
            }
        }
        begun
    }

    fn next(&mut self, view: &View, subject: &Subject, now: Now) -> Option<Duty> {
        let owed = super::owed(view, subject, now);
        if let Some(again) = owed.again {
            self.alarms.set(subject, again);
        }
        if owed.needs_lease {
            self.for_lease.insert(subject.clone());
        }
        let Some(duty) = owed.duty else {
            self.failed.remove(subject);
            self.done.remove(subject);
            self.ripening.remove(subject);
            return None;
        };
        if let Some(ripe) = self.ripe(subject, &duty, owed.grace, now.mono) {
            self.alarms.set(subject, ripe);
            return None;
        }
        let wait = match (self.failed.get(subject), self.done.get(subject)) {
            (Some(failure), _) if failure.until > now.mono => Some(failure.until),
            (None, Some((done, at))) if duty.repeats(done) && now.mono < at.after(BELIEVED) => {
                Some(at.after(BELIEVED))
            }
            _ => None,
        };
        if let Some(until) = wait {
            self.alarms.set(subject, until);
            return None;
        }
        Some(duty)
    }

    /// When a duty that must have stood for a while may be done, if that is not now.
    fn ripe(&mut self, subject: &Subject, duty: &Duty, grace: Duration, now: Mono) -> Option<Mono> {
        if grace.is_zero() {
            return None;
        }
        let since = match self.ripening.get(subject) {
            Some((owed, since)) if owed == duty => *since,
            _ => {
                self.ripening.insert(subject.clone(), (duty.clone(), now));
                now
            }
        };
        let ripe = since.after(grace);
        (now < ripe).then_some(ripe)
    }

    /// A duty was carried out, or was not and why. Says which it was.
    pub fn ended(&mut self, subject: &Subject, error: Option<String>, now: Mono) -> Option<Duty> {
        let duty = self.running.remove(subject);
        match error {
            None => {
                self.failed.remove(subject);
                if let Some(duty) = &duty {
                    self.done.insert(subject.clone(), (duty.clone(), now));
                }
            }
            Some(error) => {
                let tries = self.failed.get(subject).map_or(0, |failure| failure.tries);
                let longest = match subject {
                    // Others act on how long a lease stands: it is tried again soon, and it is one small request.
                    Subject::Lease | Subject::OtherNode(_) => LEASE_PAUSE,
                    _ => PAUSE.1,
                };
                let pause = PAUSE.0.saturating_mul(1 << tries.min(16)).min(longest);
                let failure = Failure {
                    error,
                    tries: tries.saturating_add(1),
                    until: now.after(pause),
                };
                self.failed.insert(subject.clone(), failure);
            }
        }
        self.dirty.insert(subject.clone());
        duty
    }

    /// Forgets a subject that is no more.
    pub fn forget(&mut self, subject: &Subject) {
        self.failed.remove(subject);
        self.done.remove(subject);
        self.ripening.remove(subject);
        self.for_lease.remove(subject);
        self.alarms.clear(subject);
    }

    /// The failures of before do not count any more: contact is back, for instance.
    pub fn retry_now(&mut self) {
        self.dirty.extend(std::mem::take(&mut self.failed).into_keys());
    }

    /// Why a subject's duty failed last, if it did.
    pub fn failure(&self, subject: &Subject) -> Option<&Failure> {
        self.failed.get(subject)
    }

    /// All failures.
    pub fn failures(&self) -> impl Iterator<Item = (&Subject, &Failure)> {
        self.failed.iter()
    }

    /// When to take the next turn although nothing happens.
    pub fn wake(&self) -> Option<Mono> {
        if !self.dirty.is_empty() && self.running.len() < AT_ONCE {
            return Some(Mono::default());
        }
        self.alarms.by_time.first().map(|(at, _)| *at)
    }
}
