//! Reads an ADD: network configuration, arguments and annotations become one checked request.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use buoy_api::annotations::PodRequest;
use buoy_api::ip::Family;
use buoy_api::names::{self, EndpointName, Orchestrator};
use buoy_cni_spec::agent::{AddRequest, PluginRequest};
use buoy_cni_spec::args::CniArgs;
use buoy_cni_spec::{CniError, CniResult, ErrorCode, NetConf};
use buoy_core::endpoint::{
    AddressRequest, Attachment, AttachmentId, EndpointId, IfName, Netns, Phase, Request, WireFamily,
};
use buoy_core::news::Workload;
use buoy_core::view::Revenant;
use jiff::Timestamp;
use serde_json::{Value, json};

/// The interface that a pod's record and link name belong to.
const PRIMARY: &str = "eth0";

/// An ADD that was read, with what its answer needs.
#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    /// The network configuration.
    pub(crate) conf: NetConf,
    /// What is asked for.
    pub(crate) attachment: Attachment,
}

/// Reads an ADD for a node. `gate` says whether floating IPs are on, given what the configuration says.
pub(crate) fn parse(
    add: &AddRequest,
    netns: Netns,
    node: &str,
    gate: &dyn Fn(bool) -> bool,
    now: Timestamp,
) -> Result<Parsed, CniError> {
    let conf = NetConf::from_value(add.config.clone())?;
    let args = CniArgs::parse(&add.args)?;
    let pod = PodRequest::parse(&conf.runtime.pod_annotations)
        .map_err(|e| CniError::generic(first_line(&e.to_string())).with_hint(rest(&e.to_string())))?;
    let who = Who::of(&add.container_id, &conf, &args);
    let endpoint = endpoint_id(&who, node, &add.ifname)?;
    let open = gate(conf.feature_control.floating_ips);
    if !pod.floating_ips.is_empty() && !open {
        return Err(CniError::generic("requested feature is not enabled: floating_ips").with_hint(
            "set \"feature_control\": {\"floating_ips\": true} in the network configuration, or floatingIPs: Enabled in FelixConfiguration default",
        ));
    }
    let id = AttachmentId {
        container: add.container_id.clone(),
        ifname: add.ifname.clone(),
    };
    let addresses = addresses(add, &conf, &args, &pod)?;
    check_families(&pod, &addresses)?;
    let request = Request {
        network: conf.name.clone(),
        link: true,
        orchestrator: who.orchestrator.as_str().to_owned(),
        host_ifname: IfName(link_name(&who, &id)),
        mac: Some(mac(&conf, &args, &pod, &id)),
        mtu: conf.mtu,
        queues: conf.num_queues,
        forwarding: conf.allow_ip_forwarding,
        addresses,
        floating: pod.floating_ips,
        gate: conf.feature_control.floating_ips,
        priority: pod.priority,
        exclusive: pod.exclusive_move,
        drain: pod.drain,
        source_prefixes: pod.allowed_source_prefixes,
        labels: labels(&who, &conf),
        workload: who.workload,
        uid: who.uid,
        netns,
    };
    let attachment = Attachment {
        id,
        endpoint,
        request,
        order: 0,
        since: now,
        phase: Phase::Adding,
        addresses: None,
    };
    Ok(Parsed { conf, attachment })
}

/// The pod that an ADD is for, however the rest of it reads.
pub(crate) fn pod_of(add: &AddRequest) -> Option<Workload> {
    let args = CniArgs::parse(&add.args).ok()?;
    let (namespace, name) = args.pod()?;
    Some(Workload {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: args.pod_uid.clone()?,
        is_pod: true,
    })
}

/// A DEL: which attachment, and what tells what it may have left in the datastore.
#[derive(Clone, Debug)]
pub(crate) struct Removal {
    container: String,
    ifname: String,
    args: String,
    config: Value,
    link: bool,
}

impl From<Revenant> for Removal {
    fn from(revenant: Revenant) -> Self {
        let pod = revenant.pod.map(|(namespace, name)| {
            format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}")
        });
        Self {
            container: revenant.container,
            ifname: revenant.ifname,
            args: pod.unwrap_or_default(),
            config: json!({"cniVersion": "1.0.0", "name": revenant.network, "type": "calico"}),
            link: true,
        }
    }
}

