//! Running a third-party IPAM plugin.
//!
//! Source: CNI specification, section 4 "Plugin Delegation": same environment, same standard input, found in
//! `CNI_PATH`.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::thread;

use buoy_cni_spec::{CniError, CniResult, ErrorCode, frame};
use serde_json::Value;

use crate::env::Command;
use crate::invocation::Invocation;

/// The IPAM plugin that the configuration names, if it is not Buoy's own.
#[derive(Debug)]
pub(crate) struct Ipam<'a> {
    kind: &'a str,
    call: &'a Invocation<'a>,
}

impl<'a> Ipam<'a> {
    /// Error: code 7 if the configuration names what is no IPAM plugin.
    pub(crate) fn of(call: &'a Invocation<'a>) -> Result<Option<Self>, CniError> {
        let Some(kind) = call.conf.third_party_ipam() else {
            return Ok(None);
        };
        // `calico` would run itself, and that itself again.
        if kind.contains('/') || kind == "calico" {
            let msg = format!("not an IPAM plugin: ipam.type: {kind:?}");
            return Err(CniError::new(ErrorCode::INVALID_CONFIG, msg)
                .with_hint("set ipam.type to calico-ipam, or to the name of a plugin in CNI_PATH"));
        }
        Ok(Some(Self { kind, call }))
    }

    /// Runs ADD and returns the plugin's result; what it gave is taken back where the result is not usable.
    pub(crate) fn add(&self) -> Result<Value, CniError> {
        let output = self.run(Command::Add)?;
        self.check_result(&output).inspect_err(|_| self.undo())?;
        Ok(output)
    }

    /// Runs another command than ADD, whose output means nothing.
    pub(crate) fn run_quietly(&self, command: Command) -> Result<(), CniError> {
        self.run(command).map(drop)
    }

    /// Gives back what ADD took. Nobody is left to tell of a failure but the log.
    pub(crate) fn undo(&self) {
        if let Err(error) = self.run(Command::Del) {
            let _ = writeln!(
                io::stderr(),
                "{}: cannot give the addresses back: {error}",
                self.kind
            );
        }
    }

    fn check_result(&self, output: &Value) -> Result<(), CniError> {
        let result = CniResult::parse(output)?;
        if result.ips.is_empty() {
            return Err(
                CniError::generic("IPAM plugin returned no IP addresses in result")
                    .with_hint(format!("see the configuration of {}", self.kind)),
            );
        }
        Ok(())
    }

    fn run(&self, command: Command) -> Result<Value, CniError> {
        let program = self.find()?;
        let failed = |error: io::Error| {
            CniError::new(
                ErrorCode::IO,
                format!("cannot run IPAM plugin: {}: {error}", program.display()),
            )
        };
        let mut child = self.spawn(&program, command).map_err(failed)?;
        let output = exchange(&mut child, self.call.stdin).map_err(failed);
        if output.is_err() {
            let _ = child.kill();
        }
        let status = child.wait().map_err(failed)?;
        let output = output?;
        let document = serde_json::from_slice::<Value>(&output);
        if !status.success() {
            return Err(document
                .ok()
                .as_ref()
                .and_then(CniError::from_json)
                .unwrap_or_else(|| {
                    CniError::generic(format!("IPAM plugin failed: {}: {status}", self.kind))
                        .with_hint("it printed no CNI error; see the runtime's log for its standard error")
                }));
        }
        match document {
            Ok(document) => Ok(document),
            Err(_) if command != Command::Add => Ok(Value::Null),
            Err(error) => Err(CniError::new(
                ErrorCode::DECODE,
                format!("result of IPAM plugin is not JSON: {}: {error}", self.kind),
            )),
        }
    }

    fn find(&self) -> Result<PathBuf, CniError> {
        let path = &self.call.env.path;
        let mut candidates = path
            .split(':')
            .filter(|dir| !dir.is_empty())
            .map(|dir| Path::new(dir).join(self.kind));
        candidates.find(|candidate| candidate.is_file()).ok_or_else(|| {
            let directories = path.replace(':', " ");
            CniError::generic(format!(
                "failed to find plugin {:?} in path [{directories}]",
                self.kind
            ))
            .with_hint("install the plugin there, or set ipam.type to calico-ipam")
        })
    }

    fn spawn(&self, program: &Path, command: Command) -> io::Result<Child> {
        Process::new(program)
            .env("CNI_COMMAND", command.as_str())
            // Kubernetes' arguments mean nothing to most IPAM plugins, and strict ones would refuse them.
            .env(
                "CNI_ARGS",
                format!("IgnoreUnknown=1;{}", self.call.env.args).trim_end_matches(';'),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
    }
}

/// Writes standard input and reads standard output, bounded, at the same time, so that neither side waits for the
/// other with its pipe full.
fn exchange(child: &mut Child, input: &[u8]) -> io::Result<Vec<u8>> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let mut output = Vec::new();
    thread::scope(|scope| {
        // A plugin that does not read its input has a reason; what it says is in its answer.
        let write = move || stdin.map(|mut stdin| stdin.write_all(input));
        thread::Builder::new().spawn_scoped(scope, write)?;
        let bound = frame::MAX_BODY as u64 + 1;
        let read = stdout.map_or(Ok(0), |stdout| stdout.take(bound).read_to_end(&mut output))?;
        if read > frame::MAX_BODY {
            Err(io::Error::other("its output is too large"))
        } else {
            Ok(())
        }
    })?;
    Ok(output)
}
