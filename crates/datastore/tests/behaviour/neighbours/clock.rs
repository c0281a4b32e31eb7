//! Time as a collector sees it: it goes on while others work, and nobody works on one thing for longer than the grace that
//! a collector has. No runtime waits that long for an answer to an ADD.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

/// A clock that is never ahead of its writers.
#[derive(Default)]
pub(crate) struct Clock {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    now: Duration,
    /// Since when somebody is at something, by a number.
    at_work: BTreeMap<u64, Duration>,
    next: u64,
}

/// Somebody is at something until this is dropped.
pub(crate) struct AtWork<'a> {
    clock: &'a Clock,
    number: u64,
}

impl Clock {
    pub(crate) fn begin(&self) -> AtWork<'_> {
        let mut state = self.state.lock().unwrap();
        let (number, now) = (state.next, state.now);
        state.next += 1;
        state.at_work.insert(number, now);
        AtWork { clock: self, number }
    }

    /// Goes on by half a grace, and tells the time; not while somebody is at something since before the last step.
    pub(crate) fn step(&self, half: Duration) -> Option<Duration> {
        let mut state = self.state.lock().unwrap();
        if state.at_work.values().any(|since| *since < state.now) {
            return None;
        }
        state.now += half;
        Some(state.now)
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        if let Ok(mut state) = self.clock.state.lock() {
            state.at_work.remove(&self.number);
        }
    }
}
