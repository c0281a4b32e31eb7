//! What an installation is told, by variables of the environment that are Calico's where Calico has them.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::{Doing, Error, Result};

/// Where the node's directories are mounted in the container.
const HOST: &str = "/host";
/// Plugins of other projects that the image brings along.
const BUNDLED: &str = "/usr/lib/cni";
/// Where a pod finds its account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Looks up a variable of the environment.
type Variable = dyn Fn(&str) -> Option<String>;

/// Settings, complete but for what only the network configuration may need.
pub(crate) struct Settings {
    variable: Box<Variable>,
    /// `/etc/cni/net.d` of the node, as it is mounted here.
    pub(crate) net_dir: PathBuf,
    /// `/opt/cni/bin` of the node, as it is mounted here.
    pub(crate) bin_dir: PathBuf,
    /// The name of the network configuration's file.
    pub(crate) conf_name: String,
    /// A file that is no longer wanted.
    pub(crate) old_conf_name: Option<String>,
    /// Plugins that the node gets if it lacks them.
    pub(crate) bundled: PathBuf,
    /// Programs that are not installed.
    pub(crate) skipped: Vec<String>,
    /// Whether programs that are there are replaced by newer ones.
    pub(crate) updates: bool,
    /// Whether a kubeconfig is written.
    pub(crate) kubeconfig: bool,
    /// Whether to stay when all is done.
    pub(crate) stays: bool,
    account: PathBuf,
}

impl Settings {
    /// Reads them; an empty variable counts as absent.
    pub(crate) fn read(variable: impl Fn(&str) -> Option<String> + 'static) -> Result<Self> {
        let variable = move |name: &str| variable(name).filter(|value| !value.is_empty());
        let path =
            |name: &str, default: &str| PathBuf::from(variable(name).unwrap_or_else(|| default.to_owned()));
        let host = path("BUOY_HOST_ROOT", HOST);
        Ok(Self {
            net_dir: host.join("etc/cni/net.d"),
            bin_dir: host.join("opt/cni/bin"),
            conf_name: file_name(&variable, "CNI_CONF_NAME")?
                .unwrap_or_else(|| "10-calico.conflist".to_owned()),
            old_conf_name: file_name(&variable, "CNI_OLD_CONF_NAME")?,
            bundled: path("BUOY_CNI_BUNDLED", BUNDLED),
            account: path("BUOY_ACCOUNT_DIR", ACCOUNT),
            skipped: variable("SKIP_CNI_BINARIES")
                .iter()
                .flat_map(|list| list.split(','))
                .map(|name| name.trim().to_owned())
                .collect(),
            updates: switch(&variable, "UPDATE_CNI_BINARIES", true)?,
            kubeconfig: switch(&variable, "BUOY_CNI_KUBECONFIG", false)?,
            stays: switch(&variable, "SLEEP", false)?,
            variable: Box::new(variable),
        })
    }

    /// The template of the network configuration: a file, or a key of a mounted ConfigMap, or the variable itself.
    pub(crate) fn template(&self) -> Result<String> {
        if let Some(path) = self.variable("CNI_NETWORK_CONFIG_FILE").map(PathBuf::from) {
            return fs::read_to_string(&path).doing("read the network configuration", &path);
        }
        self.variable("CNI_NETWORK_CONFIG").ok_or_else(|| Error::Setting {
            problem:
                "no network configuration: neither CNI_NETWORK_CONFIG nor CNI_NETWORK_CONFIG_FILE is set"
                    .to_owned(),
            hint: "set one of them from the key cni_network_config of the ConfigMap calico-config",
        })
    }

    /// What a placeholder stands for, by its name between the underscores; nothing if it is none of Calico's.
    pub(crate) fn placeholder(&self, name: &str) -> Result<Option<String>> {
        let or = |default: &str| Ok(Some(self.variable(name).unwrap_or_else(|| default.to_owned())));
        match name {
            "LOG_LEVEL" => or("info"),
            "LOG_FILE_PATH" => or("/var/log/calico/cni/cni.log"),
            "LOG_FILE_MAX_SIZE" => or("100"),
            "LOG_FILE_MAX_AGE" => or("30"),
            "LOG_FILE_MAX_COUNT" => or("10"),
            "DATASTORE_TYPE" => or("kubernetes"),
            "KUBERNETES_NODE_NAME" => self.node_name().map(Some),
            "KUBECONFIG_FILEPATH" => Ok(Some(self.on_node("calico-kubeconfig"))),
            "CNI_MTU" => self.mtu().map(Some),
            "KUBERNETES_SERVICE_HOST" | "KUBERNETES_SERVICE_PORT" => self.required(name).map(Some),
            "SERVICEACCOUNT_TOKEN" => self.account("token").map(Some),
            "CALICO_API_GROUP" => or("crd.projectcalico.org/v1"),
            "ETCD_ENDPOINTS" | "ETCD_DISCOVERY_SRV" => or(""),
            "ETCD_KEY_FILE" => Ok(Some(self.tls("etcd-key"))),
            "ETCD_CERT_FILE" => Ok(Some(self.tls("etcd-cert"))),
            "ETCD_CA_CERT_FILE" => Ok(Some(self.tls("etcd-ca"))),
            "REQUIRE_MTU_FILE" => or("false"),
            _ => Ok(None),
        }
    }

