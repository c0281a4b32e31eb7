//! Directories that stand for those of a node, and the program that installs into them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// What Calico's manifest has as `cni_network_config`, as its guide edits it.
pub(crate) const GUIDE: &str = r#"{
  "name": "k8s-pod-network",
  "cniVersion": "1.0.0",
  "plugins": [
    {
      "type": "calico",
      "log_level": "__LOG_LEVEL__",
      "log_file_path": "__LOG_FILE_PATH__",
      "datastore_type": "__DATASTORE_TYPE__",
      "nodename": "__KUBERNETES_NODE_NAME__",
      "mtu": __CNI_MTU__,
      "ipam": {"type": "calico-ipam"},
      "policy": {"type": "k8s"},
      "kubernetes": {"kubeconfig": "__KUBECONFIG_FILEPATH__"},
      "feature_control": {"floating_ips": true}
    },
    {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}}
  ]
}
"#;

/// A node's directories, and the image's.
pub(crate) struct Node {
    directory: TempDir,
    pub(crate) variables: BTreeMap<&'static str, String>,
}

impl Node {
    /// A node with nothing in its directories, and an image with one plugin beside Buoy's.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["host/etc/cni/net.d", "host/opt/cni/bin", "image", "account"] {
            fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        let path = |name: &str| directory.path().join(name).display().to_string();
        fs::write(path("image/portmap"), "the image's portmap").unwrap();
        let variables = BTreeMap::from([
            ("BUOY_HOST_ROOT", path("host")),
            ("BUOY_CNI_BUNDLED", path("image")),
            ("BUOY_ACCOUNT_DIR", path("account")),
            ("KUBERNETES_NODE_NAME", "n1".to_owned()),
            ("CNI_NETWORK_CONFIG", GUIDE.to_owned()),
        ]);
        Self { directory, variables }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn conf(&self) -> PathBuf {
        self.path("host/etc/cni/net.d/10-calico.conflist")
    }

    /// The program with a command, in this environment and no other.
    pub(crate) fn command(&self, command: &str) -> Command {
        self.inside(Command::new(env!("CARGO_BIN_EXE_buoy-cni")), &[command])
    }

    /// The same after a script of the shell, in a mount namespace of its own.
    pub(crate) fn command_after(&self, script: &str, command: &str) -> Command {
        let script = format!("set -e; {script}; exec \"$0\" \"$1\"");
        let words = [
            "--mount",
            "sh",
            "-c",
            &script,
            env!("CARGO_BIN_EXE_buoy-cni"),
            command,
        ];
        self.inside(Command::new("unshare"), &words)
    }

    fn inside(&self, mut program: Command, words: &[&str]) -> Command {
        program
            .args(words)
            .current_dir(self.directory.path())
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(&self.variables);
        program
    }

    /// Runs a command that succeeds; what it said.
    pub(crate) fn run(&self, command: &str) -> String {
        let output = self.command(command).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        said(&output)
    }

    /// Runs a command that fails; what it said.
    pub(crate) fn fails(&self, mut command: Command) -> String {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        said(&output)
    }

    /// Every file of the node: its path, mode and content.
    pub(crate) fn files(&self) -> BTreeMap<String, (u32, Vec<u8>)> {
        let root = self.path("host");
        let mut found = BTreeMap::new();
        collect(&root, &root, &mut found);
        found
    }

    /// The names of those files.
    pub(crate) fn names(&self) -> Vec<String> {
        self.files().into_keys().collect()
    }
}

fn said(output: &Output) -> String {
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn collect(root: &Path, directory: &Path, found: &mut BTreeMap<String, (u32, Vec<u8>)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, found);
            continue;
        }
        let mode = path.metadata().unwrap().permissions().mode() & 0o7777;
        let name = path.strip_prefix(root).unwrap().display().to_string();
        found.insert(name, (mode, fs::read(&path).unwrap()));
    }
}
