//! The plugin `calico-ipam`: gives addresses to another main plugin. (`calico` asks the agent itself and does not run
//! it.)

use buoy_cni_spec::agent::{Body, SpoolRecord};

use crate::Output;
use crate::env::Command;
use crate::exchange;
use crate::invocation::Invocation;

pub(crate) fn run(call: &Invocation<'_>) -> Output {
    match call.env.command {
        Command::Add => exchange::ask(call, Body::IpamAdd(call.plugin_request()), None).map(Some),
        Command::Del => {
            exchange::hand_over(call, &SpoolRecord::IpamDel(call.plugin_request()), None).map(|_| None)
        }
        Command::Gc => exchange::gc(call).map(|()| None),
        Command::Status => exchange::status(call).map(|()| None),
        // The allocation is the datastore's record; there is nothing beside it that could differ.
        Command::Check | Command::Version => Ok(None),
    }
}
