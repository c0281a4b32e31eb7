//! What the node itself needs, whatever runs on it.

use crate::desired::Row;

/// Settings of the node, all of which must be 1: it forwards packets of both families.
pub const NODE_SYSCTLS: [&str; 2] = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];

pub(super) fn rows() -> Vec<Row> {
    NODE_SYSCTLS.map(|path| Row::Sysctl(path.to_owned(), "1".to_owned())).to_vec()
}
