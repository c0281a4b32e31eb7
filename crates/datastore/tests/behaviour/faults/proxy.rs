//! A relay between a client and a server that can be told to misbehave.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::server::{free, own_address};

/// What becomes of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They pass.
    Pass,
    /// Each portion of them passes late.
    Slow,
    /// Those of the client pass; those of the server are lost.
    Mute,
    /// They wait, and connections stay open.
    Stall,
}

const MODES: [Mode; 4] = [Mode::Pass, Mode::Slow, Mode::Mute, Mode::Stall];

/// When a mode begins by itself.
#[derive(Clone, Copy, Debug)]
struct Trigger {
    /// Bytes that pass before.
    left: usize,
    /// Whether those of the server are meant, or those of the client.
    is_answer: bool,
    mode: Mode,
}

const LOOK: Duration = Duration::from_millis(5);
pub(crate) const DELAY: Duration = Duration::from_millis(200);

#[derive(Debug)]
struct State {
    mode: AtomicU8,
    trigger: Mutex<Option<Trigger>>,
    server: Mutex<SocketAddr>,
    stop: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

/// A relay; gone when dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    accepting: Option<JoinHandle<()>>,
}

impl Proxy {
    pub(crate) fn to(server: SocketAddr) -> Self {
        let address = free(own_address());
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let state = Arc::new(State {
            mode: AtomicU8::new(0),
            trigger: Mutex::new(None),
            server: Mutex::new(server),
            stop: AtomicBool::new(false),
            open: Mutex::new(Vec::new()),
        });
        let seen = Arc::clone(&state);
        let accepting = std::thread::spawn(move || {
            while !seen.stop.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((client, _)) => relay(&seen, &client),
                    Err(_) => std::thread::sleep(LOOK),
                }
            }
        });
        Self {
            address,
            state,
            accepting: Some(accepting),
        }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.state.set(mode);
    }

    /// Stalls when the server has said so many more bytes: in the midst of an answer that is longer.
    pub(crate) fn stall_after_hearing(&self, bytes: usize) {
        self.state.trigger_after(bytes, true, Mode::Stall);
    }

    /// Loses the answer to a request that is longer than this, and to no shorter one before it.
    pub(crate) fn mute_after_asking(&self, bytes: usize) {
        self.state.trigger_after(bytes, false, Mode::Mute);
    }

    /// Until a mode has begun by itself.
    pub(crate) fn wait_for(&self, mode: Mode) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.state.mode() != mode {
            assert!(Instant::now() < deadline, "it never comes to {mode:?}");
            std::thread::sleep(LOOK);
        }
    }

    /// Connections that come from now on go elsewhere.
    pub(crate) fn turn_to(&self, server: SocketAddr) {
        *self.state.server.lock().unwrap() = server;
    }

    /// Breaks the connections that there are.
    pub(crate) fn cut(&self) {
        for stream in self.state.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("etcd://{}", self.address)
    }
}

impl State {
    fn mode(&self) -> Mode {
        MODES[usize::from(self.mode.load(Ordering::SeqCst))]
    }

    fn set(&self, mode: Mode) {
        let number = MODES.iter().position(|known| *known == mode).unwrap();
        self.mode.store(u8::try_from(number).unwrap(), Ordering::SeqCst);
    }

    fn trigger_after(&self, left: usize, is_answer: bool, mode: Mode) {
        let trigger = Trigger {
            left,
            is_answer,
            mode,
        };
        *self.trigger.lock().unwrap() = Some(trigger);
    }

    /// Notes what is about to pass.
    fn note(&self, count: usize, is_answer: bool) {
        let mut due = self.trigger.lock().unwrap();
        let Some(trigger) = due.as_mut().filter(|trigger| trigger.is_answer == is_answer) else {
            return;
        };
        trigger.left = trigger.left.saturating_sub(count);
        if trigger.left == 0 {
            self.set(trigger.mode);
            *due = None;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        let joined = self.accepting.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(joined, Some(Ok(()))));
        self.cut();
    }
}

fn relay(state: &Arc<State>, client: &TcpStream) {
    let server = *state.server.lock().unwrap();
    let Ok(server) = TcpStream::connect(server) else {
        return;
    };
    let mut open = state.open.lock().unwrap();
    for (from, to, is_answer) in [(client, &server, false), (&server, client, true)] {
        from.set_nonblocking(false).unwrap();
        from.set_read_timeout(Some(LOOK)).unwrap();
        let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        open.push(from.try_clone().unwrap());
        let state = Arc::clone(state);
        std::thread::spawn(move || carry(&state, from, to, is_answer));
    }
}

fn carry(state: &State, mut from: TcpStream, mut to: TcpStream, is_answer: bool) {
    let mut buffer = [0; 64 << 10];
    while !state.stop.load(Ordering::SeqCst) {
        let mode = || state.mode();
        if mode() == Mode::Stall {
            std::thread::sleep(LOOK);
            continue;
        }
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => break,
        };
        state.note(count, is_answer);
        while mode() == Mode::Stall && !state.stop.load(Ordering::SeqCst) {
            std::thread::sleep(LOOK);
        }
        if mode() == Mode::Slow {
            std::thread::sleep(DELAY);
        }
        let is_lost = is_answer && mode() == Mode::Mute;
        if !is_lost && to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
