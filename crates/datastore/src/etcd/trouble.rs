//! What can go wrong with a request, by what it means for whoever asked.
//!
//! A write whose fate is not known for certain is [`Trouble::Lost`]: only what the client or a member says about not
//! having begun counts as not done.

use std::error::Error as _;
use std::fmt::Display;
use std::io;
use std::path::Path;
use std::time::Duration;

use buoy_core::store::FailureKind;
use etcd_client::Error;
use jiff::Timestamp;
use tonic::{Code, ConnectError, Status};

use crate::cause::{Cause, chain};
use crate::certificate::is_of_another_time;

/// What etcd says to who lacks rights.
const DENIED: &str = "permission denied";
/// What etcd says to whose token is no longer good.
const EXPIRED: &str = "invalid auth token";

/// Why a request has no answer that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It did not happen, and another member may do better.
    NotDone(Cause),
    /// Nobody knows whether it happened.
    Lost(Cause),
    /// It did not happen, and no other member would say otherwise.
    Final(Cause),
    /// The store does not have the revision asked for: no longer, or not yet.
    Compacted,
    /// The answer is larger than what is taken in.
    TooLarge,
}

/// What begins the complaint about a member's certificate.
const OF_MEMBER: &str = "invalid peer certificate";

/// The store does not answer as it should.
pub(super) fn unavailable(reason: impl Display) -> Cause {
    Cause::unavailable(
        reason,
        "see that etcd runs there, has a quorum and can be reached",
    )
}

fn refused(reason: impl Display, hint: &str) -> Cause {
    Cause::refused(format!("{reason}\n{hint}"))
}

impl Trouble {
    /// No answer came in time.
    pub(super) fn late(after: Duration) -> Self {
        Self::Lost(unavailable(format!("no answer within {after:?}")))
    }

    /// A file that a connection needs cannot be read.
    pub(super) fn file(what: &str, path: &Path, error: &io::Error) -> Self {
        Self::Final(refused(
            format!("{what} cannot be read: {}: {error}", path.display()),
            "let this user read it, or name another file",
        ))
    }

    /// The same by TLS: whom a member does not let in, it leaves without a word more often than not. `expired` is this client's
    /// certificate, and since when it is, if it is.
    pub(super) fn by_tls(mut self, expired: Option<(&Path, Timestamp)>) -> Self {
        let (Self::NotDone(cause) | Self::Lost(cause)) = &mut self else {
            return self;
        };
        match expired {
            Some((path, since)) if !cause.reason.contains(OF_MEMBER) => {
                let reason = cause.reason.lines().next().unwrap_or_default();
                cause.reason = format!(
                    "this client's certificate has expired: {}, at {since}: {reason}\nrenew it: it is read again for each connection",
                    path.display()
                );
            }
            None if cause.kind == FailureKind::Unavailable => {
                cause
                    .reason
                    .push_str(", and that it accepts this client's certificate");
            }
            _ => {}
        }
        self
    }

    /// Whether another member, or the same by a new connection, may do better.
    pub(super) fn is_of_the_member(&self) -> bool {
        matches!(self, Self::NotDone(_) | Self::Lost(_))
    }

    /// Whether etcd says that this client may not do so, which may only mean that its token has expired.
    pub(super) fn is_denial(&self) -> bool {
        match self {
            Self::NotDone(cause) | Self::Final(cause) => {
                cause.reason.contains(DENIED) || cause.reason.contains(EXPIRED)
            }
            Self::Lost(_) | Self::Compacted | Self::TooLarge => false,
        }
    }

    /// What it is to somebody who only read.
    pub(super) fn cause(self) -> Cause {
        match self {
            Self::NotDone(cause) | Self::Lost(cause) | Self::Final(cause) => cause,
            Self::Compacted => unavailable("the revision asked for is no longer kept"),
            Self::TooLarge => refused(
                "one record is larger than what is taken in",
                "delete it with etcdctl; no record of this project is that large",
            ),
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::GRpcStatus(status) => of_status(&status),
            Error::TransportError(error) => Self::Final(refused(
                chain(&error),
                "see that ca, cert and key name the right files, in PEM form",
            )),
            Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_) => {
                Self::Final(Cause::invalid(error))
            }
            _ => Self::Lost(unavailable(error)),
        }
    }
}

/// Whether the server says that it knows no users.
pub(super) fn is_without_users(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.message().contains("authentication is not enabled"))
}

/// Why etcd ended a watch, from what it says: there is no code with it.
pub(super) fn of_cancellation(reason: &str) -> Trouble {
    let code = if reason.contains(DENIED) {
        Code::PermissionDenied
    } else if reason.contains(EXPIRED) {
        Code::Unauthenticated
    } else {
        Code::Unavailable
    };
    of_status(&Status::new(code, reason))
}

