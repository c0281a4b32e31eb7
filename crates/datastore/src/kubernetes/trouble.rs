//! What can go wrong with a request, by what it means for whoever asked.
//!
//! A write whose fate is not known for certain is [`Trouble::Lost`]: only a refusal, or a connection that never came to be,
//! counts as not done.

use std::fmt::Display;
use std::time::Duration;

use buoy_core::store::FailureKind;
use http::StatusCode;
use hyper_util::client::legacy;
use serde::Deserialize;

use crate::cause::{Cause, chain};
use crate::certificate::is_of_another_time;

/// What etcd, its server of gRPC and the API server's client of it say of a request that none of them carries out.
const TOO_LARGE: [&str; 3] = [
    "request is too large",
    "received message larger than max",
    "trying to send message larger than max",
];

/// Why a request has no answer that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It did not happen.
    NotDone(Cause),
    /// Nobody knows whether it happened.
    Lost(Cause),
    /// The object exists already, or has another revision.
    Conflict,
    /// There is no such object.
    Missing,
    /// The server does not know objects of this kind.
    Undefined(Cause),
    /// The server no longer knows, or does not know yet, what happened at the revision asked for.
    Gone,
    /// The server does not know who this is, or no longer does.
    Unknown(Cause),
    /// It did not happen: the server has too much to do, or has only just begun.
    Busy(Cause),
    /// The answer is larger than what is taken in.
    TooLarge,
}

/// The server does not answer as it should.
pub(super) fn unavailable(reason: impl Display) -> Cause {
    Cause::unavailable(reason, "see that the API server runs there and can be reached")
}

impl Trouble {
    /// No answer came in time, by way of a proxy if there is one.
    pub(super) fn late(after: Duration, proxy: Option<&str>) -> Self {
        let by = proxy.map_or_else(String::new, |proxy| format!(" by way of the proxy {proxy}"));
        Self::Lost(unavailable(format!("no answer within {after:?}{by}")))
    }

    /// The same, by the name of the proxy if it is one that did not do its part.
    pub(super) fn by_way_of(self, proxy: &str) -> Self {
        match self {
            Self::NotDone(cause) if cause.reason.contains(OF_PROXY) => Self::NotDone(of_proxy(proxy, &cause)),
            other => other,
        }
    }

    /// What it is to somebody who wanted to write after it.
    pub(super) fn not_done(self) -> Self {
        Self::NotDone(self.cause())
    }

    /// Whether the server may be another one afterwards.
    pub(super) fn is_of_the_connection(&self) -> bool {
        match self {
            Self::Lost(_) => true,
            Self::NotDone(cause) => cause.kind == FailureKind::Unavailable,
            _ => false,
        }
    }

    /// What it is to somebody who only read.
    pub(super) fn cause(self) -> Cause {
        match self {
            Self::NotDone(cause)
            | Self::Lost(cause)
            | Self::Undefined(cause)
            | Self::Unknown(cause)
            | Self::Busy(cause) => cause,
            Self::Gone => unavailable("the revision asked for is no longer kept"),
            Self::Conflict => unavailable("somebody else writes the object all the time"),
            Self::Missing => Cause::refused("there is no such object"),
            Self::TooLarge => Cause::refused(
                "one object is larger than what is taken in\ndelete it with kubectl; no record of this project is that large",
            ),
        }
    }
}

/// The request got no answer.
impl From<kube::Error> for Trouble {
    fn from(error: kube::Error) -> Self {
        let reason = chain(&error);
        if is_of_tls(&reason) {
            let hint = if is_of_another_time(&reason) {
                "renew the API server's certificate, and see that this machine's clock is right"
            } else {
                "see that the certificates in the kubeconfig are the right ones"
            };
            return Self::NotDone(Cause::refused(format!("{reason}\n{hint}")));
        }
        let cause = unavailable(reason);
        let is_connected = match &error {
            kube::Error::Service(error) => !never_connected(error.as_ref()),
            kube::Error::HyperError(_) => true,
            // Of the client itself, before it has sent anything.
            _ => false,
        };
        if is_connected {
            Self::Lost(cause)
        } else {
            Self::NotDone(cause)
        }
    }
}

fn never_connected(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<legacy::Error>() {
            return error.is_connect();
        }
        cause = error.source();
    }
    false
}

/// How messages of the client begin that are about a proxy.
const OF_PROXY: &str = "tunnel error: ";

fn of_proxy(proxy: &str, cause: &Cause) -> Cause {
    let reason = cause.reason.lines().next().unwrap_or_default();
    let reason = reason.split_once(OF_PROXY).map_or(reason, |(_, reason)| reason);
    match reason {
        "proxy authorization required" => Cause::refused(format!(
            "the proxy {proxy} wants to know who asks\nwrite user and password into its URL: http://user:password@proxy.example:3128"
        )),
        // It said another number than 200.
        "unsuccessful" => Cause::refused(format!(
            "the proxy {proxy} does not lead to the API server\nlet it pass CONNECT to that address and port, or name the server in NO_PROXY"
        )),
        other => Cause::unavailable(
            format!("the proxy {proxy} does not answer: {other}"),
            "see that it runs there, and that proxy-url or HTTPS_PROXY name the right one",
        ),
    }
}

