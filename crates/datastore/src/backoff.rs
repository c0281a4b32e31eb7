//! How long to wait before a store that failed is asked again.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// First and longest pause; each is twice the one before, give or take a quarter.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Pauses that grow while nothing succeeds.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Nothing has failed yet.
    pub(crate) fn new() -> Self {
        Self { next: PAUSE.0 }
    }

    /// The pause after one more failure.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = jittered(self.next);
        self.next = (self.next * 2).min(PAUSE.1);
        pause
    }

    /// Something succeeded.
    pub(crate) fn reset(&mut self) {
        self.next = PAUSE.0;
    }
}

/// Between three and five quarters of a pause: many clients of one store do not come back all at once.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(()) % 512;
    pause * 3 / 4 + pause * u32::try_from(random).unwrap_or(0) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const MS: Duration = Duration::from_millis(1);

    /// That a pause is what was meant, give or take a quarter.
    fn is_about(pause: Duration, meant: Duration) {
        let around = meant * 3 / 4..=meant * 5 / 4;
        assert!(around.contains(&pause), "{pause:?} for {meant:?}");
    }

    #[test]
    fn pauses_grow_to_the_longest_and_begin_again_after_a_success() {
        let mut backoff = Backoff::new();
        for _ in 0..3 {
            for meant in [100, 200, 400, 800, 1000, 1000, 1000] {
                is_about(backoff.pause(), meant * MS);
            }
            backoff.reset();
        }
    }

    #[test]
    fn clients_that_fail_at_once_do_not_come_back_at_once() {
        let mut clients: Vec<Backoff> = (0..100).map(|_| Backoff::new()).collect();
        for round in 0..6 {
            let pauses: BTreeSet<Duration> = clients.iter_mut().map(Backoff::pause).collect();
            assert!(pauses.len() > 10, "{round}: {pauses:?}");
            let all = || pauses.iter().copied();
            let spread = all().max().unwrap() - all().min().unwrap();
            // Of the half that there is, most is used.
            assert!(spread > all().min().unwrap() / 4, "{round}: {pauses:?}");
        }
    }
}
