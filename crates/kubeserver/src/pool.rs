//! Servers that serve one test after another: starting one costs more than most tests do.
//!
//! A test has its server alone, and finds no object in it but those that it was started with.

use std::io;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

use anyhow::{Context, Result};

use crate::ApiServer;

/// Waits until the program that started it is gone, however it went, and removes a directory. The servers that write there
/// go at the same moment.
const SWEEP: &str = "trap '' INT TERM HUP; read -r never
    for attempt in 1 2 3 4 5; do rm -rf -- \"$1\" && exit; sleep 1; done";

/// Servers of one kind, for all tests of a program.
#[derive(Debug)]
pub struct Pool {
    start: fn() -> Result<ApiServer>,
    idle: Mutex<Vec<Arc<Kept>>>,
}

impl Pool {
    /// One whose servers are started like this.
    pub const fn new(start: fn() -> Result<ApiServer>) -> Self {
        Self {
            start,
            idle: Mutex::new(Vec::new()),
        }
    }

    /// A server that nobody else has.
    pub fn take(&'static self) -> Result<Lent> {
        let idle = self.idle().pop();
        let kept = match idle {
            Some(kept) => kept,
            None => Arc::new(Kept::start(self.start)?),
        };
        Ok(Lent { pool: self, kept })
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Arc<Kept>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server of a pool, which gets it back when this is dropped: not where a test failed, or stopped the server.
#[derive(Debug)]
pub struct Lent {
    pool: &'static Pool,
    kept: Arc<Kept>,
}

impl Lent {
    /// The server.
    pub fn lock(&self) -> MutexGuard<'_, ApiServer> {
        self.kept.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let is_as_begun = !thread::panicking() && {
            let server = self.lock();
            !server.was_stopped() && server.empty().is_ok()
        };
        if is_as_begun {
            self.pool.idle().push(Arc::clone(&self.kept));
        }
    }
}

/// A server, and who removes its directory where the program ends without doing so.
#[derive(Debug)]
struct Kept {
    server: Mutex<ApiServer>,
    _sweeper: Sweeper,
}

impl Kept {
    /// On a thread that stays: the processes of a server end with the thread that started them.
    fn start(start: fn() -> Result<ApiServer>) -> Result<Self> {
        let (started, server) = mpsc::channel();
        thread::Builder::new().name("server".to_owned()).spawn(move || {
            if started.send(start()).is_ok() {
                loop {
                    thread::park();
                }
            }
        })?;
        let server = server.recv().context("the thread of a server ended")??;
        Ok(Self {
            _sweeper: Sweeper::of(server.directory.path())?,
            server: Mutex::new(server),
        })
    }
}

#[derive(Debug)]
struct Sweeper {
    child: Child,
    /// It waits for the end of this.
    alive: Option<ChildStdin>,
}

impl Sweeper {
    fn of(directory: &Path) -> io::Result<Self> {
        let mut child = Command::new("sh")
            .args(["-c", SWEEP, "sh"])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self {
            alive: child.stdin.take(),
            child,
        })
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.alive = None;
        let _ = self.child.wait();
    }
}
