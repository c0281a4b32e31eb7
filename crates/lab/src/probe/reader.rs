//! A TCP client that connects and then only reads: nothing that it does would ever tell it that its peer has changed.

use std::io::{self, Read};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::answer::Answer;
use super::wire;
use crate::netns::Netns;

/// A connection on which somebody waits for data.
#[derive(Debug)]
pub struct Reader {
    /// What the server said when the connection came about.
    pub greeting: Answer,
    stream: TcpStream,
    ended: Receiver<Ending>,
}

/// The end of a [`Reader`]'s connection, as it learnt of it.
#[derive(Debug)]
pub struct Ending {
    /// When.
    pub at: Instant,
    /// The error, or `Ok` for an orderly end or unexpected data.
    pub how: io::Result<usize>,
}

impl Ending {
    /// Whether it was a reset.
    pub fn is_reset(&self) -> bool {
        matches!(&self.how, Err(error) if error.kind() == io::ErrorKind::ConnectionReset)
    }
}

impl Reader {
    /// Connects from inside a namespace, and waits for data.
    pub fn start(netns: &Netns, to: IpAddr) -> Result<Self> {
        let (stream, greeting) = netns.enter(move || wire::connect(to))?;
        let (tell, ended) = mpsc::channel();
        let mut reading = stream.try_clone()?;
        thread::Builder::new().name("reader".to_owned()).spawn(move || {
            let how = reading.read(&mut [0; 64]);
            let _ = tell.send(Ending {
                at: Instant::now(),
                how,
            });
        })?;
        Ok(Self {
            greeting,
            stream,
            ended,
        })
    }

    /// Whether the connection still stands, as far as the reader knows.
    pub fn is_open(&self) -> bool {
        self.ended.try_recv().is_err()
    }

    /// Waits for the connection's end. Error: it stands after `limit`.
    pub fn ending(&self, limit: Duration) -> Result<Ending> {
        self.ended
            .recv_timeout(limit)
            .with_context(|| format!("a client that only reads heard nothing for {limit:?}"))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Ends the thread that reads.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
