//! Buoy on a cluster as an operator installs it: from the image, by `deploy/`, as the guide says.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Cluster, SOON};
use crate::binaries::Binaries;
use crate::exec::{self, PATIENCE};
use crate::image;

/// The namespace of agents and controllers.
pub(super) const NAMESPACE: &str = "buoy-system";

impl Cluster {
    /// Builds Buoy's image from the programs of this build, and gives it to all nodes.
    pub fn import_buoy(&self) -> Result<()> {
        self.import(&image::build(&self.run().base().join("image"), "true")?.archive)
    }

    /// Applies the definitions of records, Calico's and Buoy's. Returns the command, for people.
    pub fn define_records(&self) -> Result<&'static str> {
        self.kubectl(&format!("create -f {}", deploy("crds").display()))?;
        self.kubectl("wait --for=condition=Established crd --all")?;
        Ok("kubectl create -f deploy/crds")
    }

    /// Applies the manifest, and does not wait. Returns the command, for people.
    pub fn apply_manifest(&self) -> Result<&'static str> {
        self.kubectl(&format!("apply -f {}", deploy("buoy.yaml").display()))?;
        Ok("kubectl apply -f deploy/buoy.yaml")
    }

    /// Applies what takes Buoy off the nodes, and does not wait. The agents are gone before.
    pub fn apply_uninstallation(&self) -> Result<()> {
        let file = deploy("uninstall.yaml");
        self.kubectl(&format!("apply -f {}", file.display())).map(drop)
    }

    /// Deletes what both manifests made, and waits for it.
    pub fn delete_manifests(&self) -> Result<()> {
        let [installation, uninstallation] = ["buoy.yaml", "uninstall.yaml"].map(deploy);
        let files = format!("-f {} -f {}", uninstallation.display(), installation.display());
        self.kubectl(&format!("delete --ignore-not-found {files}"))
            .map(drop)
    }

    /// Runs Helm for the release `buoy` of the chart in `buoy-system`, as the administrator. Returns what it printed.
    /// Error: it fails.
    pub fn helm(&self, verb: &str, flags: &str) -> Result<String> {
        let mut command = self.control.netns().command(buoy_kubeserver::helm()?);
        command
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.run().base())
            .args([verb, "buoy", "--namespace", NAMESPACE])
            .args(flags.split_whitespace());
        if verb != "uninstall" {
            command.arg(deploy("helm/buoy"));
        }
        Ok(exec::run(&mut command, "", SOON)?.ok()?.stdout)
    }

    /// Waits until all pods of a workload of `buoy-system` are new and ready.
    pub fn rolled_out(&self, what: &str) -> Result<()> {
        self.kubectl(&format!("-n buoy-system rollout status {what} --timeout=100s"))
            .map(drop)
            .with_context(|| self.kubectl("-n buoy-system describe pods").unwrap_or_default())
    }

    /// Gives records of `projectcalico.org/v3` to `buoyctl apply`.
    pub fn apply_records(&self, records: &str) -> Result<()> {
        let mut command = self.control.netns().command(Binaries::find()?.ctl);
        command
            .env("KUBECONFIG", self.kubeconfig())
            .args(["--datastore", "kubernetes:", "apply", "-f", "-"]);
        exec::run(&mut command, records, PATIENCE)?.ok().map(drop)
    }

    /// Edits the ConfigMap as Calico's guide does, and restarts the DaemonSet.
    pub fn switch_floating_ips_on(&self) -> Result<()> {
        let found = self.kubectl("-n kube-system get configmap calico-config -o json")?;
        let mut config: Value = serde_json::from_str(&found)?;
        let text = config["data"]["cni_network_config"]
            .as_str()
            .context("no network configuration")?;
        config["data"]["cni_network_config"] = json!(with_floating_ips(text)?);
        self.apply(&config.to_string())?;
        self.restart_agents()
    }

    /// Replaces the agents' pods one after the other, and waits for the last.
    pub fn restart_agents(&self) -> Result<()> {
        self.kubectl("-n buoy-system rollout restart daemonset buoy-agent")?;
        self.rolled_out("daemonset/buoy-agent")
    }
}

/// A network configuration with floating IPs switched on, where Calico's guide has people write it.
pub fn with_floating_ips(configuration: &str) -> Result<String> {
    let place = "\"policy\":";
    ensure!(
        configuration.contains(place),
        "no place for the switch: {configuration}"
    );
    let switch = "\"feature_control\": {\"floating_ips\": true}, ";
    Ok(configuration.replacen(place, &format!("{switch}{place}"), 1))
}

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy")
        .join(name)
}
