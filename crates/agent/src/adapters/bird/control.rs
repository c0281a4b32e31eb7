//! BIRD's control socket: a command, and lines with numbers for an answer.
//!
//! Whatever comes is read within a time and a size; what makes no sense is an error, never a panic.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

/// How long an answer may take. A daemon that hangs still holds its routes, and one on a busy machine may only be waiting for
/// its turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer that is read.
const LONGEST: usize = 4 << 20;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mute {
    /// Nobody listens.
    Absent,
    /// Somebody listens, and says nothing of use.
    Silent(String),
}

/// A line of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// What sort of line: below 1000 the end of a good answer, from 8000 on of a bad one.
    pub(super) code: u16,
    /// The line without it.
    pub(super) text: String,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Control {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// What the daemon says of itself: `BIRD 2.0.12 ready.`
    pub(super) greeting: String,
}

impl Control {
    /// Connects and reads the greeting. Never waits for a place in the queue of a daemon that hangs.
    pub(super) fn connect(path: &Path) -> Result<Self, Mute> {
        let silent = |e: Errno| Mute::Silent(format!("connect: {e}"));
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(silent)?;
        let address = UnixAddr::new(path).map_err(silent)?;
        match connect(fd.as_raw_fd(), &address) {
            Ok(()) => {}
            Err(Errno::ENOENT | Errno::ECONNREFUSED) => return Err(Mute::Absent),
            Err(Errno::EAGAIN) => return Err(Mute::Silent("it takes no more connections".to_owned())),
            Err(error) => return Err(silent(error)),
        }
        let stream = UnixStream::from(fd);
        let prepared = stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        prepared.map_err(|e| Mute::Silent(e.to_string()))?;
        let mut control = Self {
            stream,
            buffer: Vec::new(),
            greeting: String::new(),
        };
        control.greeting = last(&control.answer()?);
        Ok(control)
    }

    /// Gives a command and reads the answer.
    pub(super) fn ask(&mut self, command: &str) -> Result<Vec<Line>, Mute> {
        self.stream
            .write_all(format!("{command}\n").as_bytes())
            .map_err(|e| Mute::Silent(format!("write: {e}")))?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Vec<Line>, Mute> {
        let deadline = Instant::now() + PATIENCE;
        let (mut lines, mut read) = (Vec::new(), 0);
        loop {
            let line = self.line(deadline)?;
            read += line.len();
            if read > LONGEST {
                return Err(Mute::Silent(format!("an answer of more than {LONGEST} bytes")));
            }
            if let Some(is_last) = take(&line, &mut lines)?
                && is_last
            {
                return Ok(lines);
            }
        }
    }

    fn line(&mut self, deadline: Instant) -> Result<String, Mute> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.buffer.len() > LONGEST {
                return Err(Mute::Silent("a line without end".to_owned()));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Mute::Silent("no answer in time".to_owned()));
            }
            self.fill(left)?;
        }
    }

    fn fill(&mut self, patience: Duration) -> Result<(), Mute> {
        let mut bytes = [0; 4096];
        let read = self
            .stream
            .set_read_timeout(Some(patience))
            .and_then(|()| self.stream.read(&mut bytes));
        match read {
            Ok(0) => Err(Mute::Silent("it hung up".to_owned())),
            Ok(count) => {
                self.buffer.extend(&bytes[..count]);
                Ok(())
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
            Err(e) => Err(Mute::Silent(format!("read: {e}"))),
        }
    }
}

/// Takes one line in and says whether it is the answer's last; nothing for what was not asked for.
fn take(line: &str, lines: &mut Vec<Line>) -> Result<Option<bool>, Mute> {
    if line.starts_with('+') {
        return Ok(None);
    }
    if let Some(more) = line.strip_prefix(' ') {
        let code = lines.last().map_or(0, |line| line.code);
        lines.push(Line {
            code,
            text: more.to_owned(),
        });
        return Ok(Some(false));
    }
    let senseless = || {
        Mute::Silent(format!(
            "it says: {:?}",
            line.chars().take(80).collect::<String>()
        ))
    };
    let (code, rest) = line.split_at_checked(4).ok_or_else(senseless)?;
    let is_number = code.bytes().all(|byte| byte.is_ascii_digit());
    let code: u16 = code.parse().ok().filter(|_| is_number).ok_or_else(senseless)?;
    let (is_last, text) = match (rest.strip_prefix('-'), rest.strip_prefix(' ')) {
        (Some(text), _) => (false, text),
        (_, Some(text)) => (true, text),
        _ if rest.is_empty() => (true, ""),
        _ => return Err(senseless()),
    };
    lines.push(Line {
        code,
        text: text.to_owned(),
    });
    Ok(Some(is_last))
}

/// The last line that says anything.
pub(super) fn last(lines: &[Line]) -> String {
    let said = lines.iter().rev().find(|line| !line.text.trim().is_empty());
    said.map(|line| line.text.trim().to_owned()).unwrap_or_default()
}

/// Whether an answer ends badly.
pub(super) fn is_refusal(lines: &[Line]) -> bool {
    lines.last().is_none_or(|line| line.code >= 8000)
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