impl Removal {
    /// Of a whole attachment, or of addresses alone where another plugin made the link.
    pub(crate) fn new(del: PluginRequest, link: bool) -> Self {
        Self {
            container: del.container_id,
            ifname: del.ifname,
            args: del.args,
            config: del.config,
            link,
        }
    }

    /// Which attachment.
    pub(crate) fn id(&self) -> AttachmentId {
        AttachmentId {
            container: self.container.clone(),
            ifname: self.ifname.clone(),
        }
    }

    /// The attachment as far as the DEL describes it, with nothing left but its records.
    pub(crate) fn attachment(&self, node: &str, now: Timestamp) -> Result<Attachment, CniError> {
        let conf = NetConf::from_value(self.config.clone())?;
        let who = Who::of(&self.container, &conf, &CniArgs::parse(&self.args)?);
        let endpoint = endpoint_id(&who, node, &self.ifname)?;
        let id = self.id();
        let request = Request {
            link: self.link,
            host_ifname: IfName(link_name(&who, &id)),
            mac: None,
            mtu: None,
            queues: conf.num_queues,
            forwarding: false,
            addresses: AddressRequest::Specific(Vec::new()),
            floating: Vec::new(),
            gate: false,
            priority: 0,
            exclusive: false,
            drain: Duration::ZERO,
            source_prefixes: Vec::new(),
            labels: BTreeMap::new(),
            orchestrator: who.orchestrator.as_str().to_owned(),
            network: conf.name,
            workload: who.workload,
            uid: who.uid,
            netns: Netns {
                path: String::new(),
                device: 0,
                inode: 0,
            },
        };
        Ok(Attachment {
            id,
            endpoint,
            request,
            order: 0,
            since: now,
            phase: Phase::Down,
            addresses: None,
        })
    }
}

