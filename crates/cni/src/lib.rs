//! The CNI plugins `calico` and `calico-ipam`: one short-lived, synchronous program.
//!
//! It opens the network namespace, runs a third-party IPAM plugin if the configuration names one, sends one request to
//! the node's agent and prints the answer. [`client`] is also what `buoyctl` talks to the agent with. Under its own name it
//! installs itself on a node (`buoy-cni install`, [`install`]).
//!
//! Invariants: standard output carries one JSON document or nothing; a failure is a CNI error there and exit code 1;
//! no input makes it panic; without an agent DEL succeeds, and what it could not do is in the spool directory.
//!
//! What is not here: credentials, policy, the datastore, and any network state but the one interface that DEL may
//! delete inside the namespace it was given. No argument parser, logger or async runtime: it must start in about a
//! millisecond.

pub mod client;
mod delegate;
mod env;
mod exchange;
mod install;
mod invocation;
mod ipam_plugin;
mod link;
mod main_plugin;
mod netns;
mod spool;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use buoy_cni_spec::version::{self, CniVersion};
use buoy_cni_spec::{CniError, ErrorCode};
use serde_json::Value;

use crate::env::{CniEnv, Command};
use crate::invocation::{Invocation, Stdin};

/// This program's name and version.
pub const PROGRAM: &str = concat!("buoy-cni ", env!("CARGO_PKG_VERSION"));

/// Which of the two plugins this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plugin {
    Calico,
    CalicoIpam,
}

/// What to print: a document, or nothing.
type Output = Result<Option<Value>, CniError>;

/// Runs the plugin that the program's name says, with the process's environment and standard input.
pub fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    let word = args.next().unwrap_or_default();
    if word == "-v" || word == "--version" {
        return print(&format!("{PROGRAM}\n"));
    }
    let command = word.to_str().and_then(install::Command::parse);
    if let (Some(command), Err(_)) = (command, Plugin::from_program(&name)) {
        return install::main(command);
    }
    let mut stdin = Stdin::default();
    match run(&name, &mut stdin) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(document)) => print(&format!("{document}\n")),
        Err(error) => {
            print(&format!(
                "{}\n",
                error.to_json(stdin.cni_version().unwrap_or(CniVersion::LATEST.as_str()))
            ));
            ExitCode::FAILURE
        }
    }
}

fn run(name: &OsStr, stdin: &mut Stdin) -> Output {
    let plugin = Plugin::from_program(name)?;
    let Some(env) = CniEnv::read(|key| std::env::var_os(key))? else {
        // A person ran it: say what it is. Standard output stays empty, as it does with the reference library.
        let supported = CniVersion::ALL.map(CniVersion::as_str).join(", ");
        let _ = writeln!(
            io::stderr(),
            "{PROGRAM}, a CNI plugin\nCNI protocol versions supported: {supported}"
        );
        return Ok(None);
    };
    if env.command == Command::Version {
        return Ok(Some(version::version_output()));
    }
    let invocation = Invocation::new(plugin.name(), env, stdin)?;
    match plugin {
        Plugin::Calico => main_plugin::run(&invocation),
        Plugin::CalicoIpam => ipam_plugin::run(&invocation),
    }
}

impl Plugin {
    fn from_program(program: &OsStr) -> Result<Self, CniError> {
        let name = Path::new(program)
            .file_name()
            .map(OsStr::to_os_string)
            .unwrap_or_default();
        match name.to_str() {
            Some("calico") => Ok(Self::Calico),
            Some("calico-ipam") => Ok(Self::CalicoIpam),
            _ => Err(unknown_program(&name)),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Calico => "calico",
            Self::CalicoIpam => "calico-ipam",
        }
    }
}

fn unknown_program(name: &OsString) -> CniError {
    CniError::new(
        ErrorCode::GENERIC,
        format!("not the name of a plugin: {}", name.display()),
    )
    .with_hint("buoy-cni install puts this program on a node under the names calico and calico-ipam")
}

/// Writes to standard output, all at once; what cannot be delivered is a failure of the plugin.
fn print(text: &str) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
