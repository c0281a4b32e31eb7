//! The network configuration: what a runtime writes to a plugin's standard input.
//!
//! Keys are those of the CNI specification and its CONVENTIONS, of Calico's plugins, and Buoy's own under `buoy`. Keys
//! that mean nothing to Buoy (datastore, kubeconfig, logging to files, Windows …) are tolerated. The document is kept
//! whole in [`NetConf::raw`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::addr::{MacAddr, parse_ip};
use crate::error::{CniError, ErrorCode};
use crate::fields::{Object, Origin};
use crate::ident;
use crate::version::CniVersion;

/// The IPAM type that is Buoy's own.
pub const OWN_IPAM: &str = "calico-ipam";

/// Largest MTU a link can have.
const MAX_MTU: u32 = 65_535;

const ORIGIN: Origin = Origin {
    what: "network configuration",
    code: ErrorCode::INVALID_CONFIG,
    hint: "correct this key in the network configuration (usually a file in /etc/cni/net.d)",
};

/// A network configuration, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct NetConf {
    /// `cniVersion`; absent means 0.2.0.
    pub version: CniVersion,
    /// `name`: the network.
    pub name: String,
    /// `type`: the plugin.
    pub kind: Option<String>,
    /// `ipam`.
    pub ipam: Ipam,
    /// `mtu`; 0 counts as absent.
    pub mtu: Option<u32>,
    /// `num_queues`: queues of the link in each direction, at least 1.
    pub num_queues: u32,
    /// `nodename`, else the deprecated `hostname`.
    pub node_name: Option<String>,
    /// `log_level`.
    pub log_level: Option<String>,
    /// `feature_control`.
    pub feature_control: FeatureControl,
    /// `container_settings.allow_ip_forwarding`.
    pub allow_ip_forwarding: bool,
    /// `policy.type`.
    pub policy_type: Option<String>,
    /// `datastore_type`; the agent knows its own datastore, so it is only shown.
    pub datastore_type: Option<String>,
    /// `buoy`.
    pub buoy: BuoyConf,
    /// `runtimeConfig`: what the runtime gives for the capabilities of the configuration.
    pub runtime: RuntimeConfig,
    /// `args.cni`.
    pub args: ArgsCni,
    /// `prevResult`: the result of the plugin before, or of ADD at CHECK and DEL.
    pub prev_result: Option<Value>,
    /// `cni.dev/valid-attachments`: what GC is to keep; `None` where the key is absent.
    pub valid_attachments: Option<Vec<Attachment>>,
    /// The whole document.
    pub raw: Value,
}

/// `ipam` of the network configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipam {
    /// `type`.
    pub kind: Option<String>,
    /// `subnet`, of the plugin `host-local`.
    pub subnet: Option<String>,
    /// `assign_ipv4`; on unless "false".
    pub assign_v4: bool,
    /// `assign_ipv6`; off unless "true".
    pub assign_v6: bool,
    /// `ipv4_pools`: prefixes or names of pools.
    pub v4_pools: Vec<String>,
    /// `ipv6_pools`: prefixes or names of pools.
    pub v6_pools: Vec<String>,
}

/// `feature_control`: what the operator allows workloads to ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureControl {
    /// `floating_ips`.
    pub floating_ips: bool,
    /// `ip_addrs_no_ipam`.
    pub ip_addrs_no_ipam: bool,
}

/// `buoy`: Buoy's own keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuoyConf {
    /// `socket`: the agent's unix socket.
    pub socket: Option<PathBuf>,
    /// `namespace`: of workloads whose runtime names none.
    pub namespace: Option<String>,
    /// `spool`: the directory for requests that no agent could take.
    pub spool: Option<PathBuf>,
}

/// `runtimeConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// `io.kubernetes.cri.pod-annotations`.
    pub pod_annotations: BTreeMap<String, String>,
    /// `ips`: the addresses the workload asks for.
    pub ips: Vec<IpAddr>,
    /// `mac`: the hardware address the workload asks for.
    pub mac: Option<MacAddr>,
}