fn endpoint_id(who: &Who, node: &str, ifname: &str) -> Result<EndpointId, CniError> {
    let name = EndpointName::new(node, who.orchestrator, &who.workload, ifname)
        .map_err(|e| CniError::new(ErrorCode::INVALID_ENVIRONMENT, e.to_string()))?;
    Ok(EndpointId {
        namespace: who.namespace.clone(),
        name: name.to_string(),
    })
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn rest(text: &str) -> String {
    text.lines().skip(1).collect::<Vec<_>>().join("\n")
}

/// Whose interface it is.
struct Who {
    orchestrator: Orchestrator,
    namespace: String,
    workload: String,
    uid: String,
}

impl Who {
    fn of(container: &str, conf: &NetConf, args: &CniArgs) -> Self {
        let uid = args.pod_uid.clone().unwrap_or_else(|| container.to_owned());
        match args.pod() {
            Some((namespace, pod)) => Self {
                orchestrator: Orchestrator::K8s,
                namespace: namespace.to_owned(),
                workload: pod.to_owned(),
                uid,
            },
            None => Self {
                orchestrator: Orchestrator::Cni,
                namespace: args
                    .namespace()
                    .or(conf.buoy.namespace.as_deref())
                    .unwrap_or("default")
                    .to_owned(),
                workload: container.to_owned(),
                uid,
            },
        }
    }
}

/// Calico's name for the link of a workload's first interface; further ones are told apart by a hash.
fn link_name(who: &Who, id: &AttachmentId) -> String {
    match who.orchestrator {
        _ if id.ifname != PRIMARY => names::pod_link(&id.container, &id.ifname),
        Orchestrator::K8s => names::pod_link(&who.namespace, &who.workload),
        Orchestrator::Cni => names::container_link(&id.container),
    }
}

/// The MAC address asked for, or one that follows from the attachment, so that a repeated request gets the same answer.
fn mac(conf: &NetConf, args: &CniArgs, pod: &PodRequest, id: &AttachmentId) -> [u8; 6] {
    let asked = pod
        .hw_addr
        .or(conf.runtime.mac.map(|m| m.0))
        .or(conf.args.mac.map(|m| m.0))
        .or(args.mac.map(|m| m.0));
    asked.unwrap_or_else(|| names::workload_mac(&id.container, &id.ifname))
}

fn labels(who: &Who, conf: &NetConf) -> BTreeMap<String, String> {
    let own = [
        ("projectcalico.org/namespace", who.namespace.clone()),
        (
            "projectcalico.org/orchestrator",
            who.orchestrator.as_str().to_owned(),
        ),
    ];
    conf.args
        .labels
        .clone()
        .into_iter()
        .chain(own.map(|(key, value)| (key.to_owned(), value)))
        .collect()
}

/// Where the workload's own addresses come from. What says most about this workload wins: its annotations, then the
/// runtime's capabilities, then arguments.
fn addresses(
    add: &AddRequest,
    conf: &NetConf,
    args: &CniArgs,
    pod: &PodRequest,
) -> Result<AddressRequest, CniError> {
    if let Some(chosen) = &pod.ip_addrs_no_ipam {
        if !conf.feature_control.ip_addrs_no_ipam {
            return Err(
                CniError::generic("requested feature is not enabled: ip_addrs_no_ipam").with_hint(
                    "set \"feature_control\": {\"ip_addrs_no_ipam\": true} in the network configuration",
                ),
            );
        }
        return Ok(AddressRequest::Given(chosen.clone()));
    }
    if let Some(delegated) = &add.delegated {
        if pod.ip_addrs.is_some() {
            let kind = conf.third_party_ipam().unwrap_or("another plugin");
            return Err(CniError::generic(format!(
                "ipAddrs is not compatible with configured IPAM: {kind}"
            )));
        }
        let result = CniResult::parse(delegated)?;
        return Ok(AddressRequest::Given(
            result.ips.iter().map(|ip| ip.address.addr()).collect(),
        ));
    }
    let asked = [
        pod.ip_addrs.as_deref().unwrap_or_default(),
        &conf.runtime.ips,
        &conf.args.ips,
        &args.ips,
    ];
    if let Some(asked) = asked.into_iter().find(|asked| !asked.is_empty()) {
        return specific(asked);
    }
    automatic(conf, pod)
}

fn specific(asked: &[IpAddr]) -> Result<AddressRequest, CniError> {
    for family in Family::ALL {
        if asked
            .iter()
            .filter(|address| Family::of(**address) == family)
            .count()
            > 1
        {
            return Err(
                CniError::generic(format!("cannot have more than one {family} address"))
                    .with_hint(format!("ask for one {family} address")),
            );
        }
    }
    Ok(AddressRequest::Specific(asked.to_vec()))
}

fn automatic(conf: &NetConf, pod: &PodRequest) -> Result<AddressRequest, CniError> {
    let wanted = |family: Family, configured: bool| match &pod.ip_families {
        Some(families) => families.contains(&family),
        None => configured,
    };
    let mut families = Vec::new();
    if wanted(Family::V4, conf.ipam.assign_v4) {
        families.push(WireFamily::V4);
    }
    if wanted(Family::V6, conf.ipam.assign_v6) {
        families.push(WireFamily::V6);
    }
    if families.is_empty() {
        return Err(
            CniError::new(ErrorCode::INVALID_CONFIG, "no address is asked for")
                .with_hint("set assign_ipv4 or assign_ipv6 to \"true\" in ipam of the network configuration"),
        );
    }
    Ok(AddressRequest::Automatic {
        families,
        ipv4_pools: pod
            .ipv4_pools
            .clone()
            .unwrap_or_else(|| conf.ipam.v4_pools.clone()),
        ipv6_pools: pod
            .ipv6_pools
            .clone()
            .unwrap_or_else(|| conf.ipam.v6_pools.clone()),
    })
}

/// A floating IP needs an address of its family to be translated to.
fn check_families(pod: &PodRequest, addresses: &AddressRequest) -> Result<(), CniError> {
    let has = |family: Family| match addresses {
        AddressRequest::Automatic { families, .. } => families.iter().any(|f| Family::from(*f) == family),
        AddressRequest::Specific(own) | AddressRequest::Given(own) => {
            own.iter().any(|a| Family::of(*a) == family)
        }
    };
    match pod.floating_ips.iter().find(|floating| !has(floating.family())) {
        Some(floating) => Err(CniError::generic(format!(
            "floating IP {floating} needs an {} address, and the workload has none",
            floating.family()
        ))
        .with_hint("ask for an address of that family, or for a floating IP of the other")),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "request_records_tests.rs"]
mod record_tests;
