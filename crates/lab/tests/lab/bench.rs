//! The bench works: every part of it is measured once, and the results are what programs expect. What they say is not
//! looked at.

mod measures;

use std::process::Command;

use buoy_lab::binaries::Binaries;
use buoy_lab::exec;
use measures::measures;

#[test]
fn one_node_is_measured() {
    measures(
        "agent,dataplane,move,change,cold",
        &[
            "agent-idle/0",
            "agent-memory/200",
            "connect/floating/1",
            "tcp-rr/floating/50",
            "udp-rr/floating/200",
            "tcp-stream/floating/1",
            "connect-v6/floating/1",
            "tcp-rr-v6/floating/200",
            "udp-rr-v6/own/1",
            "move/new-flows/200",
            "move/kept-flow/200",
            "change/owner/200",
            "cold/from-start/200",
        ],
    );
}

#[test]
fn attaching_is_measured() {
    measures(
        "cni",
        &[
            "cni-add/buoy/32",
            "cni-del/ip-batch/8",
            "cni-burst/buoy/16",
            "cni-memory/buoy",
        ],
    );
}

#[test]
fn a_network_is_measured() {
    measures(
        "network",
        &[
            "move/nodes/planned",
            "move/nodes/planned-lost",
            "move/nodes/deleted",
            "takeover/frozen",
            "takeover/cut",
            "unreachable/bfd",
            "crowd/moves/30",
            "crowd/moves-watched/30",
            "crowd/epochs/30",
            "crowd/kills/30",
            "crowd/black-out/30",
            "crowd/black-out-worst/30",
            "router/200",
            "bird-memory/200",
        ],
    );
}

#[test]
fn datastores_are_measured() {
    measures(
        "stores",
        &[
            "store/sqlite/cas",
            "store/etcd/list/200",
            "store/etcd/watch/1",
            "store/etcd/watch/50",
            "store/sqlite/ipam/warm",
            "store/etcd/ipam/race-6",
            "store/etcd/cni-add",
            "store/etcd/agent-start/4",
            "store/etcd/watch-from-request/1",
            "store/sqlite/agent-memory/100",
            "store/etcd/agent-memory/100",
            "store/etcd/lease-writes",
            "store/etcd/lease-cpu/20",
            "store/kubernetes/cas",
            "store/kubernetes/list/200",
            "store/kubernetes/watch/50",
            "store/kubernetes/ipam/warm",
            "store/kubernetes/lease-cpu/20",
            "store/kubernetes/cni-add",
            "store/kubernetes/agent-start/4",
            "store/kubernetes/watch-from-request/1",
        ],
    );
}

#[test]
fn an_unknown_part_is_refused_with_those_there_are() {
    let mut command = Command::new(Binaries::find().unwrap().lab);
    let finished = exec::run(command.args(["bench", "--only", "speed"]), "", exec::PATIENCE).unwrap();
    assert!(!finished.status.success());
    assert!(
        finished.stderr.contains("no such part of the bench: speed"),
        "{}",
        finished.stderr
    );
    assert!(finished.stderr.contains("dataplane"), "{}", finished.stderr);
}
