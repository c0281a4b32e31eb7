//! The socket: sending, receiving, matching answers to requests.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{SocketAddr, protocols};
use nix::{
    errno::Errno,
    sys::{
        socket::{setsockopt, sockopt},
        time::TimeVal,
    },
};

use super::{
    Failure,
    wire::{self, Message, Messages, Received},
};
use crate::error::{Doing, Result};

/// A dump's parts are at most 32 KiB; acknowledgements are capped to a header.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// What the kernel may queue for us. Each answer costs it about 800 octets, however short.
const QUEUE: usize = 8 * 1024 * 1024;
/// How long a send may be unless more is asked for; the kernel doubles what is asked.
const SEND_LIMIT: usize = 64 * 1024;
/// Messages handed to the kernel in one send.
const CHUNK: usize = 1000;
/// A dump that is disturbed more often than this is given up.
const DUMP_ATTEMPTS: usize = 8;
/// Guard against a kernel that does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Netlink family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes, neighbours.
    Route,
    /// nftables and conntrack.
    Netfilter,
    /// Socket diagnostics.
    SockDiag,
}

impl Protocol {
    fn number(self) -> isize {
        match self {
            Self::Route => protocols::NETLINK_ROUTE,
            Self::Netfilter => protocols::NETLINK_NETFILTER,
            Self::SockDiag => protocols::NETLINK_SOCK_DIAG,
        }
    }
}

/// A netlink socket of the network namespace it was opened in.
#[derive(Debug)]
pub struct Socket {
    socket: netlink_sys::Socket,
    port: u32,
    sequence: u32,
    send_limit: usize,
    buffer: Vec<u8>,
}

