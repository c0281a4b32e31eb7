//! What the node itself needs, whatever runs on it.

use crate::desired::Row;

/// Settings of the node: it forwards packets of both families, and sends no redirects on links that do not want them
/// (the kernel sends them if either the link or `all` says so).
pub const NODE_SYSCTLS: [(&str, &str); 3] = [
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv4/conf/all/send_redirects", "0"),
];

pub(super) fn rows() -> Vec<Row> {
    NODE_SYSCTLS
        .map(|(path, value)| Row::Sysctl(path.to_owned(), value.to_owned()))
        .to_vec()
}
