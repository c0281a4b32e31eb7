//! A client that tells who answers.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::load::UDP;
use crate::netns::Netns;
use crate::probe::any_like;

/// Patience with a change of who answers: on a busy machine a takeover begins to count anew whenever the store was silent
/// for more than a second.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between the questions of a client.
const BETWEEN: Duration = Duration::from_micros(300);
/// How long a client waits for an answer before it asks again.
const NO_ANSWER: Duration = Duration::from_millis(2);

/// A client that asks all the time and tells when somebody else begins to answer. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Client {
    answers: Receiver<(u8, Instant)>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Client {
    /// Starts it, with one port for all questions or another one for each.
    pub(super) fn start(netns: &Netns, to: IpAddr, keeps_port: bool) -> Result<Self> {
        let (sender, answers) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        let thread = netns.spawn("client", move || {
            ask_on(to, keeps_port, &theirs, &sender).context("a client that asks all the time")
        })?;
        Ok(Self {
            answers,
            stop,
            thread: Some(thread),
        })
    }

    /// How long after `begun` this workload began to answer.
    pub(super) fn answered_after(&self, name: u8, begun: Instant) -> Result<Duration> {
        let at = self.first_answer(name, Some(begun))?;
        Ok(at.saturating_duration_since(begun))
    }

    /// When this workload began to answer. What was known before `since` does not count: a question from a port that
    /// was used before may have been answered by the last workload once more.
    pub(super) fn first_answer(&self, name: u8, since: Option<Instant>) -> Result<Instant> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let (who, at) = self
                .answers
                .recv_timeout(PATIENCE)
                .context("nobody else answers")?;
            if who == name && since.is_none_or(|since| at > since) {
                return Ok(at);
            }
        }
        bail!("the other workload does not answer");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn ask_on(to: IpAddr, keeps_port: bool, stop: &AtomicBool, changes: &Sender<(u8, Instant)>) -> Result<()> {
    let mut socket = open(to)?;
    let mut last = None;
    let mut answer = [0; 16];
    while !stop.load(Ordering::Relaxed) {
        if !keeps_port {
            socket = open(to)?;
        }
        // What cannot be sent now, and what is not answered, is asked again.
        if socket.send(b"?").is_ok() && socket.recv(&mut answer).is_ok() {
            let now = Instant::now();
            if last.replace(answer[0]) != Some(answer[0]) && changes.send((answer[0], now)).is_err() {
                break;
            }
        }
        thread::sleep(BETWEEN);
    }
    Ok(())
}

fn open(to: IpAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((any_like(to), 0))?;
    socket.connect((to, UDP))?;
    socket.set_read_timeout(Some(NO_ANSWER))?;
    Ok(socket)
}
