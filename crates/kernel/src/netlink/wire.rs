//! The wire form of netlink: message header, attributes, nesting (`include/uapi/linux/netlink.h`).

use netlink_packet_core::{NLM_F_REQUEST, NetlinkSerializable};
use netlink_packet_route::RouteNetlinkMessage;

/// Length of the message header.
const HEADER: usize = 16;
/// Length of an attribute's header.
const ATTRIBUTE: usize = 4;
/// The attribute holds attributes.
const NESTED: u16 = 0x8000;
/// The bits of an attribute's type that are its type.
const TYPE_MASK: u16 = 0x3fff;

/// `NLMSG_ERROR`: an error number, or an acknowledgement if it is 0.
pub(crate) const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
pub(crate) const DONE: u16 = 3;
/// `NLM_F_CAPPED`: an error carries only the header of the request.
const CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS`: an error carries attributes.
const ACK_TLVS: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`: the kernel's words.
const ERROR_TEXT: u16 = 1;

/// A request under construction; the socket fills in the sequence number.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// Begins a request of this type.
    pub(crate) fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        Self { bytes }
    }

    /// A request of the route family.
    pub(crate) fn route(message: &RouteNetlinkMessage, flags: u16) -> Self {
        let mut request = Self::new(message.message_type(), flags);
        request.bytes.resize(HEADER + message.buffer_len(), 0);
        message.serialize(&mut request.bytes[HEADER..]);
        request
    }

    /// Appends octets as they are, padded to four.
    pub(crate) fn raw(mut self, octets: &[u8]) -> Self {
        self.bytes.extend_from_slice(octets);
        self.pad();
        self
    }

    /// Appends an attribute.
    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.push(kind, value);
        self
    }

    /// Appends an attribute in place.
    pub(crate) fn push(&mut self, kind: u16, value: &[u8]) {
        append(&mut self.bytes, kind, value);
    }

    /// Appends a text attribute, terminated as the kernel wants it.
    pub(crate) fn text(mut self, kind: u16, value: &str) -> Self {
        let mut octets = value.as_bytes().to_vec();
        octets.push(0);
        self.push(kind, &octets);
        self
    }

    /// Begins an attribute that holds attributes; ends with [`Self::close`].
    pub(crate) fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.push(kind | NESTED, &[]);
        start
    }

    /// Ends what [`Self::open`] began.
    pub(crate) fn close(&mut self, start: usize) {
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// Appends an attribute whose attributes the closure appends.
    pub(crate) fn nest(mut self, kind: u16, inside: impl FnOnce(Self) -> Self) -> Self {
        let start = self.open(kind);
        let mut message = inside(self);
        message.close(start);
        message
    }

    /// Octets so far, with the header.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Sets flags in addition to those present.
    pub(crate) fn add_flags(&mut self, flags: u16) {
        let present = u16_at(&self.bytes, 6) | flags;
        self.bytes[6..8].copy_from_slice(&present.to_ne_bytes());
    }

    /// Appends the finished message to a send buffer.
    pub(crate) fn finish(&self, sequence: u32, buffer: &mut Vec<u8>) {
        let start = buffer.len();
        buffer.extend_from_slice(&self.bytes);
        let length = (self.bytes.len() as u32).to_ne_bytes();
        buffer[start..start + 4].copy_from_slice(&length);
        buffer[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
        buffer.resize(start + align(self.bytes.len()), 0);
    }

    fn pad(&mut self) {
        self.bytes.resize(align(self.bytes.len()), 0);
    }
}

/// A received message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received<'a> {
    /// Message type.
    pub(crate) kind: u16,
    /// `NLM_F_*`.
    pub(crate) flags: u16,
    /// Sequence number of the request that it answers.
    pub(crate) sequence: u32,
    /// Port of the socket that asked, or that caused the change.
    pub(crate) port: u32,
    /// What follows the header.
    pub(crate) payload: &'a [u8],
}

impl<'a> Received<'a> {
    /// Error number and words of an error message; number 0 is an acknowledgement.
    pub(crate) fn error(&self) -> Option<(i32, Option<String>)> {
        let number = i32::from_ne_bytes(self.payload.get(..4)?.try_into().ok()?);
        if self.flags & ACK_TLVS == 0 {
            return Some((number, None));
        }
        let echoed = match self.flags & CAPPED {
            0 => u32_at(self.payload, 4)? as usize,
            _ => HEADER,
        };
        let attributes = self.payload.get(4 + align(echoed)..).unwrap_or_default();
        let detail = Attributes(attributes)
            .find(|(kind, _)| *kind == ERROR_TEXT)
            .map(|(_, value)| text(value));
        Some((number, detail))
    }

