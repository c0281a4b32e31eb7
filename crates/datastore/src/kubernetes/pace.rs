//! How fast a client may ask: so many requests a second on average, and so many at once after a rest. It is client-go's limit, by
//! its names.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Requests a second, and how many of them may come at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    /// Requests a second in the long run; zero: any number.
    pub qps: f64,
    /// Requests at once.
    pub burst: u32,
}

impl Default for Rate {
    fn default() -> Self {
        Self {
            qps: 50.0,
            burst: 100,
        }
    }
}

/// Who holds a client to its rate.
#[derive(Debug)]
pub(super) struct Pace {
    /// Between two requests in the long run; `None` without a limit.
    every: Option<Duration>,
    /// What may be taken ahead of that.
    ahead: Duration,
    /// Until when the requests so far use the rate up.
    used: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn new(rate: Rate) -> Self {
        let every = Duration::try_from_secs_f64(1.0 / rate.qps).ok();
        let every = every.filter(|every| !every.is_zero());
        Self {
            every,
            ahead: every.unwrap_or_default().saturating_mul(rate.burst.max(1)),
            used: Mutex::new(None),
        }
    }

    /// Takes one request's turn: how long to wait for it.
    pub(super) fn take(&self, now: Instant) -> Duration {
        let Some(every) = self.every else {
            return Duration::ZERO;
        };
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let until = used.map_or(now, |used| used.max(now)) + every;
        *used = Some(until);
        until.saturating_duration_since(now).saturating_sub(self.ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_the_rate_counts() {
        let pace = Pace::new(Rate { qps: 10.0, burst: 3 });
        let begin = Instant::now();
        let at = |milliseconds| begin + Duration::from_millis(milliseconds);
        let waits = [0, 0, 0, 0, 0, 150].map(|now| pace.take(at(now)).as_millis());
        assert_eq!(waits, [0, 0, 0, 100, 200, 150]);
        // After a rest there is a burst again, and no larger one.
        let waits = [(); 4].map(|()| pace.take(at(60_000)).as_millis());
        assert_eq!(waits, [0, 0, 0, 100]);
    }

    #[test]
    fn without_a_rate_nobody_waits() {
        let pace = Pace::new(Rate { qps: 0.0, burst: 1 });
        assert!((0..1000).all(|_| pace.take(Instant::now()).is_zero()));
    }
}
