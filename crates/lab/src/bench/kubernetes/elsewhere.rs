//! Agents beside a crowd of pods that are none of theirs.

use std::thread;

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

use super::super::machine;
use super::super::report::{Report, Row};
use crate::api::Api;
use crate::kube::{Buoy, Cluster};

/// The Kubernetes namespace of the crowd.
const NAMESPACE: &str = "elsewhere";

/// Who makes them at once.
const HANDS: usize = 4;

/// Resident memory of agents that start with no pods of other nodes, and with so many. The crowd goes with the cluster.
pub(super) fn measure(cluster: &Cluster, buoy: &Buoy<'_>, others: usize, report: &mut Report) -> Result<()> {
    let alone = Row::costs("kube-agent-memory/0", "MiB", &started(cluster, buoy)?);
    cluster.namespace(NAMESPACE)?;
    // Nobody shall collect pods whose node is not there.
    cluster.control.controllers.kill();
    make(cluster, others)?;
    let beside = format!("kube-agent-memory/{others}");
    let beside = Row::costs(beside, "MiB", &started(cluster, buoy)?).against(&alone);
    report.add(alone);
    report.add(beside);
    Ok(())
}

/// Starts all agents anew; how much memory each has when it has come to rest, in MiB.
fn started(cluster: &Cluster, buoy: &Buoy<'_>) -> Result<Vec<f64>> {
    for node in cluster.nodes() {
        buoy.agent(node.name())?.start()?;
    }
    let mut memory = Vec::new();
    for node in cluster.nodes() {
        cluster.until("the agent is ready", |_| node.agent_api().text("/readyz"))?;
        let pid = buoy.agent(node.name())?.pid()?;
        machine::rest(pid)?;
        memory.push(crate::exec::memory(pid, "VmRSS")? as f64 / 1024.0);
    }
    buoy.wait_for_sessions()?;
    Ok(memory)
}

/// Pods with addresses and requests, as if they ran on nodes that nobody sees.
fn make(cluster: &Cluster, count: usize) -> Result<()> {
    let api = &cluster.api();
    thread::scope(|scope| {
        let making: Vec<_> = (0..HANDS)
            .map(|first| scope.spawn(move || make_some(api, (first..count).step_by(HANDS))))
            .collect();
        making
            .into_iter()
            .try_for_each(|hand| hand.join().map_err(|_| anyhow!("who makes pods panicked"))?)
    })
}

fn make_some(api: &Api, numbers: impl Iterator<Item = usize>) -> Result<()> {
    for number in numbers {
        api.create(&format!("/api/v1/namespaces/{NAMESPACE}/pods"), &pod(number))?;
    }
    Ok(())
}

fn pod(number: usize) -> Value {
    let own = format!("10.99.{}.{}/32", number / 256, number % 256);
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": format!("p-{number}"),
            "annotations": {
                "cni.projectcalico.org/containerID": format!("{number:064x}"),
                "cni.projectcalico.org/podIP": own,
                "cni.projectcalico.org/podIPs": own,
            },
        },
        "spec": {
            "nodeName": format!("elsewhere-{}", number % 100),
            "containers": [{"name": "idle", "image": "none"}],
        },
    })
}