/// Outcome of each message of a batch, in order.
pub(crate) type Outcomes = Vec<Result<(), Failure>>;

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the process may not, or has no descriptors left.
    pub fn open(protocol: Protocol) -> Result<Self> {
        Self::try_open(protocol).doing(|| format!("open a netlink socket: {protocol:?}"))
    }

    fn try_open(protocol: Protocol) -> io::Result<Self> {
        let mut socket = netlink_sys::Socket::new(protocol.number())?;
        let port = socket.bind_auto()?.port_number();
        socket.set_cap_ack(true)?;
        socket.set_ext_ack(true)?;
        if protocol == Protocol::Route {
            // Dumps are filtered by the kernel only when it checks their headers strictly.
            socket.set_netlink_get_strict_chk(true)?;
        }
        let opened = Self {
            socket,
            port,
            sequence: 0,
            send_limit: SEND_LIMIT,
            buffer: vec![0; RECEIVE_BUFFER],
        };
        setsockopt(&opened, sockopt::RcvBufForce, &QUEUE)?;
        opened.set_timeout(Some(PATIENCE))?;
        Ok(opened)
    }

    /// Port number by which the kernel names this socket in the events that it causes.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Sets how long a receive waits; `None` waits for ever.
    pub(crate) fn set_timeout(&self, patience: Option<Duration>) -> io::Result<()> {
        let micros = patience.map_or(0, |wait| wait.as_micros().max(1) as i64);
        let wait = TimeVal::new(micros / 1_000_000, micros % 1_000_000);
        Ok(setsockopt(self, sockopt::ReceiveTimeout, &wait)?)
    }

    /// Subscribes to a multicast group.
    pub(crate) fn join(&self, group: u32) -> io::Result<()> {
        self.socket.add_membership(group)
    }

    /// Sends one request and gathers what comes before its acknowledgement.
    pub(crate) fn request<T>(
        &mut self,
        mut message: Message,
        mut read: impl FnMut(&Received<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Failure> {
        message.add_flags(NLM_F_ACK);
        let sequence = self.send(std::slice::from_ref(&message))?;
        let mut answers = Vec::new();
        loop {
            let datagram = self.receive()?;
            for received in Messages(datagram).filter(|received| received.sequence == sequence) {
                if received.kind == wire::ERROR {
                    return outcome(&received).map(|()| answers);
                }
                answers.extend(read(&received));
            }
        }
    }

    /// Sends one request of the route family that is only acknowledged.
    pub(crate) fn execute(&mut self, message: &RouteNetlinkMessage, flags: u16) -> Result<(), Failure> {
        self.request(Message::route(message, flags), |_| None::<()>)
            .map(|_| ())
    }

    /// Sends many requests, as few sends as possible, and tells each one's outcome.
    ///
    /// The kernel reports every failure by itself and only the last success of a send is asked for, so a
    /// batch of ten thousand is answered by about ten messages.
    pub(crate) fn batch(&mut self, messages: &mut [Message]) -> Result<Outcomes, Failure> {
        let mut outcomes: Outcomes = Vec::with_capacity(messages.len());
        for chunk in messages.chunks_mut(CHUNK) {
            if let Some(last) = chunk.last_mut() {
                last.add_flags(NLM_F_ACK);
            }
            let begin = outcomes.len();
            outcomes.extend((0..chunk.len()).map(|_| Ok(())));
            let first = self.send(chunk)?;
            let last = first.wrapping_add(chunk.len() as u32 - 1);
            self.settle(first, last, &mut outcomes[begin..])?;
        }
        Ok(outcomes)
    }

    fn settle(&mut self, first: u32, last: u32, outcomes: &mut [Result<(), Failure>]) -> Result<(), Failure> {
        loop {
            let datagram = self.receive()?;
            for received in Messages(datagram).filter(|received| received.kind == wire::ERROR) {
                let index = received.sequence.wrapping_sub(first) as usize;
                if let Some(slot) = outcomes.get_mut(index) {
                    *slot = outcome(&received);
                    if received.sequence == last {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Lists, giving each message to `read`; begins anew when the list changed while it was read.
    pub(crate) fn dump<T>(
        &mut self,
        mut message: Message,
        mut read: impl FnMut(&Received<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Failure> {
        message.add_flags(NLM_F_DUMP);
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(all) = self.dump_once(&message, &mut read)? {
                return Ok(all);
            }
        }
        Err(Failure::Interrupted)
    }

    fn dump_once<T>(
        &mut self,
        message: &Message,
        read: &mut impl FnMut(&Received<'_>) -> Option<T>,
    ) -> Result<Option<Vec<T>>, Failure> {
        let sequence = self.send(std::slice::from_ref(message))?;
        let mut all = Vec::new();
        let mut disturbed = false;
        loop {
            let datagram = self.receive()?;
            for received in Messages(datagram).filter(|received| received.sequence == sequence) {
                disturbed |= received.flags & NLM_F_DUMP_INTR != 0;
                match received.kind {
                    wire::ERROR => {
                        outcome(&received)?;
                    }
                    wire::DONE => {
                        outcome(&received)?;
                        return Ok((!disturbed).then_some(all));
                    }
                    _ => all.extend(read(&received)),
                }
            }
        }
    }

    /// Sends messages as one buffer; the sequence number of the first is returned, the others follow it.
    pub(crate) fn send(&mut self, messages: &[Message]) -> Result<u32, Failure> {
        let first = self.sequence.wrapping_add(1);
        let mut buffer = Vec::with_capacity(messages.iter().map(|message| message.len() + 3).sum());
        for message in messages {
            self.sequence = self.sequence.wrapping_add(1);
            message.finish(self.sequence, &mut buffer);
        }
        if buffer.len() > self.send_limit {
            setsockopt(self, sockopt::SndBufForce, &buffer.len()).map_err(io::Error::from)?;
            self.send_limit = buffer.len();
        }
        self.socket.send(&buffer, 0)?;
        Ok(first)
    }

    /// Receives one datagram, waiting for it.
    pub(crate) fn receive(&mut self) -> Result<&[u8], Failure> {
        self.receive_with(0)
    }

    /// Receives one datagram if there is one.
    pub(crate) fn receive_now(&mut self) -> Result<Option<&[u8]>, Failure> {
        match self.receive_with(libc::MSG_DONTWAIT) {
            Ok(datagram) => Ok(Some(datagram)),
            Err(Failure::Timeout) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    fn receive_with(&mut self, flags: libc::c_int) -> Result<&[u8], Failure> {
        loop {
            let mut window = self.buffer.as_mut_slice();
            let (length, sender): (usize, SocketAddr) =
                match self.socket.recv_from(&mut window, flags | libc::MSG_TRUNC) {
                    Ok(received) => received,
                    Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                        Some(Errno::EINTR) => continue,
                        Some(Errno::EAGAIN) => return Err(Failure::Timeout),
                        Some(Errno::ENOBUFS) => return Err(Failure::Overrun),
                        _ => return Err(error.into()),
                    },
                };
            if sender.port_number() != 0 {
                continue; // Not from the kernel.
            }
            if length > self.buffer.len() {
                return Err(Failure::Malformed(format!("{length} octets in one datagram")));
            }
            return Ok(&self.buffer[..length]);
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Reads an error or done message.
pub(crate) fn outcome(received: &Received<'_>) -> Result<(), Failure> {
    match received.error() {
        None => Err(Failure::Malformed(
            "an acknowledgement without a number".to_owned(),
        )),
        Some((number, _)) if number >= 0 => Ok(()),
        Some((number, detail)) => Err(Failure::Refused {
            errno: Errno::from_raw(number.wrapping_neg()),
            detail,
        }),
    }
}
