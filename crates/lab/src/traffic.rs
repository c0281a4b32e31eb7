//! A client that talks to one address in several ways at once: to see that nothing is lost, or what a move costs.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::netns::Netns;
use crate::probe::{Probe, Reader, Tally, Via};

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
        let port = fresh_port();
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

/// A port from which nobody has sent yet.
fn fresh_port() -> u16 {
    static PORT: AtomicU16 = AtomicU16::new(20_000);
    PORT.fetch_add(1, Ordering::Relaxed)
}

/// How often the UDP sender of [`Witnesses`] asks: it says when the new owner answers.
const CLOSELY: Duration = Duration::from_millis(2);

/// How long clients get to hear of the end of their connections.
const HEARD: Duration = Duration::from_secs(5);

/// A ping, a UDP sender that keeps its ports, a TCP conversation and a TCP client that only reads, all talking to one
/// address while it moves.
#[derive(Debug)]
pub struct Witnesses {
    ping: Probe,
    udp: Probe,
    tcp: Probe,
    reader: Reader,
}

/// What a move cost.
#[derive(Clone, Debug)]
pub struct Seen {
    /// From the move's beginning to the new owner's first answer to the UDP sender.
    pub first_answer: Duration,
    /// Questions of the UDP sender, and those that nobody answered.
    pub udp: (u32, u32),
    /// Pings sent, and pings that nobody answered.
    pub pings: (u32, u32),
    /// Questions of the TCP conversation, and those that nobody answered.
    pub tcp: (u32, u32),
    /// Longest time from one answered ping to the next.
    pub gap: Duration,
    /// How the TCP conversation ended; `None` if it did not.
    pub talk: Option<String>,
    /// From the move's beginning to the reset that the reading client got, if it got one.
    pub reset: Option<Duration>,
}

impl Witnesses {
    /// Starts them, and waits until each is answered.
    pub fn start(client: &Netns, to: IpAddr) -> Result<Self> {
        let start = |via: Via, every| {
            Probe::start(client, via, to, every)
                .with_context(|| format!("cannot begin {} to {to}", via.name()))
        };
        let witnesses = Self {
            ping: start(Via::Ping, OFTEN)?,
            udp: start(Via::UdpFrom(fresh_port()), CLOSELY)?,
            tcp: start(Via::Tcp, OFTEN)?,
            reader: Reader::start(client, to)?,
        };
        for probe in [&witnesses.ping, &witnesses.udp, &witnesses.tcp] {
            probe.wait_for_more(10, SOON)?;
        }
        Ok(witnesses)
    }

    /// Waits until the workload `to` answers, then until pings are answered again, and counts. Error: it does not within
    /// `limit`.
    pub fn moved(self, begun: Instant, to: &str, limit: Duration) -> Result<Seen> {
        self.moved_and_heard(begun, to, limit, HEARD)
    }

    /// The same where nobody knows who comes next: whoever answers and is not the old owner. Returns who it is.
    pub fn taken_over(self, begun: Instant, old: &str, limit: Duration) -> Result<(String, Seen)> {
        let tally = self.udp.wait(limit, "another answers", |tally| {
            tally
                .changes
                .last()
                .is_some_and(|(at, who)| *at > begun && who != old)
        })?;
        let (_, next) = tally.changes.last().cloned().context("nobody answers")?;
        let seen = self.moved(begun, &next, limit)?;
        Ok((next, seen))
    }

    /// The same; clients get `heard` to hear of the end of their connections.
    pub fn moved_and_heard(self, begun: Instant, to: &str, limit: Duration, heard: Duration) -> Result<Seen> {
        let is_there = |tally: &Tally| {
            let last = tally.changes.last();
            last.is_some_and(|(at, who)| *at > begun && who == to)
        };
        let udp = self.udp.wait(limit, &format!("{to} answers"), is_there)?;
        let first = udp.changes.last().map_or(begun, |(at, _)| *at);
        self.ping.wait_for_more(20, SOON)?;
        // One that goes on is a result, too.
        let _ = self
            .tcp
            .wait(heard, "the conversation ends", |tally| tally.ended.is_some());
        let ending = self.reader.ending(heard).ok();
        for probe in [&self.ping, &self.udp, &self.tcp] {
            probe.halt();
        }
        let (ping, udp, tcp) = (self.ping.stop()?, self.udp.stop()?, self.tcp.stop()?);
        Ok(Seen {
            first_answer: first.saturating_duration_since(begun),
            udp: (udp.sent, udp.lost()),
            pings: (ping.sent, ping.lost()),
            tcp: (tcp.sent, tcp.lost()),
            gap: ping.longest_gap,
            talk: tcp.ended,
            reset: ending
                .filter(|ending| ending.is_reset())
                .map(|ending| ending.at.saturating_duration_since(begun)),
        })
    }
}

impl Seen {
    /// How the TCP conversation ended, without the number of the error.
    pub fn how_it_ended(&self) -> Option<&str> {
        let how = self.talk.as_deref()?;
        Some(how.split_once(" (").map_or(how, |(how, _)| how))
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sent, lost) = self.pings;
        write!(
            f,
            "first answer after {:.0?}, {lost} of {sent} pings lost, longest gap {:.0?}, {} of {} UDP questions lost",
            self.first_answer, self.gap, self.udp.1, self.udp.0
        )?;
        match &self.talk {
            Some(end) => write!(f, ", TCP ended: {end}")?,
            None => write!(f, ", TCP goes on")?,
        }
        match self.reset {
            Some(after) => write!(f, ", reader reset after {after:.0?}"),
            None => write!(f, ", no reset for the reader"),
        }
    }
}

/// A UDP sender that keeps its ports and a TCP client that only reads, in a node to which an address is about to come: until
/// then, all that the node tracks of them leads away from it.
#[derive(Debug)]
pub struct Neighbour {
    udp: Probe,
    reader: Reader,
}

impl Neighbour {
    /// Starts them, and waits until each is answered.
    pub fn start(node: &Netns, to: IpAddr) -> Result<Self> {
        let udp = Probe::start(node, Via::UdpFrom(fresh_port()), to, OFTEN)?;
        udp.wait_for_more(10, SOON)?;
        let reader = Reader::start(node, to)?;
        Ok(Self { udp, reader })
    }

    /// Waits until the workload `who` answers the sender from its old ports, and the reader has got its reset.
    pub fn follows(self, who: &str, limit: Duration) -> Result<()> {
        self.udp.wait(limit, &format!("{who} answers"), |tally| {
            tally.changes.last().is_some_and(|(_, name)| name == who)
        })?;
        let ending = self.reader.ending(limit)?;
        ensure!(ending.is_reset(), "the reader saw no reset: {:?}", ending.how);
        Ok(())
    }
}
