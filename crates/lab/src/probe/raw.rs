//! Protocols over raw IP sockets: those that this kernel has no sockets for, and one that nobody has.

use std::io;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use super::answer::{Answer, decode_question};
use super::sctp;

/// An IP protocol with its own way to carry a question and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RawProtocol {
    /// Protocol 253, set aside for experiments (RFC 3692): the text is the payload.
    Experimental,
    /// Generic Routing Encapsulation (RFC 2784): the text is the payload behind an empty header.
    Gre,
    /// SCTP (RFC 9260): an INIT, answered by an INIT ACK whose cookie is the text.
    Sctp,
}

/// GRE without options, carrying the local experimental EtherType.
const GRE_HEADER: [u8; 4] = [0, 0, 0x88, 0xb5];

impl RawProtocol {
    /// Every one of them.
    pub const ALL: [Self; 3] = [Self::Experimental, Self::Gre, Self::Sctp];

    /// Its number.
    pub fn number(self) -> u8 {
        match self {
            Self::Experimental => 253,
            Self::Gre => 47,
            Self::Sctp => 132,
        }
    }

    /// How people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Experimental => "protocol 253",
            Self::Gre => "GRE",
            Self::Sctp => "SCTP INIT",
        }
    }

    /// The packet of a question.
    pub(crate) fn question(self, number: u32) -> Vec<u8> {
        match self {
            Self::Experimental => number.to_string().into_bytes(),
            // Kernels drop a GRE packet shorter than 8 bytes when they translate it; real ones carry at least an IP header.
            Self::Gre => [&GRE_HEADER[..], format!("{number:<20}").as_bytes()].concat(),
            Self::Sctp => sctp::init(number),
        }
    }

    /// The number in the packet of a question.
    pub(crate) fn read_question(self, packet: &[u8]) -> Option<u32> {
        match self {
            Self::Experimental => decode_question(packet),
            Self::Gre => decode_question(packet.strip_prefix(&GRE_HEADER)?),
            Self::Sctp => sctp::read_init(packet).map(|init| init.tag),
        }
    }

    /// The packet that answers the packet of a question.
    pub(crate) fn answer(self, question: &[u8], answer: &Answer) -> Option<Vec<u8>> {
        let text = answer.encode();
        match self {
            Self::Experimental => Some(text.into_bytes()),
            Self::Gre => Some([&GRE_HEADER[..], text.as_bytes()].concat()),
            Self::Sctp => Some(sctp::init_ack(&sctp::read_init(question)?, text.as_bytes())),
        }
    }

    /// The answer in a packet.
    pub(crate) fn read_answer(self, packet: &[u8]) -> Option<Answer> {
        match self {
            Self::Experimental => Answer::decode(packet),
            Self::Gre => Answer::decode(packet.strip_prefix(&GRE_HEADER)?),
            Self::Sctp => Answer::decode(&sctp::read_init_ack_cookie(packet)?),
        }
    }

    /// A raw socket of this protocol in the namespace of the calling thread.
    pub(crate) fn socket(self, domain: Domain) -> Result<Socket> {
        raw_socket(domain, i32::from(self.number())).with_context(|| format!("cannot open {}", self.name()))
    }
}

/// A raw socket of a protocol number in the namespace of the calling thread.
pub(crate) fn raw_socket(domain: Domain, protocol: i32) -> io::Result<Socket> {
    Socket::new(domain, Type::RAW, Some(Protocol::from(protocol)))
}

/// Connects a raw socket, so that it hears only that host.
pub(crate) fn connect_raw(socket: &Socket, to: IpAddr) -> io::Result<()> {
    socket.connect(&SocketAddr::new(to, 0).into())
}

/// What a raw socket received behind the IP header: IPv4 sockets give the header too, IPv6 sockets do not (RFC 3542).
pub(crate) fn payload(packet: &[u8], from: IpAddr) -> Option<&[u8]> {
    match from {
        IpAddr::V4(_) => packet.get(usize::from(packet.first()? & 0x0f) * 4..),
        IpAddr::V6(_) => Some(packet),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_protocol_carries_a_question_and_its_answer() {
        let answer = Answer {
            number: 4711,
            who: "web-0".to_owned(),
            saw: "192.0.2.10".parse().ok(),
        };
        for protocol in RawProtocol::ALL {
            let question = protocol.question(4711);
            assert_eq!(protocol.read_question(&question), Some(4711), "{protocol:?}");
            let reply = protocol.answer(&question, &answer).unwrap();
            assert_eq!(protocol.read_answer(&reply), Some(answer.clone()), "{protocol:?}");
            assert_eq!(
                protocol.read_question(&reply),
                None,
                "{protocol:?}: an answer is no question"
            );
        }
    }

    #[test]
    fn the_header_goes_by_its_length() {
        let v4 = IpAddr::from([192, 0, 2, 1]);
        let mut packet = vec![0x46; 24];
        packet.extend_from_slice(b"text");
        assert_eq!(payload(&packet, v4), Some(&b"text"[..]));
        assert_eq!(payload(&packet[..10], v4), None);
        assert_eq!(payload(b"text", "::1".parse().unwrap()), Some(&b"text"[..]));
    }
}
