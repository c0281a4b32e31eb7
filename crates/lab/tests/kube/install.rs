//! Buoy on a real Kubernetes as an operator installs it and takes it away: from the image, by the manifests of `deploy` and
//! by its chart, as the guide says.

use std::fs;

use anyhow::{Context, Result, ensure};
use buoy_lab::ask::answered_by;
use buoy_lab::cluster::{PEERS, Standing};
use buoy_lab::kube::{Cluster, Cni, Manifest, Node, Options};
use buoy_lab::lab::POOLS;
use buoy_lab::probe::Via;

use crate::clean::State;

const FLOATING: &str = "172.16.1.10";

/// Nobody enforces it.
const POLICY: &str = r#"{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
    "metadata": {"name": "deny-all", "namespace": "default"}, "spec": {"podSelector": {}}}"#;

#[test]
fn an_operator_installs_it_and_takes_it_away() {
    let options = Options {
        nodes: 1,
        cni: Cni::None,
        ..Options::default()
    };
    Cluster::start(&options).unwrap().test(|cluster| {
        let node = cluster.node("n1")?;
        cluster.import_server()?;
        cluster.import_buoy()?;
        let bare = State::of(node)?;
        by_manifest(cluster).context("by the manifest")?;
        bare.is_back(node).context("by the manifest")?;

        somebody_else_was_here(node)?;
        let theirs = State::of(node)?;
        by_chart(cluster).context("by the chart")?;
        theirs.is_back(node).context("by the chart")
    });
}

fn by_manifest(cluster: &Cluster) -> Result<()> {
    cluster.define_records()?;
    cluster.apply(POLICY)?;
    cluster.apply_manifest()?;
    refused(cluster)?;
    cluster.kubectl("delete networkpolicy deny-all")?;
    cluster.wait_for_nodes()?;
    installed(cluster)?;
    for records in [POOLS, PEERS] {
        cluster.apply_records(records)?;
    }
    served_once_switched_on(cluster, || cluster.switch_floating_ips_on())?;

    cluster.kubectl("-n buoy-system delete daemonset buoy-agent")?;
    cluster.apply_uninstallation()?;
    cluster.rolled_out("daemonset/buoy-uninstall")?;
    checked_clean(cluster)?;
    cluster.delete_manifests()
}

fn by_chart(cluster: &Cluster) -> Result<()> {
    cluster.kubectl("create namespace buoy-system")?;
    cluster.kubectl("label namespace buoy-system pod-security.kubernetes.io/enforce=privileged")?;
    cluster.helm("install", "")?;
    installed(cluster)?;
    served_once_switched_on(cluster, || {
        cluster.helm("upgrade", "--reuse-values --set floatingIPs=true")?;
        cluster.rolled_out("daemonset/buoy-agent")
    })?;

    cluster.helm("upgrade", "--reuse-values --set uninstall=true")?;
    cluster.rolled_out("daemonset/buoy-uninstall")?;
    checked_clean(cluster)?;
    cluster.helm("uninstall", "")?;
    cluster.until("nothing of the release is left", |_| {
        let left = cluster.kubectl("-n buoy-system get all -o name")?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })?;
    cluster.kubectl("delete namespace buoy-system").map(drop)
}

fn installed(cluster: &Cluster) -> Result<()> {
    cluster.rolled_out("daemonset/buoy-agent")?;
    cluster.rolled_out("deployment/buoy-controller")
}

/// The independent checker finds nothing of Buoy on the node.
fn checked_clean(cluster: &Cluster) -> Result<()> {
    let node = cluster.node("n1")?;
    node.now(Standing::Clean);
    cluster.check()?;
    node.now(Standing::Live);
    Ok(())
}

/// A pod is refused its floating IP, as by default, until it is switched on; then it is served.
fn served_once_switched_on(cluster: &Cluster, switch: impl FnOnce() -> Result<()>) -> Result<()> {
    let web = Manifest::new("default", "web-0").floating(&[FLOATING]);
    cluster.apply(&web.pod().to_string())?;
    cluster.wait_for_event("default", "web-0", "feature is not enabled: floating_ips")?;
    switch()?;
    let pod = cluster.wait_for_pod("default", "web-0")?;
    answered_by(&cluster.client, Via::Tcp, FLOATING, "web-0")?;
    cluster.check()?;
    cluster.kubectl("delete pod web-0 --now")?;
    cluster.wait_until_gone(&pod)?;
    cluster.kubectl("delete events --all").map(drop)
}

/// What another installation left under the names that Buoy has too.
fn somebody_else_was_here(node: &Node) -> Result<()> {
    let list = r#"{"name": "theirs", "cniVersion": "1.0.0", "plugins": [{"type": "calico"}]}"#;
    fs::write(node.configuration().join("10-calico.conflist"), list)?;
    for plugin in ["calico", "calico-ipam"] {
        fs::write(node.plugins().join(plugin), "#!/bin/sh\nexit 1\n")?;
    }
    Ok(())
}

/// The agent does not begin, and its pod says why.
fn refused(cluster: &Cluster) -> Result<()> {
    cluster.until("the agent's pod says why it does not begin", |api| {
        let pods = api.list("/api/v1/namespaces/buoy-system/pods")?;
        let states = pods.iter().flat_map(|pod| {
            pod["status"]["initContainerStatuses"]
                .as_array()
                .into_iter()
                .flatten()
        });
        let text: String = states.map(|state| format!("{state}\n")).collect();
        for part in [
            "Buoy enforces no network policies",
            "default/deny-all",
            "accept-none",
        ] {
            ensure!(text.contains(part), "{text}");
        }
        Ok(())
    })
}
