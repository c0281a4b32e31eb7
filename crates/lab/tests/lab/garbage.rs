//! Garbage from outside never stops the agent and never blocks another workload (I9).

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use buoy_api::names;
use buoy_lab::exec::eventually;
use buoy_lab::lab::Lab;
use buoy_lab::leaks::assert_nothing_leaked;
use buoy_lab::node::Node;
use buoy_lab::probe::{self, Via};
use buoy_lab::traffic::Traffic;
use buoy_lab::workload::{Spec, Workload};
use rusqlite::{Connection, OptionalExtension, params};

const FLOATING: &str = "172.16.1.3";
const SOON: Duration = Duration::from_secs(20);
/// An ADD with nothing in its way, on a machine however busy; the plugin would wait longer.
const ADD_LIMIT: Duration = Duration::from_secs(20);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn shop(name: &str) -> Spec {
    Spec::pod("shop", name)
}

/// ADD, an answer, and DEL, all soon.
fn a_workload_comes_and_goes(lab: &Lab, name: &str) -> Result<()> {
    let mut workload = Workload::prepare(&lab.node, shop(name))?;
    let answered = workload.add()?;
    let took = answered.took;
    answered.ok()?;
    ensure!(took < ADD_LIMIT, "ADD of {name} took {took:?}");
    workload.serve()?;
    probe::ask(&lab.client, Via::Udp, workload.addresses()[0], SOON)?;
    workload.delete().map(drop)
}

fn same_agent(node: &Node, pid: u32) -> Result<()> {
    node.with_agent(|agent| {
        ensure!(agent.is_running() && agent.pid() == pid, "the agent died");
        Ok(())
    })
}

#[test]
fn i9_bad_input_blocks_nobody() {
    Lab::start().unwrap().test(|lab| {
        let node = &lab.node;
        let pid = node.with_agent(|agent| Ok(agent.pid()))?;
        let web = Workload::start(node, shop("web-0").floating(&[FLOATING]))?;
        let traffic = Traffic::start(&lab.client, ip(FLOATING))?;
        // Kept open, and silent, to the end.
        let mut silent = Vec::new();
        for bytes in [&b""[..], &b"\0\0"[..], &b"\0\0\x01\0{\"protocol\":1"[..]] {
            let mut stream = UnixStream::connect(node.socket())?;
            stream.write_all(bytes)?;
            silent.push(stream);
        }
        for garbage in socket_garbage() {
            let mut stream = UnixStream::connect(node.socket())?;
            // The agent may close before it has read all of it.
            let _ = stream.write_all(&garbage);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            stream.set_read_timeout(Some(SOON))?;
            let mut answer = Vec::new();
            stream
                .read_to_end(&mut answer)
                .or_else(|error| match error.kind() {
                    std::io::ErrorKind::ConnectionReset => Ok(0),
                    _ => Err(error),
                })
                .context("the agent neither answers nor closes")?;
        }
        a_workload_comes_and_goes(lab, "after-garbage")?;
        same_agent(node, pid)?;
        drop(silent);
        traffic.unharmed()?;
        assert_nothing_leaked(node, &[&web])
    });
}

