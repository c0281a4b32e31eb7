//! The clocks of this machine.

use std::time::Duration;

use buoy_core::time::{Mono, Now};
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// Both clocks, read now.
pub fn now() -> Now {
    Now {
        wall: Timestamp::now(),
        mono: mono(),
    }
}

/// CLOCK_BOOTTIME; zero on a kernel without it, where no interval ever ends and everything waits for an event.
pub fn mono() -> Mono {
    Mono(
        clock_gettime(ClockId::CLOCK_BOOTTIME)
            .map(Duration::from)
            .unwrap_or_default(),
    )
}