fn is_of_tls(reason: &str) -> bool {
    [
        "invalid peer certificate",
        "received fatal alert",
        "CertificateRequired",
    ]
    .iter()
    .any(|sign| reason.contains(sign))
}

/// The body of an answer that says no.
#[derive(Default, Deserialize)]
pub(super) struct Status {
    #[serde(default)]
    message: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    code: u16,
    #[serde(default)]
    details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    name: String,
}

impl Status {
    /// What an answer of the server says that is not a success.
    pub(super) fn of_answer(code: StatusCode, body: &[u8]) -> Self {
        let mut status: Self = serde_json::from_slice(body).unwrap_or_default();
        if status.message.is_empty() {
            let text = String::from_utf8_lossy(body);
            let text = text.lines().next().unwrap_or_default().chars().take(200);
            status.message = text.collect();
        }
        status.code = code.as_u16();
        status
    }

    /// What it means. `what` names the resource, for messages.
    pub(super) fn trouble(self, what: &str) -> Trouble {
        let Self {
            message,
            reason,
            code,
            details,
        } = self;
        let is_object = details.is_some_and(|details| !details.name.is_empty());
        match code {
            404 if is_object && reason == "NotFound" => Trouble::Missing,
            404 => Trouble::Undefined(Cause::refused(format!(
                "the API server does not know {what}\ninstall the definitions: kubectl create -f deploy/crds"
            ))),
            409 => Trouble::Conflict,
            410 => Trouble::Gone,
            401 => Trouble::Unknown(Cause::refused(format!(
                "{message}\nsee that token or certificate are valid"
            ))),
            403 => Trouble::NotDone(Cause::refused(format!(
                "{message}\nsee deploy/rbac*.yaml for the rights that are needed"
            ))),
            400 if message.contains("unknown field") => Trouble::NotDone(Cause::refused(format!(
                "the definition of {what} is older than this program: {message}\nrenew it: kubectl apply -f deploy/crds/buoy.yaml"
            ))),
            413 => Trouble::NotDone(Cause::too_large(message)),
            400 | 405 | 406 | 415 | 422 => Trouble::NotDone(Cause::invalid(message)),
            // What the store behind the server says of it, or the server's own client of that.
            500 if TOO_LARGE.iter().any(|sign| message.contains(sign)) => {
                Trouble::NotDone(Cause::too_large(message))
            }
            500 if message.contains("database space exceeded") => Trouble::NotDone(Cause::refused(format!(
                "{message}\ncompact and defragment the etcd behind the API server, then: etcdctl alarm disarm"
            ))),
            429 => Trouble::Busy(unavailable(message)),
            503 if reason == "ServiceUnavailable" => Trouble::NotDone(unavailable(message)),
            // The server itself does not know how far it came, or somebody before it does not know what became of it.
            _ => Trouble::Lost(unavailable(format!("{code}: {message}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(code: u16, body: &str) -> Trouble {
        Status::of_answer(StatusCode::from_u16(code).unwrap(), body.as_bytes()).trouble("ippools.x")
    }

    #[test]
    fn a_missing_object_is_not_a_missing_definition() {
        let object = r#"{"reason": "NotFound", "message": "no", "details": {"name": "a"}}"#;
        assert_eq!(trouble(404, object), Trouble::Missing);
        for other in ["404 page not found\n", r#"{"reason": "NotFound", "details": {}}"#] {
            let cause = trouble(404, other).cause();
            assert_eq!(cause.kind, FailureKind::Refused);
            assert!(
                cause.reason.contains("does not know ippools.x"),
                "{}",
                cause.reason
            );
        }
    }

    #[test]
    fn only_what_surely_did_not_happen_is_not_done() {
        let said_by_the_server = r#"{"reason": "ServiceUnavailable"}"#;
        for (code, body, is_known) in [
            (403, "{}", true),
            (422, "{}", true),
            (503, said_by_the_server, true),
            (500, "etcdserver: mvcc: database space exceeded", true),
            (500, "etcdserver: request is too large", true),
            (
                500,
                "rpc error: trying to send message larger than max (2097307 vs. 2097152)",
                true,
            ),
            (503, "upstream connect error or disconnect", false),
            (502, "Bad Gateway", false),
            (500, "{}", false),
            (504, "{}", false),
        ] {
            let trouble = trouble(code, body);
            assert_eq!(
                matches!(trouble, Trouble::NotDone(_)),
                is_known,
                "{code}: {trouble:?}"
            );
        }
        assert!(matches!(trouble(429, "busy"), Trouble::Busy(_)));
        assert_eq!(trouble(409, "{}"), Trouble::Conflict);
        assert_eq!(trouble(410, "{}"), Trouble::Gone);
    }

    #[test]
    fn an_answer_that_is_no_status_is_shown_in_part() {
        let cause = trouble(502, &"x".repeat(5000)).cause();
        assert!(cause.reason.len() < 400, "{}", cause.reason.len());
    }
}
