//! Settings: a flag wins over the environment, the environment over the file.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use buoy_core::view::{self, Gate, Routing};
use buoy_daemon::http::Listen;
use buoy_daemon::{LogFormat, duration};
use clap::Args;
use serde::Deserialize;

/// Where the settings file is, if nothing else is said.
const DEFAULT_CONFIG: &str = "/etc/buoy/agent.yaml";

/// Flags and environment. Every one of these is also a key of the file, in camel case.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Given {
    /// Settings file
    #[arg(long, env = "BUOY_CONFIG", global = true)]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Name of this node; its host name, if not given
    #[arg(long, env = "BUOY_NODE_NAME", global = true)]
    pub node_name: Option<String>,
    /// Datastore, for example sqlite:///var/lib/buoy/buoy.db, etcd://host:port or kubernetes:/path/to/kubeconfig
    #[arg(long, env = "BUOY_DATASTORE", global = true)]
    pub datastore: Option<String>,
    /// Unix socket for the CNI plugin and buoyctl
    #[arg(long, env = "BUOY_SOCKET", global = true)]
    pub socket: Option<PathBuf>,
    /// Directory for what must survive a restart
    #[arg(long, env = "BUOY_STATE_DIR", global = true)]
    pub state_dir: Option<PathBuf>,
    /// Directory for what need not survive a boot
    #[arg(long, env = "BUOY_RUN_DIR", global = true)]
    pub run_dir: Option<PathBuf>,
    /// Address of this node: auto, one per family separated by a comma, interface=NAME or cidr=PREFIX
    #[arg(long, env = "BUOY_NODE_IP", global = true)]
    #[serde(rename = "nodeIP")]
    pub node_ip: Option<String>,
    /// Who announces routes: bird (the agent looks after it) or kernel (they are programmed, and left to others)
    #[arg(long, env = "BUOY_ROUTING", global = true)]
    pub routing: Option<String>,
    /// Who makes the pods' links; this version: own
    #[arg(long, env = "BUOY_CNI", global = true)]
    pub cni: Option<String>,
    /// Whether floating IPs are on: auto (as the network configuration or FelixConfiguration says), on or off
    #[arg(long, env = "BUOY_FLOATING_IPS", global = true)]
    #[serde(rename = "floatingIPs")]
    pub floating_ips: Option<String>,
    /// How long a namespace keeps a released floating IP, for example 10m
    #[arg(long, env = "BUOY_FLOATING_IP_HOLD", global = true)]
    #[serde(rename = "floatingIPHold")]
    pub floating_ip_hold: Option<String>,
    /// How long an owner that is not ready keeps a floating IP that somebody else could serve, for example 3s
    #[arg(long, env = "BUOY_FLOATING_IP_YIELD", global = true)]
    #[serde(rename = "floatingIPYield")]
    pub floating_ip_yield: Option<String>,
    /// Where metrics, /healthz and /readyz are served: path of a unix socket, or address:port
    #[arg(long, env = "BUOY_LISTEN", global = true)]
    pub listen: Option<String>,
    /// What to log: error, warn, info, debug, trace, or filters of the tracing crate
    #[arg(long, env = "BUOY_LOG", global = true)]
    pub log: Option<String>,
    /// How to log: text or json
    #[arg(long, env = "BUOY_LOG_FORMAT", global = true)]
    pub log_format: Option<String>,
}

/// Which addresses are this node's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeIp {
    /// The first global address of each family.
    Auto,
    /// These.
    Addresses(Vec<IpAddr>),
    /// Those of a link.
    Interface(String),
    /// Those within a prefix.
    Cidr(ipnet::IpNet),
}

/// Settings, complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Name of this node.
    pub node_name: String,
    /// URL of the datastore.
    pub datastore: String,
    /// Socket for clients.
    pub socket: PathBuf,
    /// Survives a restart.
    pub state_dir: PathBuf,
    /// Survives no boot.
    pub run_dir: PathBuf,
    /// Addresses of this node.
    pub node_ip: NodeIp,
    /// Directory of secrets that records name: a directory for each, with a file for each of its keys.
    pub secrets: PathBuf,
    /// Who announces routes.
    pub routing: Routing,
    /// Gate for floating IPs.
    pub floating: Gate,
    /// Hold of released floating IPs.
    pub hold: Duration,
    /// How long the routing daemon may be away before this node's workloads count as not ready, and how long a workload may
    /// be not ready before it counts as such.
    pub yield_time: Duration,
    /// Where metrics and health are served.
    pub listen: Listen,
    /// Log filter.
    pub log: String,
    /// Log format.
    pub log_format: LogFormat,
}

impl Settings {
    /// Completes what flags and environment give by the file and by defaults.
    pub fn load(given: &Given) -> Result<Self> {
        let file = read_file(given.config.as_deref())?;
        Self::complete(&given.or(file))
    }