    /// A file of the pod's account.
    pub(crate) fn account(&self, name: &str) -> Result<String> {
        let path = self.account.join(name);
        let text = fs::read_to_string(&path).doing("read the pod's account", &path)?;
        Ok(text.trim().to_owned())
    }

    /// A variable that must be set.
    pub(crate) fn required(&self, name: &str) -> Result<String> {
        self.variable(name).ok_or_else(|| Error::Setting {
            problem: format!("{name} is not set"),
            hint: "Kubernetes sets it in every container; elsewhere set it, or leave its placeholder out",
        })
    }

    /// A variable, if it is set.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        (self.variable)(name)
    }

    /// The keys of a ConfigMap are files beside each other; Calico's says the MTU there, too.
    fn mtu(&self) -> Result<String> {
        if let Some(mtu) = self.variable("CNI_MTU") {
            return Ok(mtu);
        }
        let beside = self.variable("CNI_NETWORK_CONFIG_FILE");
        let beside = beside.map(|path| Path::new(&path).with_file_name("veth_mtu"));
        match beside.filter(|path| path.exists()) {
            Some(path) => {
                let text = fs::read_to_string(&path).doing("read the MTU", &path)?;
                Ok(text.trim().to_owned())
            }
            None => Ok("1500".to_owned()),
        }
    }

    fn node_name(&self) -> Result<String> {
        if let Some(name) = self.variable("KUBERNETES_NODE_NAME") {
            return Ok(name);
        }
        let name = nix::unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok());
        name.ok_or_else(|| Error::Setting {
            problem: "this node has no name: neither KUBERNETES_NODE_NAME nor a host name that is text"
                .to_owned(),
            hint: "set KUBERNETES_NODE_NAME from the field spec.nodeName of the pod",
        })
    }

    /// A path in the configuration directory, as the node sees it.
    fn on_node(&self, name: &str) -> String {
        let directory = self.variable("CNI_NET_DIR");
        let directory = directory.unwrap_or_else(|| "/etc/cni/net.d".to_owned());
        Path::new(&directory).join(name).display().to_string()
    }

    /// A credential of etcd, if somebody put it there.
    fn tls(&self, name: &str) -> String {
        match self.net_dir.join("calico-tls").join(name).exists() {
            true => self.on_node(&format!("calico-tls/{name}")),
            false => String::new(),
        }
    }
}

fn switch(variable: &impl Fn(&str) -> Option<String>, name: &str, default: bool) -> Result<bool> {
    match variable(name).as_deref() {
        None => Ok(default),
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(other) => Err(Error::Setting {
            problem: format!("{name}: {other}"),
            hint: "write true or false",
        }),
    }
}

fn file_name(variable: &impl Fn(&str) -> Option<String>, name: &str) -> Result<Option<String>> {
    match variable(name) {
        Some(value) if value.contains('/') || value.starts_with('.') => Err(Error::Setting {
            problem: format!("{name} is not the name of a file: {value}"),
            hint: "write a name such as 10-calico.conflist; CNI_NET_DIR says where it is",
        }),
        value => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&'static str, &'static str)]) -> Result<Settings> {
        let variables = variables.to_vec();
        Settings::read(move |wanted| {
            let found = variables.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn placeholders_have_calico_s_defaults_and_variables_of_their_names() {
        let settings = settings(&[
            ("KUBERNETES_NODE_NAME", "n1"),
            ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
            ("CNI_NET_DIR", "/var/cni"),
            ("CNI_MTU", "1440"),
            ("LOG_LEVEL", ""),
        ])
        .unwrap();
        for (name, value) in [
            ("LOG_LEVEL", "info"),
            ("LOG_FILE_PATH", "/var/log/calico/cni/cni.log"),
            ("LOG_FILE_MAX_SIZE", "100"),
            ("LOG_FILE_MAX_AGE", "30"),
            ("LOG_FILE_MAX_COUNT", "10"),
            ("DATASTORE_TYPE", "kubernetes"),
            ("KUBERNETES_NODE_NAME", "n1"),
            ("KUBECONFIG_FILEPATH", "/var/cni/calico-kubeconfig"),
            ("CNI_MTU", "1440"),
            ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
            ("CALICO_API_GROUP", "crd.projectcalico.org/v1"),
            ("ETCD_ENDPOINTS", ""),
            ("ETCD_DISCOVERY_SRV", ""),
            ("ETCD_KEY_FILE", ""),
            ("REQUIRE_MTU_FILE", "false"),
        ] {
            assert_eq!(
                settings.placeholder(name).unwrap().as_deref(),
                Some(value),
                "{name}"
            );
        }
        assert_eq!(settings.placeholder("OTHER").unwrap(), None);
        let message = settings
            .placeholder("KUBERNETES_SERVICE_PORT")
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with("KUBERNETES_SERVICE_PORT is not set\n"),
            "{message}"
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (variables, part) in [
            (
                [("CNI_CONF_NAME", "../10-calico.conflist")],
                "not the name of a file",
            ),
            ([("CNI_OLD_CONF_NAME", ".hidden")], "not the name of a file"),
            ([("UPDATE_CNI_BINARIES", "no")], "write true or false"),
        ] {
            let message = settings(&variables).err().unwrap().to_string();
            assert!(message.contains(part), "{message}");
        }
        let message = settings(&[]).unwrap().template().unwrap_err().to_string();
        assert!(message.contains("CNI_NETWORK_CONFIG"), "{message}");
    }
}
