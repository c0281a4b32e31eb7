//! What can be wrong with an annotation.

use std::fmt;

use super::{IP_ADDRS_NO_IPAM, MAX_FLOATING_IPS, MAX_VALUE};
use crate::ip::{AddressError, Family, FloatingIp};

/// An annotation that cannot be granted as it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{annotation}: {problem}")]
pub struct AnnotationError {
    /// Which annotation.
    pub annotation: &'static str,
    /// What is wrong with it.
    pub problem: Problem,
}

impl AnnotationError {
    /// An error of one annotation.
    pub fn new(annotation: &'static str, problem: Problem) -> Self {
        Self { annotation, problem }
    }
}

/// Everything that is wrong with a set of annotations; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnotationErrors(pub(super) Vec<AnnotationError>);

impl AnnotationErrors {
    /// The errors, in the order in which the annotations are documented.
    pub fn iter(&self) -> impl Iterator<Item = &AnnotationError> {
        self.0.iter()
    }
}

impl From<AnnotationError> for AnnotationErrors {
    fn from(error: AnnotationError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for AnnotationErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for AnnotationErrors {}

/// What is wrong with an annotation. Where Calico has words for it, the message begins with them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Longer than [`MAX_VALUE`].
    #[error("value is too long: {0} bytes\nat most {MAX_VALUE} are read")]
    TooLong(usize),
    /// Not a JSON list of strings.
    #[error("not a JSON list of strings: {0}\nwrite it as '[\"10.0.0.1\"]'")]
    Json(String),
    /// An empty list where one cannot mean anything.
    #[error("specified but empty\nname an address, or leave the annotation out")]
    Empty,
    /// Not an address.
    #[error("invalid IP format: {0}\nwrite an address without a prefix length")]
    Syntax(String),
    /// An address that no workload can have.
    #[error(transparent)]
    Address(AddressError),
    /// Two of one family.
    #[error("cannot have more than one {0} address\nleave one of each family")]
    SecondOfFamily(Family),
    /// `ipAddrs` together with `ipAddrsNoIpam`.
    #[error("cannot be used together with {IP_ADDRS_NO_IPAM}\nleave one of them out")]
    BothKinds,
    /// More than [`MAX_FLOATING_IPS`].
    #[error("too many floating IPs: {0}\na workload can have at most {MAX_FLOATING_IPS}")]
    TooManyFloating(usize),
    /// Neither `IPv4` nor `IPv6`.
    #[error("unknown IP family: {0}\nuse IPv4 or IPv6")]
    Family(String),
    /// Not a MAC address of one interface.
    #[error("not the MAC address of an interface: {0}\nwrite six octets such as 0a:1b:2c:3d:4e:5f")]
    Mac(String),
    /// Not a prefix.
    #[error("not a prefix: {0}\nwrite address and length, such as 10.0.0.0/24")]
    Prefix(String),
    /// Not a whole number of 32 bits.
    #[error("not a whole number: {0}\nwrite a number from {min} to {max}", min = i32::MIN, max = i32::MAX)]
    Number(String),
    /// Not `exclusive`.
    #[error("unknown way to move: {0}\nwrite exclusive, or leave the annotation out")]
    Move(String),
    /// Not a length of time.
    #[error("not a length of time: {0}\nwrite it as 30s or 2m")]
    Duration(String),
    /// Longer than [`MAX_DRAIN`].
    #[error("too long: {0}\nold flows go on for at most 1h")]
    TooLongDrain(String),
    /// Neither `Allow` nor `Deny` nor `Only`.
    #[error("unknown use: {0}\nwrite Allow, Deny or Only")]
    FloatingUse(String),
    /// The feature that the annotation needs is off: the key of `feature_control`.
    #[error(
        "requested feature is not enabled: {0}\nset \"feature_control\": {{\"{0}\": true}} in the network configuration"
    )]
    NotEnabled(&'static str),
    /// The addresses of the network come from another IPAM plugin.
    #[error("not compatible with configured IPAM: {0}\nuse calico-ipam, or leave the annotation out")]
    OtherIpam(String),
    /// A floating IP of a family in which the workload has no address of its own.
    #[error("workload has no {family} address for floating IP: {floating}\ngive it one, or ask for another family",
        family = .0.family(), floating = .0)]
    NoInternal(FloatingIp),
}