/// What may come over a socket: nothing, noise, lengths that lie, JSON that is something else.
fn socket_garbage() -> Vec<Vec<u8>> {
    let framed = |body: &str| [&(body.len() as u32).to_be_bytes()[..], body.as_bytes()].concat();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    vec![
        Vec::new(),
        vec![0; 4],
        vec![0xff; 64],
        (0..=255).collect(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        framed(""),
        framed("null"),
        framed("[]"),
        framed("{\"protocol\": \"one\"}"),
        framed("{\"protocol\": 1}"),
        framed("{\"protocol\": 1, \"client\": 7, \"body\": {\"add\": {}}}"),
        framed("{\"protocol\": 1, \"client\": \"x\", \"body\": {\"explode\": null}}"),
        framed(&deep),
        // An ADD without a namespace's descriptor.
        framed(
            "{\"protocol\": 1, \"client\": \"x\", \"body\": {\"add\": {\"container_id\": \"c\", \"ifname\": \"eth0\", \
             \"netns_path\": \"/nowhere\", \"args\": \"\", \"path\": \"\", \"config\": {}, \"deadline_ms\": 1000}}}",
        ),
    ]
}

#[test]
fn i9_garbage_records_while_fifty_workloads_run() {
    Lab::start().unwrap().test(|lab| {
        let node = &lab.node;
        let pid = node.with_agent(|agent| Ok(agent.pid()))?;
        let owner = Workload::start(node, shop("web-0").floating(&[FLOATING]))?;
        let mut others: Vec<Workload> = thread::scope(|scope| {
            let starting: Vec<_> = (0..7)
                .map(|batch| scope.spawn(move || start_seven(node, batch)))
                .collect();
            starting
                .into_iter()
                .map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a starter panicked"))?)
                .collect::<Result<Vec<_>>>()
        })?
        .into_iter()
        .flatten()
        .collect();
        ensure!(others.len() == 49, "{} workloads", others.len());
        others[0].serve()?;
        let traffic = [
            Traffic::start(&lab.client, ip(FLOATING))?,
            Traffic::start(&lab.client, others[0].addresses()[0])?,
        ];
        let store = Garbler::open(node)?;
        let endpoint = "/calico/resources/v3/projectcalico.org/workloadendpoints/shop/n1-k8s-web--0-eth0";
        let binding = format!(
            "/buoy/v1alpha1/floatingipbindings/{}",
            names::binding_name(ip(FLOATING))
        );
        let good = [endpoint, &binding].map(|key| store.get(key).map(|value| (key.to_owned(), value)));
        for value in [
            "{",
            "null",
            "[1, 2]",
            "{\"kind\": \"Node\"}",
            "\u{1}",
            "",
            &"x".repeat(70_000),
        ] {
            for key in garbage_keys() {
                store.put(&key, value)?;
            }
            store.put(endpoint, value)?;
            store.put(&binding, value)?;
            traffic.iter().try_for_each(Traffic::progress)?;
        }
        a_workload_comes_and_goes(lab, "among-garbage")?;
        same_agent(node, pid)?;
        let status = node.ctl("node status")?;
        ensure!(
            status.contains("web--0") || status.contains("decode"),
            "nobody reports it:\n{status}"
        );
        // An agent that starts has never read their last good values: what the kernel has stays.
        node.kill_agent();
        node.start_agent()?;
        a_workload_comes_and_goes(lab, "after-restart")?;
        for key in garbage_keys() {
            store.delete(&key)?;
        }
        for record in good {
            let (key, value) = record?;
            store.put(&key, &value.context("a record that should be there")?)?;
        }
        for traffic in traffic {
            traffic.progress()?;
            traffic.unharmed()?;
        }
        let answer = probe::ask(&lab.client, Via::Udp, ip(FLOATING), SOON)?;
        ensure!(answer.who == "web-0", "{answer:?}");
        let mut live: Vec<&Workload> = others.iter().collect();
        live.push(&owner);
        assert_nothing_leaked(node, &live)
    });
}

fn start_seven(node: &Node, batch: usize) -> Result<Vec<Workload>> {
    (0..7)
        .map(|index| {
            let mut workload = Workload::prepare(node, shop(&format!("pod-{batch}-{index}")))?;
            workload.add()?.ok()?;
            Ok(workload)
        })
        .collect()
}

/// Keys of every kind of record that the agent reads, and some that nobody knows.
fn garbage_keys() -> Vec<String> {
    let resources = "/calico/resources/v3/projectcalico.org";
    let mut keys: Vec<String> = [
        "ippools/garbage",
        "ipreservations/garbage",
        "nodes/garbage",
        "profiles/garbage",
        "felixconfigurations/garbage",
        "workloadendpoints/shop/garbage",
        "workloadendpoints/shop/n1-k8s-other-eth0",
        "nonsense/garbage",
    ]
    .iter()
    .map(|rest| format!("{resources}/{rest}"))
    .collect();
    for key in [
        "/buoy/v1alpha1/floatingipbindings/172-16-1-99",
        "/buoy/v1alpha1/floatingipbindings/no-address",
        "/calico/ipam/v2/handle/garbage",
        "/calico/ipam/v2/assignment/ipv4/block/10.99.0.0-26",
        "/calico/ipam/v2/host/elsewhere/ipv4/block/10.99.0.0-26",
        "/somebody/else",
    ] {
        keys.push(key.to_owned());
    }
    keys
}

/// Writes into a store past every check, as a broken tool would.
struct Garbler {
    connection: Connection,
}

impl Garbler {
    fn open(node: &Node) -> Result<Self> {
        let connection = Connection::open(node.store().file()?)?;
        connection.busy_timeout(SOON)?;
        Ok(Self { connection })
    }

    fn get(&self, key: &str) -> Result<Option<String>> {
        let mut query = self.connection.prepare("SELECT value FROM kv WHERE key = ?1")?;
        Ok(query.query_row([key], |row| row.get(0)).optional()?)
    }

    fn put(&self, key: &str, value: &str) -> Result<()> {
        let revision = self.log(key, Some(value))?;
        self.connection.execute(
            "INSERT INTO kv (key, value, created, modified) VALUES (?1, ?2, ?3, ?3)
             ON CONFLICT (key) DO UPDATE SET value = ?2, modified = ?3",
            params![key, value, revision],
        )?;
        self.connection.execute_batch("COMMIT")?;
        Ok(())
    }

    fn delete(&self, key: &str) -> Result<()> {
        self.log(key, None)?;
        self.connection.execute("DELETE FROM kv WHERE key = ?1", [key])?;
        self.connection.execute_batch("COMMIT")?;
        Ok(())
    }

    /// Begins a transaction and logs a change in it.
    fn log(&self, key: &str, value: Option<&str>) -> Result<i64> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        self.connection.execute(
            "INSERT INTO log (revision, key, value) SELECT max(revision) + 1, ?1, ?2 FROM log",
            params![key, value],
        )?;
        Ok(self.connection.last_insert_rowid())
    }
}

#[test]
fn i9_an_add_whose_client_goes_away_is_undone() {
    Lab::start().unwrap().test(|lab| {
        let node = &lab.node;
        let mut gone = Vec::new();
        for index in 0..20 {
            let workload =
                Workload::prepare(node, shop(&format!("gone-{index}")).floating(&["172.16.1.50"]))?;
            let mut child = workload.begin("ADD")?;
            thread::sleep(Duration::from_millis(index % 8));
            child.kill()?;
            child.wait()?;
            gone.push(workload);
        }
        // Whoever was quick enough had its answer: a runtime would detach all of them.
        for workload in gone {
            workload.delete_by_agent()?;
        }
        eventually(SOON, "nobody has the floating IP", || {
            probe::nobody_answers(
                &lab.client,
                Via::Udp,
                ip("172.16.1.50"),
                Duration::from_millis(200),
            )
        })?;
        assert_nothing_leaked(node, &[])
    });
}