/// Texts of etcd are its interface: one code stands for several errors that mean different things here.
fn of_status(status: &Status) -> Trouble {
    let text = status.message();
    let says = |part: &str| text.contains(part);
    match status.code() {
        Code::OutOfRange if says("compacted") || says("future revision") => Trouble::Compacted,
        Code::OutOfRange if says("message length too large") => Trouble::TooLarge,
        Code::ResourceExhausted if says("database space exceeded") => Trouble::Final(refused(
            text,
            "compact and defragment etcd, or raise its quota, then disarm the alarm: etcdctl alarm disarm",
        )),
        Code::ResourceExhausted if says("too many requests") => Trouble::NotDone(unavailable(text)),
        Code::InvalidArgument if says("user name is empty") => Trouble::Final(refused(
            "etcd wants a user, and none is named",
            "name one: etcd://user@host:port?password-file=/path, or ETCD_USERNAME and ETCD_PASSWORD",
        )),
        Code::InvalidArgument if says("authentication failed") => Trouble::Final(refused(
            text,
            "see that user and password are those that etcd knows",
        )),
        // By its own limit, or by that of its server of gRPC before it.
        _ if says("request is too large") || says("received message larger than max") => {
            Trouble::Final(Cause::too_large(text))
        }
        Code::InvalidArgument | Code::ResourceExhausted => Trouble::Final(Cause::invalid(text)),
        Code::PermissionDenied => Trouble::Final(refused(
            text,
            "let etcd's user read and write all keys that begin with /calico/ and /buoy/",
        )),
        Code::Unimplemented => Trouble::Final(refused(
            format!("this is no etcd of version 3: {text}"),
            "see that the address is that of etcd's clients, not of another service",
        )),
        Code::DataLoss => Trouble::Final(refused(text, "the cluster is damaged: restore it from a backup")),
        Code::Unauthenticated => Trouble::NotDone(unavailable(text)),
        Code::Unavailable if text == "etcdserver: no leader" => Trouble::NotDone(unavailable(text)),
        _ => of_transport(status),
    }
}

/// A failure on the way. What was never connected was never sent.
fn of_transport(status: &Status) -> Trouble {
    let (mut is_connect, mut source) = (false, status.source());
    while let Some(error) = source {
        is_connect |= error.is::<ConnectError>();
        source = error.source();
    }
    let reason = match status.source() {
        Some(source) => chain(source),
        None => status.message().to_owned(),
    };
    let is_refusal = reason.contains("certificate") || reason.contains("received fatal alert");
    if is_refusal {
        let hint = if is_of_another_time(&reason) {
            "renew the members' certificates, and see that this machine's clock is right"
        } else {
            "see that ca signed the members' certificates for these addresses, and that they accept this client's certificate"
        };
        return Trouble::NotDone(refused(reason, hint));
    }
    let cause = unavailable(reason);
    if is_connect {
        Trouble::NotDone(cause)
    } else {
        Trouble::Lost(cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: Code, text: &str) -> Trouble {
        Error::GRpcStatus(Status::new(code, text)).into()
    }

    #[test]
    fn only_what_surely_did_not_happen_is_not_done() {
        for (code, text) in [
            (Code::Unavailable, "etcdserver: request timed out"),
            (Code::Unavailable, "etcdserver: leader changed"),
            (
                Code::Unavailable,
                "etcdserver: request timed out, possibly due to connection lost",
            ),
            (Code::Cancelled, "operation was canceled"),
            (Code::Unknown, "h2 protocol error"),
            (Code::Internal, "?"),
            (Code::DeadlineExceeded, "late"),
        ] {
            let trouble = of(code, text);
            assert!(matches!(trouble, Trouble::Lost(_)), "{text}: {trouble:?}");
            assert!(trouble.is_of_the_member());
            assert_eq!(trouble.cause().kind, FailureKind::Unavailable);
        }
        for (code, text) in [
            (Code::Unavailable, "etcdserver: no leader"),
            (Code::ResourceExhausted, "etcdserver: too many requests"),
            (Code::Unauthenticated, "etcdserver: invalid auth token"),
        ] {
            let trouble = of(code, text);
            assert_eq!(trouble.is_denial(), code == Code::Unauthenticated);
            assert!(matches!(trouble, Trouble::NotDone(_)), "{text}: {trouble:?}");
            assert!(trouble.is_of_the_member());
        }
    }

    #[test]
    fn what_somebody_must_mend_says_how() {
        for (code, text, kind, hint) in [
            (
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
                FailureKind::Refused,
                "alarm disarm",
            ),
            (
                Code::PermissionDenied,
                "etcdserver: permission denied",
                FailureKind::Refused,
                "/calico/ and /buoy/",
            ),
            (
                Code::InvalidArgument,
                "etcdserver: user name is empty",
                FailureKind::Refused,
                "ETCD_USERNAME",
            ),
            (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
                FailureKind::Refused,
                "user and password",
            ),
            (
                Code::Unimplemented,
                "unknown service",
                FailureKind::Refused,
                "no etcd of version 3",
            ),
            (
                Code::InvalidArgument,
                "etcdserver: request is too large",
                FailureKind::Invalid,
                "the record is too large",
            ),
            (
                Code::ResourceExhausted,
                "grpc: received message larger than max (2621292 vs. 2097152)",
                FailureKind::Invalid,
                "the record is too large",
            ),
        ] {
            let trouble = of(code, text);
            assert!(!trouble.is_of_the_member(), "{text}");
            let error = trouble.cause().of("etcd://a:2379");
            assert_eq!(error.kind, kind, "{text}");
            assert_eq!(of(code, text).is_denial(), code == Code::PermissionDenied);
            assert!(error.message.starts_with("etcd://a:2379: "), "{error}");
            assert!(error.message.contains(hint), "{error}");
        }
        let future = "etcdserver: mvcc: required revision is a future revision";
        assert_eq!(of(Code::OutOfRange, future), Trouble::Compacted);
        assert_eq!(
            of(
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted"
            ),
            Trouble::Compacted
        );
    }
}
