//! What goes wrong is said with what to do, and leaves the node as it was.

use std::fs;

use crate::node::{GUIDE, Node};

/// A tmpfs over a directory, with what was in it.
fn small(directory: &str, options: &str) -> String {
    format!("cp -a {directory} kept; mount -t tmpfs -o {options} none {directory}; cp -a kept/. {directory}")
}

#[test]
fn a_missing_variable_is_named() {
    let mut node = Node::new();
    node.variables.remove("CNI_NETWORK_CONFIG");
    let said = node.fails(node.command("install"));
    assert!(
        said.contains("neither CNI_NETWORK_CONFIG nor CNI_NETWORK_CONFIG_FILE"),
        "{said}"
    );
    assert!(said.contains("\n  hint: set one of them"), "{said}");
    node.variables.insert(
        "CNI_NETWORK_CONFIG",
        GUIDE.replace("n1", "").replace("info", "") + "__KUBERNETES_SERVICE_HOST__",
    );
    let said = node.fails(node.command("install"));
    assert!(said.contains("KUBERNETES_SERVICE_HOST is not set"), "{said}");
    node.variables
        .insert("CNI_NETWORK_CONFIG", "__SERVICEACCOUNT_TOKEN__".to_owned());
    let said = node.fails(node.command("install"));
    assert!(said.contains("account/token: No such file"), "{said}");
    assert_eq!(node.names(), [""; 0]);
}

#[test]
fn without_a_token_for_the_kubeconfig_nothing_changes() {
    let mut node = Node::new();
    let variables = [
        ("BUOY_CNI_KUBECONFIG", "true"),
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("KUBERNETES_SERVICE_PORT", "443"),
    ];
    node.variables
        .extend(variables.map(|(name, value)| (name, value.to_owned())));
    fs::write(node.path("account/ca.crt"), "a certificate").unwrap();
    let said = node.fails(node.command("install"));
    assert!(said.contains("account/token: No such file"), "{said}");
    assert_eq!(node.names(), [""; 0]);
    fs::write(node.path("account/token"), "a token").unwrap();
    node.run("install");
    assert!(node.path("host/etc/cni/net.d/calico-kubeconfig").exists());
}

#[test]
fn what_is_no_json_after_substitution_is_shown_without_secrets() {
    let mut node = Node::new();
    node.variables.insert("CNI_MTU", "much".to_owned());
    let said = node.fails(node.command("install"));
    assert!(
        said.contains("not JSON once its placeholders are replaced") && said.contains("line 11"),
        "{said}"
    );
    assert!(
        said.trim_end().ends_with("placeholders: \"mtu\": __CNI_MTU__,"),
        "{said}"
    );
    fs::write(node.path("account/token"), "se\"cret").unwrap();
    node.variables.insert(
        "CNI_NETWORK_CONFIG",
        "{\"a\": \"__SERVICEACCOUNT_TOKEN__\"}".to_owned(),
    );
    let said = node.fails(node.command("install"));
    assert!(
        said.contains("__SERVICEACCOUNT_TOKEN__") && !said.contains("cret"),
        "{said}"
    );
    assert_eq!(node.names(), [""; 0]);
}

#[test]
fn a_placeholder_that_nobody_knows_is_pointed_out() {
    let mut node = Node::new();
    node.variables.insert(
        "CNI_NETWORK_CONFIG",
        GUIDE.replace("k8s-pod-network", "__NETWORK__"),
    );
    let said = node.run("install");
    assert!(
        said.contains("warning: not a placeholder that is known, and left as it is: __NETWORK__"),
        "{said}"
    );
    assert!(fs::read_to_string(node.conf()).unwrap().contains("__NETWORK__"));
}

#[test]
fn a_read_only_directory_is_named() {
    for directory in ["host/opt/cni/bin", "host/etc/cni/net.d"] {
        let node = Node::new();
        let script = format!("mount --bind {directory} {directory}; mount -o remount,bind,ro {directory}");
        let said = node.fails(node.command_after(&script, "install"));
        assert!(
            said.contains(directory) && said.contains("Read-only file system"),
            "{said}"
        );
        assert!(
            said.contains("\n  hint: mount the node's directory writable"),
            "{said}"
        );
    }
}

#[test]
fn a_missing_directory_is_named() {
    let node = Node::new();
    fs::remove_dir(node.path("host/etc/cni/net.d")).unwrap();
    let said = node.fails(node.command("install"));
    assert!(
        said.contains("cannot write ") && said.contains("etc/cni/net.d"),
        "{said}"
    );
    assert!(
        said.contains("\n  hint: mount the node's directories below /host"),
        "{said}"
    );
}

/// What was in force stays, and nothing unfinished takes up room.
#[test]
fn a_full_disk_changes_nothing() {
    for directory in ["host/opt/cni/bin", "host/etc/cni/net.d"] {
        let node = Node::new();
        let there = node.path(directory).join("10-calico.conflist");
        fs::write(&there, "theirs").unwrap();
        // Room for what is there and little more.
        let script = format!(
            "{}; (head -c 1M /dev/zero > {directory}/fill) 2> /dev/null || true; ls -A {directory} > before; \
             trap 'ls -A {directory} > after; cat {directory}/10-calico.conflist >> after' EXIT; \
             \"$0\" \"$1\"; exit",
            small(directory, "size=64k")
        );
        let said = node.fails(node.command_after(&script, "install"));
        assert!(said.contains("No space left on device"), "{said}");
        assert!(
            said.contains("\n  hint: make room on the node's file system; nothing was replaced"),
            "{said}"
        );
        let before = fs::read_to_string(node.path("before")).unwrap();
        assert_eq!(fs::read_to_string(node.path("after")).unwrap(), before + "theirs");
    }
}

#[test]
fn other_words_are_no_commands() {
    let node = Node::new();
    let output = node.command("instal").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("buoy-cni install puts this program on a node"),
        "{said}"
    );
}
