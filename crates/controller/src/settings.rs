//! Settings: a flag wins over the environment, the environment over the default.

use std::time::Duration;

use anyhow::{Context, Result};
use buoy_core::cluster;
use buoy_daemon::http::Listen;
use buoy_daemon::{LogFormat, duration};
use clap::Args;

/// Flags and environment.
#[derive(Args, Clone, Debug)]
pub struct Given {
    /// Datastore, for example etcd://host:port or kubernetes:/path/to/kubeconfig
    #[arg(long, env = "BUOY_DATASTORE")]
    datastore: Option<String>,
    /// How long an address that its pod does not have is kept, for example 15m
    #[arg(long, env = "BUOY_LEAK_GRACE", default_value = "15m")]
    leak_grace: String,
    /// How long what a deleted node left is kept, for example 5m
    #[arg(long, env = "BUOY_NODE_GRACE", default_value = "5m")]
    node_grace: String,
    /// How long a namespace keeps a released floating IP, for example 10m
    #[arg(long, env = "BUOY_FLOATING_IP_HOLD", default_value = "10m")]
    floating_ip_hold: String,
    /// Where metrics, /healthz and /readyz are served: the path of a unix socket, or an address and a port; nowhere by default
    #[arg(long, env = "BUOY_LISTEN")]
    listen: Option<Listen>,
    /// What to log: error, warn, info, debug, trace, or filters of the tracing crate
    #[arg(long, env = "BUOY_LOG", default_value = "info")]
    log: String,
    /// How to log: text or json
    #[arg(long, env = "BUOY_LOG_FORMAT", default_value = "text")]
    log_format: String,
}

/// Settings, complete.
#[derive(Clone, Debug)]
pub struct Settings {
    /// URL of the datastore.
    pub datastore: String,
    /// How long things must stand.
    pub cluster: cluster::Settings,
    /// Where metrics and health are served.
    pub listen: Option<Listen>,
    /// Log filter.
    pub log: String,
    /// Log format.
    pub log_format: LogFormat,
}

impl Settings {
    /// Reads what was given.
    pub fn complete(given: Given) -> Result<Self> {
        let time = |text: &str, setting: &str| -> Result<Duration> {
            duration(text).with_context(|| setting.to_owned())
        };
        Ok(Self {
            cluster: cluster::Settings {
                grace: time(&given.leak_grace, "leak-grace")?,
                node_grace: time(&given.node_grace, "node-grace")?,
                hold: time(&given.floating_ip_hold, "floating-ip-hold")?,
            },
            log_format: LogFormat::of_setting(&given.log_format)?,
            datastore: given.datastore.unwrap_or_else(buoy_datastore::default_url),
            listen: given.listen,
            log: given.log,
        })
    }
}
