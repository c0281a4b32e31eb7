//! A blocking client of the agent: one connection, one request, one response.
//!
//! ```no_run
//! use std::time::Duration;
//! use buoy_cni::client::{Client, Deadline};
//! use buoy_cni_spec::agent::{Body, Inspect, Request};
//!
//! let mut request = Request::new("example", Body::Inspect(Inspect::Plan));
//! let deadline = Deadline::after(Duration::from_secs(5));
//! let plan = Client::new("/run/buoy/agent.sock").call_once(&mut request, None, deadline);
//! ```

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use buoy_cni_spec::agent::{self, Request, Response};
use buoy_cni_spec::frame::{self, Decoder, FrameError};
use buoy_cni_spec::{CniError, ErrorCode};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;

/// The first pause before connecting again; doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// The longest pause before connecting again.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// The longest that anybody may want to wait: keeps arithmetic with times from the environment in bounds.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// A point in time after which nobody waits any more.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: Instant,
}

/// What to do when the agent goes away in the middle of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenGone {
    /// Wait for it to come back, until the deadline.
    Wait,
    /// Send again only if it is back at once.
    GiveUp,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens on the socket, or it is not ours to connect to.
    #[error("cannot reach the agent: {}: {source}", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What connecting said.
        source: io::Error,
    },
    /// The connection ended before a response came.
    #[error("the agent closed the connection without an answer: {}", socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// What reading or writing said.
        source: io::Error,
    },
    /// The deadline passed.
    #[error("the agent did not answer in time: {}", socket.display())]
    TimedOut {
        /// The socket.
        socket: PathBuf,
    },
    /// The request is too large.
    #[error("the request to the agent is too large")]
    Request(#[source] FrameError),
    /// What came back is no response.
    #[error("{0}")]
    Garbage(CniError),
}

/// The agent's address.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Deadline {
    /// The point in time after this duration, at most a day from now.
    pub fn after(duration: Duration) -> Self {
        Self {
            at: Instant::now() + duration.min(LONGEST_WAIT),
        }
    }

    /// What is left; `None` if nothing is.
    pub fn remaining(self) -> Option<Duration> {
        self.at
            .checked_duration_since(Instant::now())
            .filter(|left| *left >= Duration::from_millis(1))
    }
}