/// `args.cni`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArgsCni {
    /// `ips`: the addresses the workload asks for.
    pub ips: Vec<IpAddr>,
    /// `mac`: the hardware address the workload asks for.
    pub mac: Option<MacAddr>,
    /// `labels`: a list of `{key, value}`, or an object.
    pub labels: BTreeMap<String, String>,
}

/// One attachment of a container to a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attachment {
    /// `containerID`.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// `ifname`.
    pub ifname: String,
}

impl NetConf {
    /// Parses the bytes of standard input. Errors: code 6 (not JSON), 1 (version), 7 (a value, with its key).
    pub fn parse(bytes: &[u8]) -> Result<Self, CniError> {
        Self::from_value(parse_json(bytes)?)
    }

    /// Reads a document. Errors: code 1 (version), 7 (a value, with its key).
    pub fn from_value(raw: Value) -> Result<Self, CniError> {
        let root = Object::root(&raw, ORIGIN)?;
        let version = root.text("cniVersion")?.unwrap_or_default().parse()?;
        let name = root.text("name")?.unwrap_or_default();
        ident::check_network_name(&name)?;
        let node_name = match root.text("nodename")? {
            Some(name) => Some(name),
            None => root.text("hostname")?,
        };
        let queues = root.integer("num_queues")?.unwrap_or(1).clamp(1, 4096);
        check_device_type(&root)?;
        Ok(Self {
            version,
            name,
            kind: root.text("type")?,
            ipam: ipam(&root.object("ipam")?)?,
            mtu: mtu(&root)?,
            num_queues: u32::try_from(queues).unwrap_or(1),
            node_name,
            log_level: root.text("log_level")?,
            feature_control: feature_control(&root.object("feature_control")?)?,
            allow_ip_forwarding: root
                .object("container_settings")?
                .flag("allow_ip_forwarding", false)?,
            policy_type: root.object("policy")?.text("type")?,
            datastore_type: root.text("datastore_type")?,
            buoy: buoy(&root.object("buoy")?)?,
            runtime: runtime_config(&root.object("runtimeConfig")?)?,
            args: args_cni(&root.object("args")?.object("cni")?)?,
            prev_result: root.value("prevResult").cloned(),
            valid_attachments: valid_attachments(&root)?,
            raw,
        })
    }

    /// The IPAM plugin to run, if addresses do not come from Buoy: `ipam.type` where it is another's.
    pub fn third_party_ipam(&self) -> Option<&str> {
        self.ipam.kind.as_deref().filter(|kind| *kind != OWN_IPAM)
    }
}

/// Parses bytes as JSON. Error: code 6.
pub fn parse_json(bytes: &[u8]) -> Result<Value, CniError> {
    serde_json::from_slice(bytes).map_err(|error| {
        CniError::new(
            ErrorCode::DECODE,
            format!("network configuration is not JSON: {error}"),
        )
        .with_hint("correct the network configuration (usually a file in /etc/cni/net.d)")
    })
}

fn ipam(ipam: &Object<'_>) -> Result<Ipam, CniError> {
    Ok(Ipam {
        kind: ipam.text("type")?,
        subnet: ipam.text("subnet")?,
        assign_v4: ipam.flag("assign_ipv4", true)?,
        assign_v6: ipam.flag("assign_ipv6", false)?,
        v4_pools: ipam.texts("ipv4_pools")?,
        v6_pools: ipam.texts("ipv6_pools")?,
    })
}

fn mtu(root: &Object<'_>) -> Result<Option<u32>, CniError> {
    match root.number::<u32>("mtu")? {
        None | Some(0) => Ok(None),
        Some(mtu @ 68..=MAX_MTU) => Ok(Some(mtu)),
        Some(mtu) => Err(root.invalid(
            "mtu",
            format!("expected 68 to {MAX_MTU}, or 0 for the default, got {mtu}"),
        )),
    }
}

