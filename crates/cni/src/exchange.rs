//! What both plugins ask the agent, and what becomes of it when there is no agent.

use buoy_cni_spec::agent::{Body, SpoolRecord};
use buoy_cni_spec::{CniError, ErrorCode};
use serde_json::Value;

use crate::client::{CallError, Deadline, WhenGone};
use crate::invocation::Invocation;
use crate::netns::Netns;

/// What became of a DEL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandedOver {
    /// The agent has carried it out.
    Done,
    /// A record in the spool says what is left to do.
    Spooled,
}

/// Asks the agent and waits for it, also while it restarts. Without an agent: code 11, naming the socket.
pub(crate) fn ask(call: &Invocation<'_>, body: Body, netns: Option<&Netns>) -> Result<Value, CniError> {
    let deadline = Deadline::after(call.deadline());
    call.client.call(
        &mut call.request(body),
        netns.map(Netns::as_fd),
        deadline,
        WhenGone::Wait,
    )?
}

/// Hands a DEL to the agent, or leaves it in the spool. Errors: the agent's own, or that the spool took nothing.
pub(crate) fn hand_over(
    call: &Invocation<'_>,
    record: &SpoolRecord,
    netns: Option<&Netns>,
) -> Result<HandedOver, CniError> {
    let deadline = Deadline::after(call.deadline());
    let netns = netns.map(Netns::as_fd);
    let mut request = call.request(record.clone().into_body());
    let agent_may_start = match call.client.call(&mut request, netns, deadline, WhenGone::GiveUp) {
        Ok(Ok(_)) => {
            call.spool.remove(record);
            return Ok(HandedOver::Done);
        }
        // An agent of another version, or no agent at all behind the socket.
        Ok(Err(error)) if [ErrorCode::INCOMPATIBLE_VERSION, ErrorCode::DECODE].contains(&error.code) => false,
        Ok(Err(error)) => return Err(error),
        Err(CallError::Request(error)) => return Err(CallError::Request(error).into()),
        Err(error) => error.is_absent(),
    };
    call.spool.write(record)?;
    // The agent may have started, and emptied its spool, since it was not there: then it takes the request now.
    if agent_may_start && matches!(call.client.call_once(&mut request, netns, deadline), Ok(Ok(_))) {
        call.spool.remove(record);
        return Ok(HandedOver::Done);
    }
    Ok(HandedOver::Spooled)
}

/// GC: the agent detaches every container of the network that is not in the configuration's list.
pub(crate) fn gc(call: &Invocation<'_>) -> Result<(), CniError> {
    // Without the list everything would be detached.
    let valid = call.conf.valid_attachments.clone().ok_or_else(|| {
        CniError::new(
            ErrorCode::INVALID_CONFIG,
            "missing key: cni.dev/valid-attachments",
        )
        .with_hint("GC detaches every container that is not in this list, so the list must be there")
    })?;
    ask(
        call,
        Body::Gc {
            network: call.conf.name.clone(),
            valid,
        },
        None,
    )
    .map(drop)
}

/// STATUS: whether the agent could serve an ADD now.
///
/// What is programmed goes on without an agent and containers keep their connectivity, so its absence is code 50, not
/// 51.
pub(crate) fn status(call: &Invocation<'_>) -> Result<(), CniError> {
    let deadline = Deadline::after(call.deadline());
    match call
        .client
        .call(&mut call.request(Body::Status), None, deadline, WhenGone::GiveUp)
    {
        Ok(response) => response.map(drop),
        Err(error) => Err(CniError {
            code: ErrorCode::NOT_AVAILABLE,
            ..error.into()
        }),
    }
}