    fn complete(given: &Given) -> Result<Self> {
        only(given.cni.as_deref(), "cni", "own")?;
        let text =
            |value: &Option<String>, default: &str| value.clone().unwrap_or_else(|| default.to_owned());
        let path = |value: &Option<PathBuf>, default: &str| value.clone().unwrap_or_else(|| default.into());
        let run_dir = path(&given.run_dir, "/run/buoy");
        Ok(Self {
            node_name: given.node_name.clone().map_or_else(host_name, Ok)?,
            datastore: given
                .datastore
                .clone()
                .unwrap_or_else(buoy_datastore::default_url),
            socket: path(&given.socket, "/run/buoy/agent.sock"),
            state_dir: path(&given.state_dir, "/var/lib/buoy"),
            node_ip: text(&given.node_ip, "auto").parse()?,
            secrets: secrets(given.config.as_deref()),
            routing: routing(&text(&given.routing, "bird"))?,
            floating: gate(&text(&given.floating_ips, "auto"))?,
            hold: duration(&text(&given.floating_ip_hold, "10m")).context("floating-ip-hold")?,
            yield_time: duration(&text(&given.floating_ip_yield, "3s")).context("floating-ip-yield")?,
            listen: match &given.listen {
                Some(text) => text.parse()?,
                None => Listen::Unix(run_dir.join("http.sock")),
            },
            run_dir,
            log: text(&given.log, "info"),
            log_format: LogFormat::of_setting(&text(&given.log_format, "text"))?,
        })
    }

    /// Where the CNI plugin leaves what no agent could take.
    pub fn spool(&self) -> PathBuf {
        self.state_dir.join("spool")
    }

    /// The part that decisions depend on.
    pub fn for_view(&self, identity: &str) -> view::Settings {
        view::Settings {
            node: self.node_name.clone(),
            floating: self.floating,
            hold: self.hold,
            version: crate::VERSION.to_owned(),
            identity: identity.to_owned(),
            routing: self.routing,
            yield_time: self.yield_time,
        }
    }
}

impl Given {
    fn or(&self, file: Given) -> Given {
        let own = self.clone();
        Given {
            config: own.config,
            node_name: own.node_name.or(file.node_name),
            datastore: own.datastore.or(file.datastore),
            socket: own.socket.or(file.socket),
            state_dir: own.state_dir.or(file.state_dir),
            run_dir: own.run_dir.or(file.run_dir),
            node_ip: own.node_ip.or(file.node_ip),
            routing: own.routing.or(file.routing),
            cni: own.cni.or(file.cni),
            floating_ips: own.floating_ips.or(file.floating_ips),
            floating_ip_hold: own.floating_ip_hold.or(file.floating_ip_hold),
            floating_ip_yield: own.floating_ip_yield.or(file.floating_ip_yield),
            listen: own.listen.or(file.listen),
            log: own.log.or(file.log),
            log_format: own.log_format.or(file.log_format),
        }
    }
}