fn check_device_type(root: &Object<'_>) -> Result<(), CniError> {
    match root.text("device_type")?.as_deref() {
        None | Some("veth" | "netkit") => Ok(()),
        Some(other) => Err(root.invalid(
            "device_type",
            format!("expected \"veth\" or \"netkit\", got {other:?}"),
        )),
    }
}

fn feature_control(control: &Object<'_>) -> Result<FeatureControl, CniError> {
    Ok(FeatureControl {
        floating_ips: control.flag("floating_ips", false)?,
        ip_addrs_no_ipam: control.flag("ip_addrs_no_ipam", false)?,
    })
}

fn buoy(buoy: &Object<'_>) -> Result<BuoyConf, CniError> {
    let namespace = buoy.text("namespace")?;
    if let Some(bad) = namespace.as_deref().filter(|name| !ident::is_name(name)) {
        return Err(buoy.invalid(
            "namespace",
            format!("expected letters, digits, `-`, `_` and `.`, got {bad:?}"),
        ));
    }
    Ok(BuoyConf {
        socket: absolute(buoy, "socket")?,
        namespace,
        spool: absolute(buoy, "spool")?,
    })
}

/// A path that does not depend on the runtime's working directory.
fn absolute(buoy: &Object<'_>, key: &str) -> Result<Option<PathBuf>, CniError> {
    let Some(path) = buoy.text(key)?.map(PathBuf::from) else {
        return Ok(None);
    };
    if path.is_absolute() {
        return Ok(Some(path));
    }
    Err(buoy.invalid(key, format!("expected an absolute path, got {path:?}")))
}

fn runtime_config(runtime: &Object<'_>) -> Result<RuntimeConfig, CniError> {
    let annotations = runtime.object("io.kubernetes.cri.pod-annotations")?.all_texts()?;
    Ok(RuntimeConfig {
        pod_annotations: annotations.into_iter().collect(),
        ips: ips(runtime)?,
        mac: runtime.parsed("mac")?,
    })
}

fn args_cni(args: &Object<'_>) -> Result<ArgsCni, CniError> {
    let labels = match args.value("labels") {
        Some(Value::Object(_)) => args.object("labels")?.all_texts()?,
        _ => {
            let pair = |label: Object<'_>| {
                let key = label
                    .text("key")?
                    .ok_or_else(|| label.invalid("key", "expected a text, got nothing"))?;
                Ok((key, label.text("value")?.unwrap_or_default()))
            };
            args.objects("labels")?
                .into_iter()
                .map(pair)
                .collect::<Result<_, CniError>>()?
        }
    };
    Ok(ArgsCni {
        ips: ips(args)?,
        mac: args.parsed("mac")?,
        labels: labels.into_iter().collect(),
    })
}

fn ips(object: &Object<'_>) -> Result<Vec<IpAddr>, CniError> {
    let parse = |text: &String| parse_ip(text).map_err(|error| object.invalid("ips", error));
    object.texts("ips")?.iter().map(parse).collect()
}

fn valid_attachments(root: &Object<'_>) -> Result<Option<Vec<Attachment>>, CniError> {
    const KEY: &str = "cni.dev/valid-attachments";
    if root.value(KEY).is_none() {
        return Ok(None);
    }
    let attachment = |object: Object<'_>| {
        let text = |key| {
            object
                .text(key)?
                .ok_or_else(|| object.invalid(key, "expected a text, got nothing"))
        };
        Ok(Attachment {
            container_id: text("containerID")?,
            ifname: text("ifname")?,
        })
    };
    root.objects(KEY)?
        .into_iter()
        .map(attachment)
        .collect::<Result<_, CniError>>()
        .map(Some)
}

#[cfg(test)]
#[path = "netconf_tests.rs"]
mod tests;
