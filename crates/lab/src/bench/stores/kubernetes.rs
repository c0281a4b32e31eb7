//! An API server with an etcd behind it, on a host of its own, and a node beside it. Nobody runs the pods: a runtime's call is
//! what is measured, and not what a kubelet makes of it.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use buoy_kubeserver::{ADMIN, ApiServer};
use serde_json::json;

use super::{Ground, Scale, agent};
use crate::bench::bed;
use crate::bench::family::Family;
use crate::bench::report::Report;
use crate::lab::NODE;
use crate::netns::Netns;
use crate::node::Node;
use crate::run::Run;
use crate::store::Store;

/// Any number of requests: it is the server that is measured.
const UNLIMITED: &str = "?qps=0";
/// Where the API server listens, in a network that leads to nobody else.
const SERVER: &str = "198.51.100.1";
/// The addresses of host and node on their link.
const LINK: [&str; 2] = ["192.0.2.2/24", "192.0.2.1/24"];

pub(super) fn measure(scale: Scale, report: &mut Report) -> Result<()> {
    let run = Run::begin()?;
    let host = Netns::make(&run, "api")?;
    host.ip("link set lo up")?;
    host.add_address("lo", format!("{SERVER}/32").parse()?)?;
    // What is begun there stays there: the server, and its clients.
    let measured = host.enter(|| on_host(&host, scale, report));
    measured.inspect_err(|_| run.keep_directory())
}

fn on_host(host: &Netns, scale: Scale, report: &mut Report) -> Result<()> {
    let server = Arc::new(ApiServer::start(SERVER.parse::<IpAddr>()?)?);
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    server.create(&[&deploy.join("crds"), &deploy.join("rbac.yaml")])?;
    let url = format!("kubernetes:{}{UNLIMITED}", server.kubeconfig(ADMIN).display());
    let (shared, announcer) = (url.clone(), Arc::clone(&server));
    let ground = Ground {
        name: "kubernetes".to_owned(),
        scale,
        store: buoy_datastore::open(&url)?,
        processes: server.pids(),
        opens: Box::new(move || Ok(buoy_datastore::open(&shared)?)),
        announces: Box::new(move |names| announcer.kubectl(&["create", "-f", "-"], &pods(names)).map(drop)),
    };
    ground.measure(report)?;
    let node = node(host, &server, url)?;
    agent::adds(&ground, &node, None, report)?;
    agent::starts(&ground, &node, report)?;
    node.stop_agent()
}

/// A node beside the host, with its agent and pools.
fn node(host: &Netns, server: &ApiServer, url: String) -> Result<Node> {
    let objects = [
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": bed::NAMESPACE}}),
    ];
    server.kubectl(&["create", "-f", "-"], &list(&objects))?;
    let node = Node::make(host.run(), NODE, &Store::Elsewhere(url))?;
    host.link("eth0", node.netns(), "eth0")?;
    for (netns, address) in [host, node.netns()].into_iter().zip(LINK) {
        netns.add_address("eth0", address.parse()?)?;
        netns.wait_for_addresses()?;
    }
    let [via, _] = LINK.map(|address| address.parse::<ipnet::IpNet>().map(|net| net.addr()));
    node.netns().add_route(format!("{SERVER}/32").parse()?, via?)?;
    node.start_agent()?;
    node.apply(&bed::pools(Family::V4))?;
    Ok(node)
}

/// Pods as they are before a kubelet has seen them.
fn pods(names: &[String]) -> String {
    let pods = names.iter().map(|name| {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": bed::NAMESPACE},
            "spec": {"nodeName": NODE, "containers": [{"name": "idle", "image": "none"}]},
        })
    });
    list(&pods.collect::<Vec<_>>())
}

fn list(objects: &[serde_json::Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()
}
