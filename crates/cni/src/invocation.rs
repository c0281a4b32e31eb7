//! One call of a plugin: its environment, its configuration, and how it reaches the agent.

use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use buoy_cni_spec::agent::{self, AddRequest, Body, PluginRequest, Request};
use buoy_cni_spec::args::CniArgs;
use buoy_cni_spec::{CniError, ErrorCode, NetConf, frame, netconf};
use serde_json::Value;

use crate::client::Client;
use crate::env::{CniEnv, Command};
use crate::spool::Spool;

/// How long ADD, CHECK, GC and STATUS wait for the agent.
const DEADLINE: Duration = Duration::from_secs(30);

/// How long DEL waits for the agent before it leaves its request in the spool.
const DEL_DEADLINE: Duration = Duration::from_secs(5);

/// Standard input: the network configuration.
#[derive(Debug, Default)]
pub(crate) struct Stdin {
    bytes: Vec<u8>,
    document: Value,
}

/// A call that has passed every check that needs no agent.
#[derive(Debug)]
pub(crate) struct Invocation<'a> {
    pub(crate) plugin: &'static str,
    pub(crate) env: CniEnv,
    pub(crate) conf: NetConf,
    /// Standard input as it came, for a third-party IPAM plugin.
    pub(crate) stdin: &'a [u8],
    pub(crate) client: Client,
    pub(crate) spool: Spool,
    deadline: Duration,
}

impl Stdin {
    /// `cniVersion` as the configuration says it, for an error's document.
    pub(crate) fn cni_version(&self) -> Option<&str> {
        self.document.get("cniVersion")?.as_str()
    }

    fn read(&mut self) -> Result<(), CniError> {
        let bound = frame::MAX_BODY as u64 + 1;
        io::stdin()
            .lock()
            .take(bound)
            .read_to_end(&mut self.bytes)
            .map_err(|error| {
                CniError::new(
                    ErrorCode::IO,
                    format!("cannot read the network configuration from stdin: {error}"),
                )
            })?;
        if self.bytes.len() > frame::MAX_BODY {
            let msg = format!(
                "network configuration is too large: over {} bytes",
                frame::MAX_BODY
            );
            return Err(CniError::new(ErrorCode::INVALID_CONFIG, msg));
        }
        self.document = netconf::parse_json(&self.bytes)?;
        Ok(())
    }
}

impl<'a> Invocation<'a> {
    pub(crate) fn new(plugin: &'static str, env: CniEnv, stdin: &'a mut Stdin) -> Result<Self, CniError> {
        stdin.read()?;
        let conf = NetConf::from_value(stdin.document.clone())?;
        env.check_names()?;
        check_command(&env, &conf)?;
        let socket = setting(conf.buoy.socket.as_ref(), "BUOY_SOCKET", agent::DEFAULT_SOCKET);
        let spool = setting(conf.buoy.spool.as_ref(), "BUOY_SPOOL", agent::DEFAULT_SPOOL);
        let deadline = std::env::var("BUOY_CNI_DEADLINE_MS")
            .ok()
            .and_then(|text| text.parse().ok());
        Ok(Self {
            plugin,
            env,
            conf,
            stdin: &stdin.bytes,
            client: Client::new(socket),
            spool: Spool::new(spool),
            deadline: deadline.map_or(DEADLINE, Duration::from_millis),
        })
    }

    /// How long to wait for the agent.
    pub(crate) fn deadline(&self) -> Duration {
        if self.env.command == Command::Del {
            self.deadline.min(DEL_DEADLINE)
        } else {
            self.deadline
        }
    }

    pub(crate) fn request(&self, body: Body) -> Request {
        Request::new(format!("{} ({})", self.plugin, crate::PROGRAM), body)
    }

    pub(crate) fn add_request(&self, delegated: Option<Value>) -> AddRequest {
        AddRequest {
            container_id: self.env.container_id.clone(),
            ifname: self.env.ifname.clone(),
            netns_path: self.env.netns.clone(),
            args: self.env.args.clone(),
            path: self.env.path.clone(),
            config: self.conf.raw.clone(),
            delegated,
            deadline_ms: 0,
        }
    }

    pub(crate) fn plugin_request(&self) -> PluginRequest {
        PluginRequest {
            container_id: self.env.container_id.clone(),
            ifname: self.env.ifname.clone(),
            netns_path: Some(self.env.netns.clone()).filter(|path| !path.is_empty()),
            args: self.env.args.clone(),
            path: self.env.path.clone(),
            config: self.conf.raw.clone(),
            deadline_ms: 0,
        }
    }
}

/// The configuration's value wins, then the environment, then the default.
fn setting(configured: Option<&PathBuf>, variable: &str, default: &str) -> PathBuf {
    let from_env = || {
        std::env::var_os(variable)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    configured
        .cloned()
        .or_else(from_env)
        .unwrap_or_else(|| default.into())
}

/// Checks that the command exists in the configuration's version, and the arguments of what attaches.
fn check_command(env: &CniEnv, conf: &NetConf) -> Result<(), CniError> {
    let allowed = match env.command {
        Command::Gc | Command::Status => conf.version.allows_gc_and_status(),
        Command::Check => conf.version.allows_check(),
        Command::Add | Command::Del | Command::Version => true,
    };
    if !allowed {
        let msg = format!("config version does not allow {}", env.command.as_str());
        return Err(
            CniError::new(ErrorCode::INCOMPATIBLE_VERSION, msg).with_hint(format!(
                "the network configuration has cniVersion {}",
                conf.version
            )),
        );
    }
    // DEL must work whatever is in them.
    if env.command == Command::Add {
        CniArgs::parse(&env.args)?;
    }
    Ok(())
}
