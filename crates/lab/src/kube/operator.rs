//! Buoy on a cluster as an operator installs it: from the image, by `deploy/`, as the guide says.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Cluster;
use crate::binaries::Binaries;
use crate::exec::{self, PATIENCE};
use crate::image;

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
        let edited = text.replacen(
            "\"policy\":",
            "\"feature_control\": {\"floating_ips\": true}, \"policy\":",
            1,
        );
        config["data"]["cni_network_config"] = json!(edited);
        self.apply(&config.to_string())?;
        self.restart_agents()
    }

    /// Replaces the agents' pods one after the other, and waits for the last.
    pub fn restart_agents(&self) -> Result<()> {
        self.kubectl("-n buoy-system rollout restart daemonset buoy-agent")?;
        self.rolled_out("daemonset/buoy-agent")
    }
}

/// The chart with `uninstall=true`, as Helm renders it.
pub fn uninstallation() -> Result<String> {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts");
    let built = exec::run(&mut Command::new(scripts.join("helm-binary")), "", PATIENCE * 10)?.ok()?;
    let mut helm = Command::new(built.stdout.trim());
    helm.arg(deploy("helm/buoy"))
        .args(["buoy", "default", "uninstall=true"]);
    Ok(exec::run(&mut helm, "", PATIENCE)?.ok()?.stdout)
}

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy")
        .join(name)
}
