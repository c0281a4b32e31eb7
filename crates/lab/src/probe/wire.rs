//! A client's end of one conversation with an address, by any protocol.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};

use super::answer::Answer;
use super::echo::Echo;
use super::raw::{RawProtocol, connect_raw, payload};

/// The port on which the lab's servers answer, UDP and TCP.
pub const PORT: u16 = 7007;

/// How long a TCP connection may take to come about.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);

/// How a client talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// ICMP or ICMPv6 echo.
    Ping,
    /// UDP from a port the kernel chooses.
    Udp,
    /// UDP from this port: a sender that keeps its ports.
    UdpFrom(u16),
    /// One TCP connection: question, answer, question …
    Tcp,
    /// Packets of another protocol.
    Raw(RawProtocol),
}

impl Via {
    /// How people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Udp | Self::UdpFrom(_) => "UDP",
            Self::Tcp => "TCP",
            Self::Raw(protocol) => protocol.name(),
        }
    }
}

/// A conversation: numbered questions out, answers in.
pub(crate) trait Wire: Send {
    /// Sends a question. An error of a datagram is that of an earlier one as often as not.
    fn send(&mut self, number: u32) -> io::Result<()>;
    /// The next answer, if one comes within `wait`.
    fn receive(&mut self, wait: Duration) -> io::Result<Option<Answer>>;
    /// Whether an error is the end of the conversation.
    fn is_stream(&self) -> bool {
        false
    }
}

/// Opens a conversation in the namespace of the calling thread.
pub(crate) fn open(via: Via, to: IpAddr) -> Result<Box<dyn Wire>> {
    Ok(match via {
        Via::Ping => Box::new(Ping::open(to)?),
        Via::Udp => Box::new(Udp::open(to, 0)?),
        Via::UdpFrom(port) => Box::new(Udp::open(to, port)?),
        Via::Tcp => Box::new(Tcp::open(to)?),
        Via::Raw(protocol) => Box::new(Raw::open(protocol, to)?),
    })
}

/// Whether something can be read within `wait`.
pub(crate) fn readable(socket: impl AsFd, wait: Duration) -> io::Result<bool> {
    let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, timeout) {
        Ok(ready) => Ok(ready > 0),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

pub(crate) fn domain_of(ip: IpAddr) -> Domain {
    if ip.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 }
}

/// "Any address" of the family of `ip`.
pub(crate) fn any_like(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// For how long a port that was just closed may still be taken: a child that another thread forks has it until it runs its
/// program.
const PORT_PATIENCE: Duration = Duration::from_secs(5);

/// A socket on a port, of one family only: IPv4 and IPv6 may use the same port side by side.
pub(crate) fn bound(any: IpAddr, port: u16, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let begun = Instant::now();
    loop {
        match bound_at_once(any, port, kind, protocol) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && begun.elapsed() < PORT_PATIENCE => {
                thread::sleep(Duration::from_millis(2));
            }
            outcome => return outcome,
        }
    }
}

fn bound_at_once(any: IpAddr, port: u16, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(domain_of(any), kind, Some(protocol))?;
    if any.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(kind == Type::STREAM)?;
    socket.bind(&SocketAddr::new(any, port).into())?;
    Ok(socket)
}

struct Ping {
    socket: Socket,
    to: IpAddr,
    echo: Echo,
}

impl Ping {
    fn open(to: IpAddr) -> Result<Self> {
        let echo = Echo::new(domain_of(to));
        let socket = echo.socket()?;
        connect_raw(&socket, to).with_context(|| format!("no way to {to}"))?;
        Ok(Self { socket, to, echo })
    }
}

impl Wire for Ping {
    fn send(&mut self, number: u32) -> io::Result<()> {
        self.socket.send(&self.echo.request(number)).map(drop)
    }

    fn receive(&mut self, wait: Duration) -> io::Result<Option<Answer>> {
        if !readable(&self.socket, wait)? {
            return Ok(None);
        }
        let mut buffer = [0; 256];
        let length = (&self.socket).read(&mut buffer)?;
        let number = self.echo.number(&buffer[..length], self.to);
        Ok(number.map(|number| Answer {
            number,
            who: String::new(),
            saw: None,
        }))
    }
}

struct Udp {
    socket: UdpSocket,
}

impl Udp {
    fn open(to: IpAddr, port: u16) -> Result<Self> {
        let socket =
            bound(any_like(to), port, Type::DGRAM, Protocol::UDP).context("cannot open a UDP socket")?;
        let socket = UdpSocket::from(socket);
        socket
            .connect((to, PORT))
            .with_context(|| format!("no way to {to}"))?;
        Ok(Self { socket })
    }
}

impl Wire for Udp {
    fn send(&mut self, number: u32) -> io::Result<()> {
        self.socket.send(number.to_string().as_bytes()).map(drop)
    }

    fn receive(&mut self, wait: Duration) -> io::Result<Option<Answer>> {
        if !readable(&self.socket, wait)? {
            return Ok(None);
        }
        let mut buffer = [0; 256];
        let length = self.socket.recv(&mut buffer)?;
        Ok(Answer::decode(&buffer[..length]))
    }
}

struct Raw {
    protocol: RawProtocol,
    socket: Socket,
    to: IpAddr,
}

impl Raw {
    fn open(protocol: RawProtocol, to: IpAddr) -> Result<Self> {
        let socket = protocol.socket(domain_of(to))?;
        connect_raw(&socket, to).with_context(|| format!("no way to {to}"))?;
        Ok(Self { protocol, socket, to })
    }
}

impl Wire for Raw {
    fn send(&mut self, number: u32) -> io::Result<()> {
        self.socket.send(&self.protocol.question(number)).map(drop)
    }

    fn receive(&mut self, wait: Duration) -> io::Result<Option<Answer>> {
        if !readable(&self.socket, wait)? {
            return Ok(None);
        }
        let mut buffer = [0; 512];
        let length = (&self.socket).read(&mut buffer)?;
        Ok(payload(&buffer[..length], self.to).and_then(|packet| self.protocol.read_answer(packet)))
    }
}

struct Tcp {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// Opens a TCP connection and reads the server's greeting.
pub(crate) fn connect(to: IpAddr) -> Result<(TcpStream, Answer)> {
    let stream = TcpStream::connect_timeout(&SocketAddr::new(to, PORT), CONNECT_PATIENCE)
        .with_context(|| format!("no TCP connection with {to}"))?;
    stream.set_nodelay(true)?;
    let mut tcp = Tcp {
        stream,
        buffer: Vec::new(),
    };
    let greeting = tcp
        .receive(CONNECT_PATIENCE)?
        .context("the server sent no greeting")?;
    Ok((tcp.stream, greeting))
}

impl Tcp {
    fn open(to: IpAddr) -> Result<Self> {
        let (stream, _) = connect(to)?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
        })
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let end = self.buffer.iter().position(|byte| *byte == b'\n')?;
        Some(self.buffer.drain(..=end).collect())
    }
}

impl Wire for Tcp {
    fn send(&mut self, number: u32) -> io::Result<()> {
        self.stream.write_all(format!("{number}\n").as_bytes())
    }

    fn receive(&mut self, wait: Duration) -> io::Result<Option<Answer>> {
        loop {
            if let Some(line) = self.take_line() {
                return Ok(Answer::decode(&line));
            }
            if !readable(&self.stream, wait)? {
                return Ok(None);
            }
            let mut buffer = [0; 512];
            let length = self.stream.read(&mut buffer)?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.buffer.extend_from_slice(&buffer[..length]);
        }
    }

    fn is_stream(&self) -> bool {
        true
    }
}