    /// Attributes behind a family header of this length.
    pub(crate) fn attributes(&self, header: usize) -> Attributes<'a> {
        Attributes(self.payload.get(align(header)..).unwrap_or_default())
    }
}

/// The messages of one datagram; ends at the first that does not fit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Messages<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Received<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.0;
        let length = u32_at(bytes, 0)? as usize;
        if length < HEADER || length > bytes.len() {
            return None;
        }
        self.0 = bytes.get(align(length)..).unwrap_or_default();
        Some(Received {
            kind: u16_at(bytes, 4),
            flags: u16_at(bytes, 6),
            sequence: u32_at(bytes, 8)?,
            port: u32_at(bytes, 12)?,
            payload: &bytes[HEADER..length],
        })
    }
}

/// Attributes as pairs of type and value; ends at the first that does not fit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    /// Value of the first attribute of this type.
    pub(crate) fn get(self, kind: u16) -> Option<&'a [u8]> {
        let mut all = self;
        all.find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// The attributes inside the first attribute of this type; none if it is absent.
    pub(crate) fn inside(self, kind: u16) -> Attributes<'a> {
        Attributes(self.get(kind).unwrap_or_default())
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.0;
        if bytes.len() < ATTRIBUTE {
            return None;
        }
        let length = usize::from(u16_at(bytes, 0));
        if length < ATTRIBUTE || length > bytes.len() {
            return None;
        }
        self.0 = bytes.get(align(length)..).unwrap_or_default();
        Some((u16_at(bytes, 2) & TYPE_MASK, &bytes[ATTRIBUTE..length]))
    }
}

/// Attributes by themselves, as the value of one that holds them.
pub(crate) fn encode<V: AsRef<[u8]>>(attributes: impl IntoIterator<Item = (u16, V)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, value) in attributes {
        append(&mut bytes, kind, value.as_ref());
    }
    bytes
}

fn append(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = (ATTRIBUTE + value.len()) as u16;
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(align(bytes.len()), 0);
}

/// Text up to its terminator.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|octet| *octet == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// Number in network order, of 1 to 8 octets.
pub(crate) fn big_endian(value: &[u8]) -> Option<u64> {
    (1..=8)
        .contains(&value.len())
        .then(|| value.iter().fold(0, |sum, octet| sum << 8 | u64::from(*octet)))
}

fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(message: &Message) -> Vec<u8> {
        let mut buffer = Vec::new();
        message.finish(7, &mut buffer);
        buffer
    }

    #[test]
    fn nested_attributes_read_back() {
        let message = Message::new(20, 0x300)
            .raw(&[1, 2, 3])
            .text(1, "buoy")
            .nest(2, |inner| {
                inner
                    .attribute(3, &[9])
                    .nest(4, |deep| deep.attribute(5, &[1, 2, 3, 4, 5]))
            });
        let buffer = sent(&message);
        let all: Vec<_> = Messages(&buffer).collect();
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].kind, all[0].sequence), (20, 7));
        assert_eq!(all[0].flags, 0x300 | NLM_F_REQUEST);
        let attributes = all[0].attributes(3);
        assert_eq!(attributes.get(1).map(text).as_deref(), Some("buoy"));
        assert_eq!(attributes.inside(2).get(3), Some(&[9][..]));
        assert_eq!(attributes.inside(2).inside(4).get(5), Some(&[1, 2, 3, 4, 5][..]));
    }

    #[test]
    fn garbage_ends_the_iteration_without_panic() {
        for length in 0..64 {
            for octet in [0u8, 1, 3, 4, 15, 16, 17, 255] {
                let bytes = vec![octet; length];
                for message in Messages(&bytes) {
                    let _ = message.error();
                    assert!(message.attributes(4).count() <= length);
                }
                assert!(Attributes(&bytes).count() <= length);
            }
        }
    }

    #[test]
    fn errors_carry_number_and_words() {
        let mut message = Message::new(ERROR, CAPPED | ACK_TLVS).raw(&(-17i32).to_ne_bytes());
        message = message.raw(&[0; HEADER]).text(ERROR_TEXT, "exists already");
        let buffer = sent(&message);
        let first = Messages(&buffer).next().unwrap();
        assert_eq!(first.error(), Some((-17, Some("exists already".to_owned()))));
    }

    #[test]
    fn big_endian_numbers() {
        assert_eq!(big_endian(&[1, 0]), Some(256));
        assert_eq!(big_endian(&[0, 0, 0, 0, 0, 0, 0, 5]), Some(5));
        assert_eq!(big_endian(&[]), None);
        assert_eq!(big_endian(&[0; 9]), None);
    }
}