/// The file need not exist unless it was named.
fn read_file(named: Option<&Path>) -> Result<Given> {
    let path = named.unwrap_or(Path::new(DEFAULT_CONFIG));
    match std::fs::read_to_string(path) {
        Ok(text) => parse_file(&text).with_context(|| format!("settings file: {}", path.display())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && named.is_none() => Ok(Given::default()),
        Err(e) => Err(e).with_context(|| format!("settings file: {}", path.display())),
    }
}

/// A file of comments alone says nothing.
fn parse_file(text: &str) -> Result<Given> {
    let given = serde_saphyr::from_str::<Option<Given>>(text).map_err(|error| {
        // The rest shows the place in the file once more.
        let said = error.to_string();
        let said = said.lines().next().unwrap_or_default();
        let said = said.strip_prefix("error: ").unwrap_or(said);
        anyhow::anyhow!(
            "{said}\nwrite a line for each setting, such as nodeName: n1; buoy-agent --help says what there is"
        )
    })?;
    Ok(given.unwrap_or_default())
}

fn only(value: Option<&str>, setting: &str, supported: &str) -> Result<()> {
    match value {
        Some(value) if value != supported => {
            bail!("{setting}: {value}\nthis version has {setting}: {supported}")
        }
        _ => Ok(()),
    }
}

fn routing(text: &str) -> Result<Routing> {
    match text {
        "bird" => Ok(Routing::Bird),
        "kernel" => Ok(Routing::Kernel),
        other => bail!("routing: {other}\nthis version has routing: bird, kernel"),
    }
}

/// Beside the settings file.
fn secrets(config: Option<&Path>) -> PathBuf {
    let config = config.unwrap_or(Path::new(DEFAULT_CONFIG));
    config.parent().unwrap_or(Path::new("")).join("secrets")
}

fn gate(text: &str) -> Result<Gate> {
    match text {
        "auto" => Ok(Gate::Auto),
        "on" => Ok(Gate::On),
        "off" => Ok(Gate::Off),
        other => bail!("floating-ips: {other}\nwrite auto, on or off"),
    }
}

fn host_name() -> Result<String> {
    let name = nix::unistd::gethostname().context("host name")?;
    let name = name
        .into_string()
        .map_err(|_| anyhow::anyhow!("the host name is not text\nset node-name"))?;
    Ok(name.to_lowercase())
}

impl FromStr for NodeIp {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        if let Some(name) = text.strip_prefix("interface=") {
            return Ok(Self::Interface(name.to_owned()));
        }
        if let Some(prefix) = text.strip_prefix("cidr=") {
            return Ok(Self::Cidr(
                prefix
                    .parse()
                    .with_context(|| format!("node-ip: not a prefix: {prefix}"))?,
            ));
        }
        let addresses: Result<Vec<IpAddr>, _> = text.split(',').map(|part| part.trim().parse()).collect();
        let addresses = addresses.with_context(|| {
            format!(
                "node-ip: {text}\nwrite auto, addresses separated by a comma, interface=NAME or cidr=PREFIX"
            )
        })?;
        if addresses.iter().filter(|a| a.is_ipv4()).count() > 1
            || addresses.iter().filter(|a| a.is_ipv6()).count() > 1
        {
            bail!("node-ip: one address per family: {text}");
        }
        Ok(Self::Addresses(addresses))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(file: &str) -> Given {
        serde_saphyr::from_str(file).unwrap()
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let flags = Given {
            node_name: Some("flag".into()),
            ..Given::default()
        };
        let file =
            given("nodeName: file\nfloatingIPHold: 30s\nfloatingIPs: on\ndatastore: etcd://10.0.0.1:2379\n");
        let settings = Settings::complete(&flags.or(file)).unwrap();
        assert_eq!(settings.node_name, "flag");
        assert_eq!(settings.datastore, "etcd://10.0.0.1:2379");
        assert_eq!(settings.hold, Duration::from_secs(30));
        assert_eq!(settings.floating, Gate::On);
        assert_eq!(settings.routing, Routing::Bird);
        assert_eq!(settings.secrets, PathBuf::from("/etc/buoy/secrets"));
        assert_eq!(settings.socket, PathBuf::from("/run/buoy/agent.sock"));
    }

    #[test]
    fn the_example_and_a_file_of_comments_are_good() {
        let example = include_str!("../../../deploy/systemd/agent.yaml");
        Settings::complete(&parse_file(example).unwrap()).unwrap();
        parse_file("# nothing is set\n").unwrap();
        parse_file("").unwrap();
    }

    #[test]
    fn what_this_version_lacks_is_said() {
        let error = Settings::complete(&given("routing: l2")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "routing: l2\nthis version has routing: bird, kernel"
        );
        assert!(Settings::complete(&given("floatingIPs: maybe")).is_err());
        assert!(Settings::complete(&given("floatingIPHold: soon")).is_err());
        assert!(serde_saphyr::from_str::<Given>("nodename: typo").is_err());
    }

    #[test]
    fn metrics_are_served_where_it_is_said() {
        let listen = |file: &str| Settings::complete(&given(file)).map(|settings| settings.listen);
        let unix = |path: &str| Listen::Unix(path.into());
        assert_eq!(listen("nodeName: n1").unwrap(), unix("/run/buoy/http.sock"));
        assert_eq!(listen("runDir: /run/two").unwrap(), unix("/run/two/http.sock"));
        assert_eq!(listen("listen: /tmp/a.sock").unwrap(), unix("/tmp/a.sock"));
        let tcp = Listen::Tcp("[::1]:9177".parse().unwrap());
        assert_eq!(listen("listen: '[::1]:9177'").unwrap(), tcp);
        for bad in ["9177", "':9177'", "localhost:9177", "a.sock"] {
            assert!(listen(&format!("listen: {bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_node_address_can_be_said_in_four_ways() {
        assert_eq!("auto".parse::<NodeIp>().unwrap(), NodeIp::Auto);
        assert_eq!(
            "interface=eth0".parse::<NodeIp>().unwrap(),
            NodeIp::Interface("eth0".into())
        );
        assert_eq!(
            "cidr=10.0.0.0/8".parse::<NodeIp>().unwrap(),
            NodeIp::Cidr("10.0.0.0/8".parse().unwrap())
        );
        let both = NodeIp::Addresses(vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()]);
        assert_eq!("10.0.0.1, fd00::1".parse::<NodeIp>().unwrap(), both);
        assert!("10.0.0.1,10.0.0.2".parse::<NodeIp>().is_err());
    }
}
