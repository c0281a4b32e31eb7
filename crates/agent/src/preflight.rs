//! What is asked of a cluster before Buoy begins on a node of it.
//!
//! Buoy enforces no network policy. Where somebody counts on policies, it does not begin unless the operator names who else
//! enforces them, or accepts that nobody does. A node that it has served before is not taken from its pods: there it warns.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use buoy_datastore::kubernetes::{Kubernetes, Options, Policies};
use clap::Args;
use tracing::{info, warn};

use crate::identity;
use crate::settings::Settings;

/// Where Calico's guides have it.
const NAMESPACE: &str = "kube-system";
const CONFIG_MAP: &str = "calico-config";
/// What plugins are installed by.
const NETWORK_CONFIG: &str = "cni_network_config";

/// What is looked at.
#[derive(Args, Clone, Debug)]
pub struct Preflight {
    /// Who enforces network policies: enforced-by:NAME, or accept-none; without it Buoy does not begin while there are any
    #[arg(long, env = "BUOY_NETWORK_POLICY", default_value = "")]
    network_policy: String,
    /// Directory that gets a file for each key of the ConfigMap calico-config in kube-system
    #[arg(long)]
    calico_config: Option<PathBuf>,
}

/// What the operator says of network policies.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stance {
    Silent,
    EnforcedBy(String),
    AcceptNone,
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Fine(String),
    Warning(String),
    Refusal(String),
}

/// Looks at the cluster. Error: Buoy must not begin here; with what to do.
pub fn preflight(settings: &Settings, asked: &Preflight) -> Result<()> {
    let stance = Stance::parse(&asked.network_policy)?;
    let cluster = open(settings)?;
    match verdict(
        &cluster.policies()?,
        &stance,
        identity::is_made(&settings.state_dir),
    ) {
        Verdict::Fine(text) => info!("{text}"),
        Verdict::Warning(text) => warn!("{text}"),
        Verdict::Refusal(text) => bail!(text),
    }
    match &asked.calico_config {
        Some(directory) => copy_config(&cluster, directory),
        None => Ok(()),
    }
}

/// The cluster that this pod is of, wherever records are.
fn open(settings: &Settings) -> Result<Kubernetes> {
    let url = Some(settings.datastore.as_str()).filter(|url| url.starts_with("kubernetes:"));
    let env = |name: &str| std::env::var(name).ok();
    Ok(Kubernetes::open(
        url.unwrap_or("kubernetes:"),
        env,
        Options::default(),
    )?)
}

impl Stance {
    fn parse(text: &str) -> Result<Self> {
        match (text, text.strip_prefix("enforced-by:").map(str::trim)) {
            ("", _) => Ok(Self::Silent),
            ("accept-none", _) => Ok(Self::AcceptNone),
            (_, Some(name)) if !name.is_empty() => Ok(Self::EnforcedBy(name.to_owned())),
            _ => bail!("network-policy: {text}\nwrite enforced-by:<name>, or accept-none"),
        }
    }
}

fn verdict(policies: &Policies, stance: &Stance, is_known_here: bool) -> Verdict {
    if policies.some.is_empty() {
        return Verdict::Fine("no network policies".to_owned());
    }
    let others = if policies.more { ", and others" } else { "" };
    let which = format!("{}{others}", policies.some.join(", "));
    match stance {
        Stance::EnforcedBy(name) => {
            Verdict::Fine(format!("network policies are enforced by {name}: {which}"))
        }
        Stance::AcceptNone => Verdict::Warning(format!(
            "nobody enforces these network policies, as is accepted: {which}"
        )),
        Stance::Silent if is_known_here => Verdict::Warning(format!(
            "nobody is known to enforce these network policies, and Buoy does not: {which}\nit goes on, for it has served this node before"
        )),
        Stance::Silent => Verdict::Refusal(format!(
            "Buoy enforces no network policies, and there are some: {which}\n\
             delete them; or say who enforces them, by BUOY_NETWORK_POLICY=enforced-by:<name>; \
             or accept that nobody does, by BUOY_NETWORK_POLICY=accept-none (the chart's value networkPolicy)"
        )),
    }
}

/// As a volume of the ConfigMap would have it, which only pods of its own namespace may mount.
fn copy_config(cluster: &Kubernetes, directory: &Path) -> Result<()> {
    let data = cluster.config_map(NAMESPACE, CONFIG_MAP)?.with_context(|| {
        format!("no ConfigMap {CONFIG_MAP} in {NAMESPACE}\napply deploy/buoy.yaml, which has one")
    })?;
    if !data.contains_key(NETWORK_CONFIG) {
        bail!(
            "ConfigMap {CONFIG_MAP} in {NAMESPACE} has no {NETWORK_CONFIG}\nsee deploy/buoy.yaml for one that has"
        );
    }
    for (key, text) in data {
        let path = directory.join(key);
        fs::write(&path, text).with_context(|| format!("write: {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policies(more: bool) -> Policies {
        Policies {
            some: vec![
                "networkpolicies.networking.k8s.io shop/deny-all".to_owned(),
                "globalnetworkpolicies.crd.projectcalico.org a".to_owned(),
            ],
            more,
        }
    }

    #[test]
    fn without_a_word_of_the_operator_policies_keep_buoy_out() {
        let Verdict::Refusal(text) = verdict(&policies(true), &Stance::Silent, false) else {
            panic!("it begins")
        };
        for part in [
            "networkpolicies.networking.k8s.io shop/deny-all, global",
            " a, and others\n",
            "accept-none",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_node_that_was_served_before_is_not_left_without() {
        let found = verdict(&policies(false), &Stance::Silent, true);
        assert!(matches!(found, Verdict::Warning(text) if text.contains(" a\nit goes on")));
    }

    #[test]
    fn the_operator_s_word_counts() {
        let by = Stance::parse("enforced-by: kube-router").unwrap();
        assert_eq!(by, Stance::EnforcedBy("kube-router".to_owned()));
        assert!(
            matches!(verdict(&policies(false), &by, false), Verdict::Fine(text) if text.contains("by kube-router: "))
        );
        let accepted = Stance::parse("accept-none").unwrap();
        assert!(matches!(
            verdict(&policies(false), &accepted, false),
            Verdict::Warning(_)
        ));
        assert!(matches!(
            verdict(&Policies::default(), &Stance::Silent, false),
            Verdict::Fine(_)
        ));
        for text in ["enforced-by:", "enforced-by: ", "yes", "accept"] {
            let message = Stance::parse(text).unwrap_err().to_string();
            assert!(
                message.ends_with("\nwrite enforced-by:<name>, or accept-none"),
                "{message}"
            );
        }
    }
}
