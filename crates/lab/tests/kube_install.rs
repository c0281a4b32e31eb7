//! Buoy on a real Kubernetes as an operator installs it: from the image, by `deploy/buoy.yaml`, as the guide says.

use std::fs;

use anyhow::{Result, ensure};
use buoy_lab::ask::answered_by;
use buoy_lab::cluster::{PEERS, Standing};
use buoy_lab::kube::{Cluster, Cni, Manifest, Options, operator};
use buoy_lab::lab::POOLS;
use buoy_lab::probe::Via;

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
        let before = of_node(cluster)?;
        cluster.import_server()?;
        cluster.import_buoy()?;
        cluster.define_records()?;
        cluster.apply(POLICY)?;
        cluster.apply_manifest()?;
        refused(cluster)?;
        cluster.kubectl("delete networkpolicy deny-all")?;
        cluster.wait_for_nodes()?;
        cluster.rolled_out("daemonset/buoy-agent")?;
        cluster.rolled_out("deployment/buoy-controller")?;
        for records in [POOLS, PEERS] {
            cluster.apply_records(records)?;
        }

        // Off by default; then as Calico's guide has it.
        let web = Manifest::new("default", "web-0").floating(&[FLOATING]);
        cluster.apply(&web.pod().to_string())?;
        cluster.wait_for_event("default", "web-0", "feature is not enabled: floating_ips")?;
        cluster.switch_floating_ips_on()?;
        let pod = cluster.wait_for_pod("default", "web-0")?;
        answered_by(&cluster.client, Via::Tcp, FLOATING, "web-0")?;
        cluster.check()?;

        cluster.kubectl("delete pod web-0 --now")?;
        cluster.wait_until_gone(&pod)?;
        cluster.kubectl("-n buoy-system delete daemonset buoy-agent")?;
        cluster.apply(&operator::uninstallation()?)?;
        cluster.rolled_out("daemonset/buoy-uninstall")?;
        ensure!(of_node(cluster)? == before, "{:?}", of_node(cluster)?);
        cluster.node("n1")?.now(Standing::Clean);
        cluster.check()
    });
}

/// Plugins and configuration of the node.
fn of_node(cluster: &Cluster) -> Result<Vec<String>> {
    let node = cluster.node("n1")?;
    let mut names = Vec::new();
    for directory in [node.plugins(), node.configuration()] {
        for entry in fs::read_dir(directory)? {
            names.push(entry?.path().display().to_string());
        }
    }
    names.sort();
    Ok(names)
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
