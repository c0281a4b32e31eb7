//! Deleting one link by name, with one hand-made netlink message.
//!
//! Source: rtnetlink(7), netlink(7); `struct nlmsghdr`, `struct ifinfomsg`, `struct rtattr`.

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

const RTM_DELLINK: u16 = 17;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
const IFLA_IFNAME: u16 = 3;
const HEADER: usize = 16;
const IFINFOMSG: usize = 16;
const RTATTR: usize = 4;

/// Deletes a link in the calling thread's network namespace; one that is not there is deleted already.
pub(crate) fn delete(ifname: &str) -> io::Result<()> {
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    // The kernel answers while it handles the request; the bound only keeps DEL from ever hanging.
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(5, 0))?;
    let kernel = NetlinkAddr::new(0, 0);
    sendto(
        fd.as_raw_fd(),
        &delete_message(ifname),
        &kernel,
        MsgFlags::empty(),
    )?;
    let mut reply = [0; 1024];
    let length = recv(fd.as_raw_fd(), &mut reply, MsgFlags::empty())?;
    match parse_ack(&reply[..length])? {
        0 => Ok(()),
        errno if errno == nix::Error::ENODEV as i32 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// `RTM_DELLINK` with the link's name as its only attribute, and a request for an acknowledgement.
fn delete_message(ifname: &str) -> Vec<u8> {
    let attribute = RTATTR + ifname.len() + 1;
    let length = HEADER + IFINFOMSG + attribute.next_multiple_of(4);
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_ne_bytes());
    message.extend(RTM_DELLINK.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    message.resize(HEADER + IFINFOMSG, 0);
    message.extend((attribute as u16).to_ne_bytes());
    message.extend(IFLA_IFNAME.to_ne_bytes());
    message.extend(ifname.as_bytes());
    message.resize(length, 0);
    message
}

/// The error number of an acknowledgement, positive; 0 for success.
fn parse_ack(reply: &[u8]) -> io::Result<i32> {
    let kind = reply.get(4..6).and_then(|bytes| bytes.first_chunk());
    let error = reply
        .get(HEADER..HEADER + 4)
        .and_then(|bytes| bytes.first_chunk());
    match (kind.map(|bytes| u16::from_ne_bytes(*bytes)), error) {
        (Some(NLMSG_ERROR), Some(error)) => Ok(i32::from_ne_bytes(*error).saturating_neg()),
        _ => Err(io::Error::new(ErrorKind::InvalidData, "not an acknowledgement")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_what_the_kernel_reads() {
        let message = delete_message("eth0");
        assert_eq!(message.len(), 44);
        assert_eq!(message[..4], 44u32.to_ne_bytes());
        assert_eq!(message[4..8], [17u16.to_ne_bytes(), 5u16.to_ne_bytes()].concat());
        assert_eq!(message[8..32], [0; 24]);
        assert_eq!(message[32..36], [9u16.to_ne_bytes(), 3u16.to_ne_bytes()].concat());
        assert_eq!(&message[36..], b"eth0\0\0\0\0");
    }

    #[test]
    fn acknowledgements() {
        let ack = |kind: u16, error: i32| {
            [
                &36u32.to_ne_bytes()[..],
                &kind.to_ne_bytes(),
                &[0; 10],
                &error.to_ne_bytes(),
            ]
            .concat()
        };
        assert_eq!(parse_ack(&ack(NLMSG_ERROR, -19)).unwrap(), 19);
        assert_eq!(parse_ack(&ack(NLMSG_ERROR, 0)).unwrap(), 0);
        assert!(parse_ack(&ack(16, 0)).is_err());
        for length in 0..20 {
            assert!(parse_ack(&ack(NLMSG_ERROR, 0)[..length]).is_err());
        }
    }
}
