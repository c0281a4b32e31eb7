//! The bench works: everything in it is measured once, and the results are what programs expect. What they say is not
//! looked at.

use std::fs;
use std::process::Command;
use std::time::Duration;

use buoy_lab::binaries::Binaries;
use buoy_lab::exec;
use buoy_lab::run::Run;
use serde_json::Value;

/// Rows that must be there, whatever is installed beside.
const ROWS: [&str; 36] = [
    "agent-idle/0",
    "agent-memory/200",
    "connect/floating/1",
    "tcp-rr/floating/50",
    "udp-rr/floating/200",
    "connect-v6/floating/1",
    "tcp-rr-v6/floating/200",
    "udp-rr-v6/own/1",
    "move/new-flows/200",
    "move/kept-flow/200",
    "change/owner/200",
    "cni-add/buoy/32",
    "cni-del/ip-batch/8",
    "cni-burst/buoy/16",
    "cni-memory/buoy",
    "move/nodes/planned",
    "move/nodes/planned-lost",
    "move/nodes/deleted",
    "takeover/frozen",
    "takeover/cut",
    "unreachable/bfd",
    "crowd/black-out/30",
    "router/200",
    "bird-memory/200",
    "store/sqlite/cas",
    "store/etcd/list/200",
    "store/etcd/watch/1",
    "store/etcd/watch/50",
    "store/sqlite/ipam/warm",
    "store/etcd/ipam/race-6",
    "store/etcd/cni-add",
    "store/etcd/agent-start/4",
    "store/sqlite/agent-memory/100",
    "store/etcd/agent-memory/100",
    "store/etcd/lease-writes",
    "store/etcd/lease-cpu/20",
];

#[test]
fn a_quick_bench_measures_everything() {
    let run = Run::begin().unwrap();
    let out = run.base().join("results.json");
    let mut command = Command::new(Binaries::find().unwrap().lab);
    command.args(["bench", "--quick", "--out"]).arg(&out);
    let finished = exec::run(&mut command, "", Duration::from_secs(400))
        .unwrap()
        .ok()
        .unwrap();
    assert!(finished.stdout.contains("targets met"), "{}", finished.stdout);
    let list: Vec<Value> = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
    let row = |name: &str| list.iter().find(|row| row["name"] == name);
    for name in ROWS {
        let row = row(name).unwrap_or_else(|| panic!("no row {name}:\n{}", finished.stdout));
        assert!(row["n"].as_u64().unwrap() > 0, "{row}");
        for key in ["p50", "p99"] {
            assert!(row[key].as_f64().unwrap() >= 0.0, "{row}");
        }
        assert!(row["unit"].is_string(), "{row}");
    }
    let ratio = &row("connect/floating/1").unwrap()["ratio"];
    assert!(ratio.as_f64().unwrap() > 0.0, "{ratio}");
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
