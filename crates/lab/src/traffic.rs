//! A client that talks to one address in several ways at once, to see whether anything is lost.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::netns::Netns;
use crate::probe::{Probe, Tally, Via};

/// How often each way asks.
const OFTEN: Duration = Duration::from_millis(10);

/// Patience with answers on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// A ping, a UDP sender that keeps its ports, and a TCP conversation, all from one client to one address.
#[derive(Debug)]
pub struct Traffic {
    probes: Vec<(Via, Probe)>,
}

impl Traffic {
    /// Starts it, and waits until every way is answered.
    pub fn start(client: &Netns, to: IpAddr) -> Result<Self> {
        static PORT: AtomicU16 = AtomicU16::new(20_000);
        let port = PORT.fetch_add(1, Ordering::Relaxed);
        let mut traffic = Self { probes: Vec::new() };
        for via in [Via::Ping, Via::UdpFrom(port), Via::Tcp] {
            let probe = Probe::start(client, via, to, OFTEN)
                .with_context(|| format!("cannot begin {} to {to}", via.name()))?;
            traffic.probes.push((via, probe));
        }
        traffic.progress()?;
        Ok(traffic)
    }

    /// Waits until every way has had twenty more answers. Error: one has not.
    pub fn progress(&self) -> Result<()> {
        for (_, probe) in &self.probes {
            probe.wait_for_more(20, SOON)?;
        }
        Ok(())
    }

    /// Stops it, and checks that nothing was lost and nothing interrupted. Returns what each way has seen.
    pub fn unharmed(self) -> Result<Vec<(Via, Tally)>> {
        let mut seen = Vec::new();
        for (via, probe) in self.probes {
            let tally = probe.stop()?;
            ensure!(tally.ended.is_none(), "{} was interrupted: {tally}", via.name());
            ensure!(
                tally.lost() == 0,
                "{}: {} lost: {tally}",
                via.name(),
                tally.lost()
            );
            ensure!(tally.by.len() == 1, "{}: several answered: {tally}", via.name());
            seen.push((via, tally));
        }
        Ok(seen)
    }
}
