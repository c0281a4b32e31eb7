//! The first two packets of an SCTP association, written by hand (RFC 9260): the kernel of the lab need not know SCTP.

/// Source port of every INIT.
const CLIENT_PORT: u16 = 5000;
/// Destination port of every INIT.
const SERVER_PORT: u16 = 7007;

const COMMON_HEADER: usize = 12;
const CHUNK_HEADER: usize = 4;
const INIT_FIXED: usize = 16;
const TYPE_INIT: u8 = 1;
const TYPE_INIT_ACK: u8 = 2;
const PARAMETER_COOKIE: u16 = 7;

/// What a server needs to know of an INIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Init {
    /// Initiate tag: goes back as the verification tag.
    pub(crate) tag: u32,
    source: u16,
    destination: u16,
}

/// An INIT with this initiate tag (which must not be 0).
pub(crate) fn init(tag: u32) -> Vec<u8> {
    packet(CLIENT_PORT, SERVER_PORT, 0, TYPE_INIT, tag, &[])
}

/// Reads an INIT whose checksum is right.
pub(crate) fn read_init(packet: &[u8]) -> Option<Init> {
    let chunk = chunk_of(packet, TYPE_INIT)?;
    Some(Init {
        tag: u32::from_be_bytes(chunk.get(4..8)?.try_into().ok()?),
        source: u16::from_be_bytes(packet.get(0..2)?.try_into().ok()?),
        destination: u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?),
    })
}

/// The INIT ACK that answers an INIT, with a state cookie.
pub(crate) fn init_ack(init: &Init, cookie: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + cookie.len()).unwrap_or(u16::MAX);
    let mut parameter = Vec::with_capacity(4 + cookie.len() + 3);
    parameter.extend(PARAMETER_COOKIE.to_be_bytes());
    parameter.extend(length.to_be_bytes());
    parameter.extend(cookie);
    parameter.resize(parameter.len().next_multiple_of(4), 0);
    packet(
        init.destination,
        init.source,
        init.tag,
        TYPE_INIT_ACK,
        1,
        &parameter,
    )
}

/// The state cookie of an INIT ACK whose checksum is right.
pub(crate) fn read_init_ack_cookie(packet: &[u8]) -> Option<Vec<u8>> {
    let parameter = chunk_of(packet, TYPE_INIT_ACK)?.get(CHUNK_HEADER + INIT_FIXED..)?;
    let kind = u16::from_be_bytes(parameter.get(0..2)?.try_into().ok()?);
    let length = u16::from_be_bytes(parameter.get(2..4)?.try_into().ok()?);
    (kind == PARAMETER_COOKIE).then_some(())?;
    Some(parameter.get(4..usize::from(length))?.to_vec())
}

/// A packet of one INIT-like chunk.
fn packet(
    source: u16,
    destination: u16,
    verification: u32,
    kind: u8,
    tag: u32,
    parameters: &[u8],
) -> Vec<u8> {
    let length = u16::try_from(CHUNK_HEADER + INIT_FIXED + parameters.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(COMMON_HEADER + usize::from(length));
    bytes.extend(source.to_be_bytes());
    bytes.extend(destination.to_be_bytes());
    bytes.extend(verification.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend([kind, 0]);
    bytes.extend(length.to_be_bytes());
    bytes.extend(tag.to_be_bytes());
    // Receive window, outbound and inbound streams, initial TSN.
    bytes.extend(65_536_u32.to_be_bytes());
    bytes.extend(1_u16.to_be_bytes());
    bytes.extend(1_u16.to_be_bytes());
    bytes.extend(1_u32.to_be_bytes());
    bytes.extend(parameters);
    let checksum = crc32c(&bytes);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The first chunk, if it is of this kind and the packet's checksum is right.
fn chunk_of(packet: &[u8], kind: u8) -> Option<&[u8]> {
    let sent: [u8; 4] = packet.get(8..12)?.try_into().ok()?;
    let mut cleared = packet.to_vec();
    cleared[8..12].fill(0);
    let chunk = packet.get(COMMON_HEADER..)?;
    (u32::from_le_bytes(sent) == crc32c(&cleared) && *chunk.first()? == kind).then_some(chunk)
}

/// CRC32c (Castagnoli), as RFC 9260 appendix A has it.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = crc & 1;
            crc = (crc >> 1) ^ (0x82f6_3b78 * carry);
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn a_changed_packet_is_not_read() {
        let mut packet = init(9);
        assert_eq!(read_init(&packet).map(|init| init.tag), Some(9));
        packet[20] ^= 1;
        assert_eq!(read_init(&packet), None);
        assert_eq!(read_init(&packet[..7]), None);
    }

    #[test]
    fn the_answer_swaps_ports_and_carries_the_tag() {
        let question = init(0x0102_0304);
        let reply = init_ack(&read_init(&question).unwrap(), b"cookie");
        assert_eq!(reply[0..4], [&question[2..4], &question[0..2]].concat());
        assert_eq!(reply[4..8], [1, 2, 3, 4]);
        assert_eq!(read_init_ack_cookie(&reply).unwrap(), b"cookie");
    }
}
