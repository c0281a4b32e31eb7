//! Buoy on a real Kubernetes as an operator installs it: from the image, by `deploy/buoy.yaml`, as the guide says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use buoy_lab::ask::answered_by;
use buoy_lab::binaries::Binaries;
use buoy_lab::cluster::PEERS;
use buoy_lab::exec::{self, PATIENCE};
use buoy_lab::image;
use buoy_lab::kube::{Cluster, Cni, Manifest, Options};
use buoy_lab::lab::POOLS;
use buoy_lab::probe::Via;
use serde_json::{Value, json};

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
        cluster.import(&image::build(&cluster.run().base().join("image"), "true")?.archive)?;
        cluster.import_server()?;
        cluster.kubectl(&format!("create -f {}", deploy("crds").display()))?;
        cluster.kubectl("wait --for=condition=Established crd --all")?;
        cluster.apply(POLICY)?;
        cluster.kubectl(&format!("apply -f {}", deploy("buoy.yaml").display()))?;
        refused(cluster)?;
        cluster.kubectl("delete networkpolicy deny-all")?;
        cluster.wait_for_nodes()?;
        rolled_out(cluster, "daemonset/buoy-agent")?;
        rolled_out(cluster, "deployment/buoy-controller")?;
        for records in [POOLS, PEERS] {
            apply_records(cluster, records)?;
        }

        // Off by default; then as Calico's guide has it.
        let web = Manifest::new("default", "web-0").floating(&[FLOATING]);
        cluster.apply(&web.pod().to_string())?;
        cluster.wait_for_event("default", "web-0", "feature is not enabled: floating_ips")?;
        switch_on(cluster)?;
        let pod = cluster.wait_for_pod("default", "web-0")?;
        answered_by(&cluster.client, Via::Tcp, FLOATING, "web-0")?;

        cluster.kubectl("delete pod web-0 --now")?;
        cluster.wait_until_gone(&pod)?;
        cluster.kubectl("-n buoy-system delete daemonset buoy-agent")?;
        cluster.apply(&uninstallation()?)?;
        rolled_out(cluster, "daemonset/buoy-uninstall")?;
        ensure!(of_node(cluster)? == before, "{:?}", of_node(cluster)?);
        Ok(())
    });
}

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy")
        .join(name)
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

fn rolled_out(cluster: &Cluster, what: &str) -> Result<()> {
    cluster
        .kubectl(&format!("-n buoy-system rollout status {what} --timeout=100s"))
        .map(drop)
        .with_context(|| {
            cluster
                .kubectl("-n buoy-system describe pods")
                .unwrap_or_default()
        })
}

fn apply_records(cluster: &Cluster, records: &str) -> Result<()> {
    let mut command = cluster.control.netns().command(Binaries::find()?.ctl);
    command
        .env("KUBECONFIG", cluster.kubeconfig())
        .args(["--datastore", "kubernetes:", "apply", "-f", "-"]);
    exec::run(&mut command, records, PATIENCE)?.ok()?;
    Ok(())
}

/// Edits the ConfigMap, and restarts the DaemonSet.
fn switch_on(cluster: &Cluster) -> Result<()> {
    let found = cluster.kubectl("-n kube-system get configmap calico-config -o json")?;
    let mut config: Value = serde_json::from_str(&found)?;
    let text = config["data"]["cni_network_config"]
        .as_str()
        .context("no network configuration")?;
    let edited = text.replacen(
        "\"policy\":",
        "\"feature_control\": {\"floating_ips\": true}, \"policy\":",
        1,
    );
    config["data"]["cni_network_config"] = json!(edited);
    cluster.apply(&config.to_string())?;
    cluster.kubectl("-n buoy-system rollout restart daemonset buoy-agent")?;
    rolled_out(cluster, "daemonset/buoy-agent")
}

/// The chart with `uninstall=true`.
fn uninstallation() -> Result<String> {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts");
    let built = exec::run(&mut Command::new(scripts.join("helm-binary")), "", PATIENCE * 10)?.ok()?;
    let mut helm = Command::new(built.stdout.trim());
    helm.arg(deploy("helm/buoy"))
        .args(["buoy", "default", "uninstall=true"]);
    Ok(exec::run(&mut helm, "", PATIENCE)?.ok()?.stdout)
}
