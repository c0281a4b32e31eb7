//! The plugin `calico`: attaches containers.

use std::io::{self, Write};

use buoy_cni_spec::agent::{Body, SpoolRecord};
use buoy_cni_spec::{CniError, ErrorCode};
use serde_json::Value;

use crate::Output;
use crate::delegate::Ipam;
use crate::env::Command;
use crate::exchange::{self, HandedOver};
use crate::invocation::Invocation;
use crate::link;
use crate::netns::Netns;

pub(crate) fn run(call: &Invocation<'_>) -> Output {
    match call.env.command {
        Command::Add => add(call).map(Some),
        Command::Del => del(call).map(|()| None),
        Command::Check => check(call).map(|()| None),
        Command::Gc => gc(call).map(|()| None),
        Command::Status => status(call).map(|()| None),
        Command::Version => Ok(None),
    }
}

fn add(call: &Invocation<'_>) -> Result<Value, CniError> {
    let netns = Netns::open(&call.env.netns)?;
    let ipam = Ipam::of(call)?;
    let delegated = ipam.as_ref().map(Ipam::add).transpose()?;
    let result = exchange::ask(call, Body::Add(call.add_request(delegated)), Some(&netns));
    match (&result, ipam) {
        (Ok(_), _) => call.spool.forget(&call.env.container_id, &call.env.ifname),
        (Err(_), Some(ipam)) => ipam.undo(),
        (Err(_), None) => {}
    }
    result
}

/// The container's end comes first, the third-party IPAM plugin's failure is told last.
fn del(call: &Invocation<'_>) -> Result<(), CniError> {
    // Without a namespace that is the container's there is no interface of its to delete; all else goes on.
    let netns = Some(&call.env.netns)
        .filter(|path| !path.is_empty())
        .and_then(|path| Netns::open(path).ok());
    let detached = detach(call, netns.as_ref());
    let freed = Ipam::of(call).and_then(|ipam| ipam.map_or(Ok(()), |ipam| ipam.run_quietly(Command::Del)));
    detached.and(freed)
}

fn detach(call: &Invocation<'_>, netns: Option<&Netns>) -> Result<(), CniError> {
    let handed_over = exchange::hand_over(call, &SpoolRecord::Del(call.plugin_request()), netns)?;
    // The record promises that the rest will be freed, so the container's interface may go now.
    if let (HandedOver::Spooled, Some(netns)) = (handed_over, netns)
        && let Err(error) = netns.run(|| link::delete(&call.env.ifname))
    {
        let _ = writeln!(
            io::stderr(),
            "cannot delete interface: {}: {error}",
            call.env.ifname
        );
    }
    Ok(())
}

fn check(call: &Invocation<'_>) -> Result<(), CniError> {
    let netns = Netns::open(&call.env.netns)?;
    if let Some(ipam) = Ipam::of(call)? {
        ipam.run_quietly(Command::Check)?;
    }
    exchange::ask(call, Body::Check(call.add_request(None)), Some(&netns)).map(drop)
}

fn gc(call: &Invocation<'_>) -> Result<(), CniError> {
    let collected = exchange::gc(call);
    let freed = pass_on(call, Command::Gc);
    collected.and(freed)
}

fn status(call: &Invocation<'_>) -> Result<(), CniError> {
    exchange::status(call)?;
    pass_on(call, Command::Status)
}

/// Passes GC or STATUS on to a third-party IPAM plugin; one that knows no such command has nothing to say to it.
fn pass_on(call: &Invocation<'_>, command: Command) -> Result<(), CniError> {
    let Some(ipam) = Ipam::of(call)? else {
        return Ok(());
    };
    match ipam.run_quietly(command) {
        Err(error)
            if [ErrorCode::INCOMPATIBLE_VERSION, ErrorCode::INVALID_ENVIRONMENT].contains(&error.code) =>
        {
            Ok(())
        }
        other => other,
    }
}
