//! An installation from its beginning to its end.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::node::{GUIDE, Node};

const INSTALLED: [&str; 5] = [
    "etc/cni/net.d/10-calico.conflist",
    "opt/cni/bin/.buoy-bundled",
    "opt/cni/bin/calico",
    "opt/cni/bin/calico-ipam",
    "opt/cni/bin/portmap",
];

#[test]
fn a_node_gets_programs_and_configuration_and_is_clean_again() {
    let mut node = Node::new();
    node.variables.insert("CNI_MTU", "1440".to_owned());
    let said = node.run("install");
    assert!(
        said.contains("installed: ") && !said.contains("warning"),
        "{said}"
    );
    assert_eq!(node.names(), INSTALLED);
    let files = node.files();
    let mode = |name: &str| files[name].0;
    assert_eq!(
        (mode(INSTALLED[0]), mode(INSTALLED[2]), mode(INSTALLED[4])),
        (0o600, 0o755, 0o755)
    );

    let conf: Value = serde_json::from_slice(&files[INSTALLED[0]].1).unwrap();
    let calico = &conf["plugins"][0];
    assert_eq!(calico["mtu"], 1440);
    assert_eq!(calico["nodename"], "n1");
    assert_eq!(calico["log_level"], "info");
    assert_eq!(calico["log_file_path"], "/var/log/calico/cni/cni.log");
    assert_eq!(calico["datastore_type"], "kubernetes");
    assert_eq!(
        calico["kubernetes"]["kubeconfig"],
        "/etc/cni/net.d/calico-kubeconfig"
    );
    assert_eq!(calico["feature_control"], json!({"floating_ips": true}));
    assert_eq!(conf["plugins"][1]["type"], "portmap");

    // What was installed is the plugin.
    let version = Command::new(node.path("host/opt/cni/bin/calico-ipam"))
        .arg("-v")
        .output()
        .unwrap();
    assert!(
        String::from_utf8(version.stdout)
            .unwrap()
            .starts_with("buoy-cni ")
    );

    // Once more: nothing is written.
    let said = node.run("install");
    assert!(!said.contains("installed: "), "{said}");
    assert_eq!(node.files(), files);

    node.run("uninstall");
    assert_eq!(node.names(), [""; 0]);
    node.run("uninstall");
}

#[test]
fn calico_s_installation_is_kept_and_given_back() {
    let node = Node::new();
    for (name, content) in [
        ("etc/cni/net.d/10-calico.conflist", "{\"name\": \"calico's\"}"),
        ("etc/cni/net.d/calico-kubeconfig", "calico's"),
        ("opt/cni/bin/calico", "calico's"),
        ("opt/cni/bin/calico-ipam", "calico's"),
        ("opt/cni/bin/portmap", "calico's"),
        ("opt/cni/bin/bridge", "calico's"),
    ] {
        fs::write(node.path("host").join(name), content).unwrap();
    }
    let before = node.files();
    let said = node.run("install");
    assert!(said.contains("10-calico.conflist.before-buoy"), "{said}");
    let installed = node.files();
    for name in [
        "etc/cni/net.d/10-calico.conflist",
        "opt/cni/bin/calico",
        "opt/cni/bin/calico-ipam",
    ] {
        assert_eq!(installed[&format!("{name}.before-buoy")], before[name]);
        assert_ne!(installed[name], before[name]);
    }
    for name in [
        "etc/cni/net.d/calico-kubeconfig",
        "opt/cni/bin/portmap",
        "opt/cni/bin/bridge",
    ] {
        assert_eq!(installed[name], before[name]);
    }
    // An update, and a configuration that somebody edited by hand: what is kept stays.
    let conf = fs::read_to_string(node.conf()).unwrap();
    fs::write(node.conf(), conf.replace("info", "debug")).unwrap();
    node.run("install");
    assert_eq!(node.files(), installed);
    node.run("uninstall");
    assert_eq!(node.files(), before);
}

#[test]
fn a_kubeconfig_is_written_only_if_asked_for() {
    let mut node = Node::new();
    fs::write(node.path("account/token"), "secret\n").unwrap();
    fs::write(node.path("account/ca.crt"), "foobar").unwrap();
    for (name, value) in [
        ("BUOY_CNI_KUBECONFIG", "true"),
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("KUBERNETES_SERVICE_PORT", "443"),
    ] {
        node.variables.insert(name, value.to_owned());
    }
    node.run("install");
    let name = "etc/cni/net.d/calico-kubeconfig";
    let (mode, text) = node.files().remove(name).unwrap();
    let config: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(mode, 0o600);
    assert_eq!(
        config["clusters"][0]["cluster"]["server"],
        "https://10.96.0.1:443"
    );
    assert_eq!(
        config["clusters"][0]["cluster"]["certificate-authority-data"],
        "Zm9vYmFy"
    );
    assert_eq!(config["users"][0]["user"]["token"], "secret");
    assert_eq!(config["current-context"], config["contexts"][0]["name"]);
    node.run("uninstall");
    assert_eq!(node.names(), [""; 0]);
}

