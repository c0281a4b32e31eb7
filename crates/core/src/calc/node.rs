//! What the node itself needs, whatever runs on it.

use crate::desired::Row;

/// The node forwards packets of both families.
pub(super) fn rows() -> Vec<Row> {
    ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"]
        .map(|path| Row::Sysctl(path.to_owned(), "1".to_owned()))
        .to_vec()
}
