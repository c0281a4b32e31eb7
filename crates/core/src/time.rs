//! Time as an argument.

use std::time::Duration;

use jiff::Timestamp;

/// A reading of a clock that never goes back and counts suspended time (CLOCK_BOOTTIME), since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub Duration);

impl Mono {
    /// The reading `after` later.
    pub fn after(self, after: Duration) -> Self {
        Self(self.0.saturating_add(after))
    }

    /// Time since an earlier reading; zero if it was later.
    pub fn since(self, earlier: Mono) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Both clocks at one instant: wall time for what is written down, monotonic time for intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall-clock time.
    pub wall: Timestamp,
    /// Monotonic time.
    pub mono: Mono,
}

impl Now {
    /// What the monotonic clock will show at a wall-clock time; now, if that is past.
    pub fn at(self, wall: Timestamp) -> Mono {
        let ahead = Duration::try_from(wall.duration_since(self.wall)).unwrap_or_default();
        self.mono.after(ahead)
    }
}

impl Default for Now {
    fn default() -> Self {
        Self {
            wall: Timestamp::UNIX_EPOCH,
            mono: Mono::default(),
        }
    }
}
