//! `buoyctl`: see and steer resources, addresses and floating IPs.
//!
//! A command reads the datastore or asks the agent of the node, and says what it found. Data goes to stdout, messages
//! to stderr; the exit code is 0 for done, 1 for failed, 2 for wrong usage.
//!
//! Invariants: a record is changed by compare-and-swap only, and fields that this version does not know stay; what
//! belongs to agents (owners, candidates, conditions) is never written.
//!
//! Not here: any decision about who owns an address. `fip move` and `fip release` write a wish; the agents fulfil it.

mod age;
mod agent;
mod cli;
mod failure;
mod fip;
mod ipam;
mod kind;
mod manifest;
mod node;
mod output;
mod resource;
mod store;
mod table;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use buoy_api::binding::Target;
use clap::Parser;
use jiff::Timestamp;

use agent::Agent;
use cli::{Cli, Command, Fip, Ipam, Node};
use failure::Failure;
use fip::Relocation;
use output::Output;
use resource::{Mode, Query};
use store::Store;

/// Runs the command that the arguments name, and says how it went.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are data, on stdout and with code 0; everything else is wrong usage.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match execute(cli) {
        Ok(output) => print(&output),
        Err(failure) => {
            complain("error", &failure.to_string());
            ExitCode::from(failure.exit_code())
        }
    }
}

fn print(output: &Output) -> ExitCode {
    for warning in &output.warnings {
        complain("warning", warning);
    }
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(output.data.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain("error", &format!("stdout: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn complain(what: &str, message: &str) {
    // With stderr gone there is nobody left to tell.
    let _ = writeln!(io::stderr().lock(), "{what}: {message}");
}

fn execute(cli: Cli) -> Result<Output, Failure> {
    let Cli {
        datastore,
        socket,
        output: format,
        command,
    } = cli;
    let open = || Store::open(&datastore);
    let write = |files: cli::Files, mode| {
        let documents = manifest::read(&files.filename, io::stdin().lock())?;
        resource::write(&open()?, documents, &files.namespace, mode, format)
    };
    match command {
        Command::Create(files) => write(files, Mode::Create),
        Command::Apply(files) => write(files, Mode::Apply),
        Command::Get(get) => {
            let query = Query {
                kind: get.kind,
                names: &get.names,
                namespace: (!get.all_namespaces).then_some(get.namespace.as_str()),
            };
            resource::get(&open()?, query, format, Timestamp::now())
        }
        Command::Delete(delete) => {
            let (namespace, skip) = (delete.namespace.as_str(), delete.skip_not_exists);
            match delete.kind {
                Some(kind) => resource::delete_names(&open()?, kind, &delete.names, namespace, skip, format),
                None => {
                    let documents = manifest::read(&delete.filename, io::stdin().lock())?;
                    resource::delete_documents(&open()?, &documents, namespace, skip, format)
                }
            }
        }
        Command::Ipam(Ipam::Show { ip: Some(ip), .. }) => ipam::show_address(&open()?, ip, format),
        Command::Ipam(Ipam::Show {
            show_blocks,
            ip: None,
        }) => ipam::show(&open()?, show_blocks, format),
        Command::Fip(verb) => floating(verb, &Agent::at(&socket), open, format),
        Command::Node(Node::Status) => node::status(&Agent::at(&socket), format),
        Command::Node(Node::Plan) => node::plan(&Agent::at(&socket), format),
    }
}

fn floating(
    verb: Fip,
    agent: &Agent,
    open: impl FnOnce() -> Result<Store, Failure>,
    format: output::Format,
) -> Result<Output, Failure> {
    match verb {
        Fip::List { namespace } => fip::list(&open()?, namespace.as_deref(), format, Timestamp::now()),
        Fip::Attach { address, workload } => {
            let named = fip::Workload {
                namespace: &workload.namespace,
                name: &workload.workload,
                endpoint: workload.endpoint.as_deref(),
            };
            fip::attach(&open()?, address, named, format)
        }
        Fip::Detach {
            address,
            workload,
            namespace,
            endpoint,
        } => {
            let named = workload.as_deref().map(|name| fip::Workload {
                namespace: namespace.as_deref().unwrap_or("default"),
                name,
                endpoint: endpoint.as_deref(),
            });
            fip::detach(&open()?, address, namespace.as_deref(), named, format)
        }
        Fip::Move(wanted) => {
            let relocation = Relocation {
                address: wanted.address,
                to: Target {
                    node: wanted.node,
                    workload: wanted.to,
                    endpoint: wanted.endpoint,
                },
                exclusive: wanted.exclusive,
                drain: wanted.drain,
                id: wish_id(),
                timeout: wanted.timeout,
            };
            fip::relocate(&open()?, &relocation, format)
        }
        Fip::Release { address } => fip::release(&open()?, address, format),
        Fip::Why { address } => fip::why(agent, open, address, format),
    }
}

/// A name for a wish that no other wish has.
fn wish_id() -> String {
    format!("{:x}-{:x}", Timestamp::now().as_nanosecond(), std::process::id())
}
