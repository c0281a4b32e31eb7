//! Containers as the DaemonSet in `deploy/buoy.yaml` describes them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use buoy_lab::runtime::{Confined, Mount};
use serde_json::Value as Json;

const MANIFEST: &str = include_str!("../../../../../deploy/buoy.yaml");

/// The manifest's objects.
pub(crate) struct DaemonSet {
    objects: Vec<Json>,
}

impl DaemonSet {
    pub(crate) fn read() -> Result<Self> {
        let documents = MANIFEST.split("\n---\n").skip(1);
        let objects = documents.map(serde_saphyr::from_str).collect::<Result<_, _>>()?;
        Ok(Self { objects })
    }

    /// The keys of the ConfigMap `calico-config`.
    pub(crate) fn calico_config(&self) -> Result<BTreeMap<String, String>> {
        Ok(serde_json::from_value(
            self.object("ConfigMap", "calico-config")?["data"].clone(),
        )?)
    }

    /// A container and its command. What Buoy keeps is below a directory.
    pub(crate) fn container(&self, name: &str, directory: &Path) -> Result<(Confined, Vec<&str>)> {
        let pod = &self.object("DaemonSet", "buoy-agent")?["spec"]["template"]["spec"];
        let container = list(pod, "initContainers")
            .chain(list(pod, "containers"))
            .find(|container| container["name"] == name)
            .with_context(|| format!("no container {name}"))?;
        let added = list(&container["securityContext"]["capabilities"], "add");
        let mounts = list(container, "volumeMounts").map(|mount| {
            let volume = list(pod, "volumes")
                .find(|volume| volume["name"] == mount["name"])
                .context("a mount without its volume")?;
            mount_of(mount, volume, directory)
        });
        let words = list(container, "command").filter_map(Json::as_str);
        let confined = Confined {
            capabilities: added
                .filter_map(|name| name.as_str().map(str::to_owned))
                .collect(),
            mounts: mounts.collect::<Result<_>>()?,
            variables: list(container, "env").filter_map(variable).collect(),
        };
        Ok((confined, words.collect()))
    }

    fn object(&self, kind: &str, name: &str) -> Result<&Json> {
        let mut objects = self.objects.iter();
        objects
            .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
            .with_context(|| format!("no {kind} {name}"))
    }
}

fn list<'a>(of: &'a Json, field: &str) -> impl Iterator<Item = &'a Json> {
    of[field].as_array().into_iter().flatten()
}

fn mount_of(mount: &Json, volume: &Json, directory: &Path) -> Result<Mount> {
    let below = |name: &str| directory.join(name).display().to_string();
    let source = match (volume["hostPath"]["path"].as_str(), volume["name"].as_str()) {
        // Where this process sees it, too.
        (Some("/var/lib/buoy"), _) => below("state"),
        (Some(path), _) => path.to_owned(),
        (None, Some("calico-config")) => below("calico-config"),
        other => bail!("an unknown volume: {other:?}"),
    };
    let options = match (mount["readOnly"] == true, mount["mountPropagation"].as_str()) {
        (true, Some("HostToContainer")) => "rslave:ro",
        (false, Some("HostToContainer")) => "rslave:rw",
        (true, _) => "rprivate:ro",
        (false, _) => "rprivate:rw",
    };
    Ok(Mount {
        source,
        target: mount["mountPath"]
            .as_str()
            .context("a mount without a path")?
            .to_owned(),
        options,
    })
}

/// The store is the embedded one here.
fn variable(variable: &Json) -> Option<(String, String)> {
    let name = variable["name"]
        .as_str()
        .filter(|name| *name != "BUOY_DATASTORE")?;
    let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
        Some(_) => "n1",
        None => variable["value"].as_str()?,
    };
    Some((name.to_owned(), value.to_owned()))
}