#[test]
fn calico_s_variables_say_what_is_done() {
    let mut node = Node::new();
    let other = node.path("template");
    fs::write(&other, GUIDE.replace("k8s-pod-network", "__ETCD_CERT_FILE__")).unwrap();
    fs::write(node.path("veth_mtu"), "1440").unwrap();
    fs::create_dir(node.path("host/etc/cni/net.d/calico-tls")).unwrap();
    for name in [
        "etc/cni/net.d/calico-tls/etcd-cert",
        "etc/cni/net.d/old.conf",
        "opt/cni/bin/calico",
    ] {
        fs::write(node.path("host").join(name), "theirs").unwrap();
    }
    for (name, value) in [
        ("CNI_NETWORK_CONFIG_FILE", other.to_str().unwrap()),
        ("CNI_NET_DIR", "/elsewhere"),
        ("CNI_CONF_NAME", "00-first.conflist"),
        ("CNI_OLD_CONF_NAME", "old.conf"),
        ("SKIP_CNI_BINARIES", "portmap"),
        ("UPDATE_CNI_BINARIES", "false"),
    ] {
        node.variables.insert(name, value.to_owned());
    }
    node.run("install");
    let expected = [
        "etc/cni/net.d/00-first.conflist",
        "etc/cni/net.d/calico-tls/etcd-cert",
        "etc/cni/net.d/old.conf.before-buoy",
        "opt/cni/bin/calico",
        "opt/cni/bin/calico-ipam",
    ];
    let files = node.files();
    assert_eq!(node.names(), expected);
    assert_eq!(files["opt/cni/bin/calico"].1, b"theirs");
    let conf: Value = serde_json::from_slice(&files[expected[0]].1).unwrap();
    assert_eq!(conf["name"], "/elsewhere/calico-tls/etcd-cert");
    assert_eq!(conf["plugins"][0]["mtu"], 1440);
    node.run("uninstall");
    assert!(node.names().contains(&"etc/cni/net.d/old.conf".to_owned()));
}

#[test]
fn whoever_comes_first_in_the_directory_is_pointed_out() {
    let node = Node::new();
    for name in [
        "00-loopback.conf",
        "05-cilium.conflist",
        "99-last.conf",
        "01-notes.txt",
    ] {
        fs::write(node.path("host/etc/cni/net.d").join(name), "{}").unwrap();
    }
    let said = node.run("install");
    let warned: Vec<&str> = said.lines().filter(|line| line.contains("comes first")).collect();
    assert_eq!(warned.len(), 2, "{said}");
    assert!(warned[1].ends_with(": 05-cilium.conflist"), "{said}");
}

/// Two versions of the configuration take turns, and a reader never sees anything else.
#[test]
fn a_reader_sees_one_configuration_or_the_other() {
    let mut node = Node::new();
    node.run("install");
    let one = fs::read(node.conf()).unwrap();
    node.variables.insert(
        "CNI_NETWORK_CONFIG",
        GUIDE.replace("k8s-pod-network", &"x".repeat(100_000)),
    );
    node.run("install");
    let both = BTreeSet::from([one, fs::read(node.conf()).unwrap()]);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !is_done.load(Ordering::Relaxed) {
                seen.insert(fs::read(node.conf()).unwrap());
            }
            seen
        });
        for turn in 0..20 {
            let text = if turn % 2 == 0 {
                GUIDE.to_owned()
            } else {
                node.variables["CNI_NETWORK_CONFIG"].clone()
            };
            let status = node
                .command("install")
                .env("CNI_NETWORK_CONFIG", text)
                .stderr(Stdio::null())
                .status()
                .unwrap();
            assert!(status.success());
        }
        is_done.store(true, Ordering::Relaxed);
        assert_eq!(reader.join().unwrap(), both);
    });
}

#[test]
fn it_stays_until_it_is_told_to_end_if_asked_to() {
    let mut node = Node::new();
    node.variables.insert("SLEEP", "true".to_owned());
    let mut child = node.command("install").stderr(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(child.stderr.take().unwrap());
    let mut lines = said.lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("waiting for SIGTERM")));
    assert!(node.conf().exists());
    assert_eq!(child.try_wait().unwrap(), None);
    let kill = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(kill.success() && child.wait().unwrap().success());
}
