//! One client that pings many addresses in turn, by one socket: a [`Probe`](super::Probe) for each would cost more than what
//! is measured.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::socket::{SockaddrStorage, recvfrom};
use socket2::Socket;

use super::echo::Echo;
use super::serve::ip_of;
use super::wire::{domain_of, readable};
use crate::exec::eventually;
use crate::netns::Netns;

/// A round is sent in so many parts: all at once would be a burst.
const PARTS: usize = 10;
/// The shortest time for which the kernel lets somebody wait.
const MOMENT: Duration = Duration::from_millis(1);

/// Pings of one family to many addresses. Dropping it stops it.
#[derive(Debug)]
pub struct Rounds {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    heard: Mutex<BTreeMap<IpAddr, Heard>>,
    stop: AtomicBool,
}

/// What came back from one address.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    answers: u32,
    last: Option<Instant>,
    longest_gap: Duration,
}

impl Rounds {
    /// Pings each address once in every round, from inside a namespace.
    pub fn start(netns: &Netns, to: &[IpAddr], round: Duration) -> Result<Self> {
        let first = *to.first().context("nobody to ping")?;
        let echo = Echo::new(domain_of(first));
        let pinger = Pinger {
            socket: netns.enter(move || echo.socket())?,
            echo,
            to: to.to_vec(),
        };
        let shared = Arc::new(Shared::default());
        *lock(&shared.heard) = to.iter().map(|to| (*to, Heard::default())).collect();
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("rounds".to_owned())
            .spawn(move || pinger.drive(round, &theirs))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Waits until every address has answered `count` more times. Error: some have not within `limit`, and which.
    pub fn wait_for_more(&self, count: u32, limit: Duration) -> Result<()> {
        let before = lock(&self.shared.heard).clone();
        eventually(limit, &format!("{count} more answers of each"), || {
            let heard = lock(&self.shared.heard);
            let few = heard
                .iter()
                .filter(|(address, heard)| heard.answers < before[*address].answers + count);
            let few: Vec<&IpAddr> = few.map(|(address, _)| address).collect();
            ensure!(few.is_empty(), "{} of {}: {few:?}", few.len(), heard.len());
            Ok(())
        })
    }

    /// Stops; returns of each address the longest time between two answers.
    pub fn stop(mut self) -> Result<Vec<Duration>> {
        self.end()?;
        let heard = lock(&self.shared.heard);
        Ok(heard.values().map(|heard| heard.longest_gap).collect())
    }

    fn end(&mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map_or(Ok(()), JoinHandle::join);
        ended.map_err(|_| anyhow!("who pings panicked"))
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

struct Pinger {
    socket: Socket,
    echo: Echo,
    to: Vec<IpAddr>,
}

impl Pinger {
    fn drive(&self, round: Duration, shared: &Shared) {
        let size = self.to.len().div_ceil(PARTS);
        let pause = round / u32::try_from(self.to.len().div_ceil(size)).unwrap_or(1);
        let mut next = Instant::now();
        for (number, part) in (0..).zip(self.to.chunks(size).cycle()) {
            for to in part {
                // What cannot be sent is not answered, which is what is measured.
                let _ = self
                    .socket
                    .send_to(&self.echo.request(number), &SocketAddr::new(*to, 0).into());
            }
            // After a pause of the machine, no burst; and always an ear for what comes back.
            next = (next + pause).max(Instant::now() + MOMENT);
            while Instant::now() < next {
                if shared.stop.load(Ordering::Relaxed) {
                    return;
                }
                self.listen(next, shared);
            }
        }
    }

    /// Takes in one answer, if one comes in time.
    fn listen(&self, until: Instant, shared: &Shared) {
        let wait = until.saturating_duration_since(Instant::now()).max(MOMENT);
        if !matches!(readable(&self.socket, wait), Ok(true)) {
            return;
        }
        let mut buffer = [0; 256];
        let received = recvfrom::<SockaddrStorage>(self.socket.as_raw_fd(), &mut buffer);
        let Ok((length, Some(from))) = received else {
            return;
        };
        let Some(from) = ip_of(&from, domain_of(self.to[0])) else {
            return;
        };
        if self.echo.number(&buffer[..length], from).is_some()
            && let Some(heard) = lock(&shared.heard).get_mut(&from)
        {
            heard.note(Instant::now());
        }
    }
}

impl Heard {
    fn note(&mut self, now: Instant) {
        self.answers += 1;
        if let Some(last) = self.last.replace(now) {
            self.longest_gap = self.longest_gap.max(now - last);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