impl CallError {
    /// Whether there is no agent: nobody listens on the socket.
    pub fn is_absent(&self) -> bool {
        let Self::Unreachable { source, .. } = self else {
            return false;
        };
        matches!(source.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
    }

    /// Whether the same request may succeed on a new connection.
    pub fn is_broken(&self) -> bool {
        matches!(self, Self::Broken { .. })
    }
}

impl From<CallError> for CniError {
    fn from(error: CallError) -> Self {
        let msg = error.to_string();
        match error {
            CallError::Unreachable { ref source, .. } if error.is_absent() => Self::try_again(msg).with_hint(format!(
                "start buoy-agent on this node ({source}), or name its socket in buoy.socket of the network configuration"
            )),
            CallError::Unreachable { .. } => Self::new(ErrorCode::IO, msg)
                .with_hint("run as the user that the agent runs as, and check the path of its socket"),
            CallError::Broken { source, .. } => Self::try_again(msg)
                .with_hint(format!("does buoy-agent keep restarting? see its log ({source})")),
            CallError::TimedOut { .. } => Self::try_again(msg).with_hint("is buoy-agent overloaded or stuck? see its log"),
            CallError::Request(source) => Self::new(ErrorCode::INVALID_CONFIG, format!("{msg}: {source}"))
                .with_hint("make the network configuration smaller"),
            CallError::Garbage(error) => error,
        }
    }
}

impl Client {
    /// A client of the agent that listens on this unix socket.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// The socket's path.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Sends a request until it is answered or the deadline passes. If no agent is there at first, it ends at once.
    ///
    /// A connection that breaks without an answer means that the agent died or was restarted; requests are idempotent
    /// by container and interface, so they are sent again.
    pub fn call(
        &self,
        request: &mut Request,
        netns: Option<BorrowedFd<'_>>,
        deadline: Deadline,
        when_gone: WhenGone,
    ) -> Result<Response, CallError> {
        let mut pause = FIRST_PAUSE;
        let mut was_there = false;
        loop {
            let error = match self.call_once(request, netns, deadline) {
                Err(error) if error.is_broken() => error,
                Err(error) if error.is_absent() && was_there && when_gone == WhenGone::Wait => error,
                other => return other,
            };
            was_there = true;
            if deadline.remaining().is_none_or(|left| left <= pause) {
                return Err(error);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Sends a request once, with the network namespace's descriptor if there is one, and waits for the response.
    pub fn call_once(
        &self,
        request: &mut Request,
        netns: Option<BorrowedFd<'_>>,
        deadline: Deadline,
    ) -> Result<Response, CallError> {
        let left = self.left(deadline)?;
        request
            .body
            .set_deadline_ms(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        let bytes = frame::encode(request).map_err(CallError::Request)?;
        let mut stream = self.connect(left)?;
        self.send(&mut stream, &bytes, netns, deadline)?;
        self.receive(&mut stream, deadline)
    }

    /// Connects. The time-out is set before: with an agent that is stopped, its queue fills and connecting blocks.
    fn connect(&self, timeout: Duration) -> Result<UnixStream, CallError> {
        let attempt = || -> nix::Result<OwnedFd> {
            let fd = socket(
                AddressFamily::Unix,
                SockType::Stream,
                SockFlag::SOCK_CLOEXEC,
                None,
            )?;
            let microseconds = i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX);
            let timeout = TimeVal::new(microseconds / 1_000_000, microseconds % 1_000_000);
            setsockopt(&fd, sockopt::SendTimeout, &timeout)?;
            connect(fd.as_raw_fd(), &UnixAddr::new(&self.socket)?)?;
            Ok(fd)
        };
        attempt().map(UnixStream::from).map_err(|errno| match errno {
            nix::Error::EAGAIN => CallError::TimedOut {
                socket: self.socket.clone(),
            },
            errno => CallError::Unreachable {
                socket: self.socket.clone(),
                source: errno.into(),
            },
        })
    }

    /// Sends the whole frame, the descriptor with its first bytes.
    fn send(
        &self,
        stream: &mut UnixStream,
        bytes: &[u8],
        netns: Option<BorrowedFd<'_>>,
        deadline: Deadline,
    ) -> Result<(), CallError> {
        let fds: Vec<_> = netns.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
        let first = sendmsg::<()>(
            stream.as_raw_fd(),
            &[IoSlice::new(bytes)],
            rights,
            MsgFlags::MSG_NOSIGNAL,
            None,
        );
        let mut sent = first.map_err(|errno| self.interrupted(errno.into()))?;
        while sent < bytes.len() {
            let left = self.left(deadline)?;
            let wrote = stream
                .set_write_timeout(Some(left))
                .and_then(|()| stream.write(&bytes[sent..]));
            sent += wrote.map_err(|error| self.interrupted(error))?;
        }
        Ok(())
    }

    fn receive(&self, stream: &mut UnixStream, deadline: Deadline) -> Result<Response, CallError> {
        let mut decoder = Decoder::default();
        let mut buffer = [0; 8192];
        loop {
            let garbage = |error: FrameError| CallError::Garbage(not_an_answer(&error));
            if let Some(body) = decoder.next_body().map_err(garbage)? {
                return agent::decode_response(&body).map_err(CallError::Garbage);
            }
            let left = self.left(deadline)?;
            let read = stream
                .set_read_timeout(Some(left))
                .and_then(|()| stream.read(&mut buffer));
            match read {
                Ok(0) => return Err(self.interrupted(ErrorKind::UnexpectedEof.into())),
                Ok(count) => decoder.push(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.interrupted(error)),
            }
        }
    }

    fn left(&self, deadline: Deadline) -> Result<Duration, CallError> {
        deadline.remaining().ok_or_else(|| CallError::TimedOut {
            socket: self.socket.clone(),
        })
    }

    /// What an error in the middle of a request means.
    fn interrupted(&self, source: io::Error) -> CallError {
        let socket = self.socket.clone();
        match source.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => CallError::TimedOut { socket },
            _ => CallError::Broken { socket, source },
        }
    }
}

fn not_an_answer(error: &FrameError) -> CniError {
    CniError::new(
        ErrorCode::DECODE,
        format!("the agent's answer does not decode: {error}"),
    )
    .with_hint("is it buoy-agent that listens on this socket, and of the same version as this plugin?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_bounded_and_end() {
        let left = Deadline::after(Duration::MAX).remaining().unwrap();
        assert!(left <= LONGEST_WAIT && left > LONGEST_WAIT - Duration::from_secs(60));
        assert_eq!(Deadline::after(Duration::ZERO).remaining(), None);
    }

    #[test]
    fn an_unreachable_agent_is_absent_only_if_nobody_listens() {
        let error = |kind: ErrorKind| CallError::Unreachable {
            socket: "/s".into(),
            source: kind.into(),
        };
        for (kind, absent, code) in [
            (ErrorKind::NotFound, true, ErrorCode::TRY_AGAIN_LATER),
            (ErrorKind::ConnectionRefused, true, ErrorCode::TRY_AGAIN_LATER),
            (ErrorKind::PermissionDenied, false, ErrorCode::IO),
        ] {
            assert_eq!(error(kind).is_absent(), absent);
            assert_eq!(CniError::from(error(kind)).code, code);
        }
    }
}
