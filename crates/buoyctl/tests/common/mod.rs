//! A store in a directory of its own, and the built program to run on it.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file is a crate of its own and uses its part"
)]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use buoy_api::binding::{Binding, BindingSpec, Candidate, Term};
use buoy_api::{Epoch, ObjectMeta, names};
use buoy_core::store::{Key, Part, Record, Reply, StoreOp, Value, Writer};
use buoy_datastore::Datastore;
use tempfile::TempDir;

/// A place with a store; gone when dropped.
pub struct Place {
    dir: TempDir,
    url: Option<String>,
}

/// What a run of the program left.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Place {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            url: None,
        }
    }

    /// A place whose store is elsewhere.
    pub fn on(url: String) -> Self {
        Self {
            url: Some(url),
            ..Self::new()
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn url(&self) -> String {
        let own = || format!("sqlite://{}", self.path("buoy.db").display());
        self.url.clone().unwrap_or_else(own)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("agent.sock")
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Runs the program on this store.
    pub fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, "")
    }

    /// Runs the program on this store, with a text on its stdin.
    pub fn run_with(&self, args: &[&str], stdin: &str) -> Ran {
        let mut child = Command::new(env!("CARGO_BIN_EXE_buoyctl"))
            .args(args)
            .env("BUOY_DATASTORE", self.url())
            .env("BUOY_SOCKET", self.socket())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that fails before it reads has closed its end.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        Ran::from(child.wait_with_output().unwrap())
    }

    /// Runs the program, which must succeed without a word on stderr, and returns its stdout.
    pub fn done(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{args:?}: {ran:?}");
        ran.out
    }

    /// Applies resources, which must succeed.
    pub fn apply(&self, yaml: &str) -> String {
        let ran = self.run_with(&["apply", "-f", "-"], yaml);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
        ran.out
    }

    pub fn store(&self) -> Arc<dyn Datastore> {
        buoy_datastore::open(&self.url()).unwrap()
    }

    pub fn get(&self, key: Key) -> Option<Record> {
        match self.store().run(&StoreOp::Get(key)) {
            Reply::Record(record) => record,
            other => panic!("{other:?}"),
        }
    }

    /// Makes a binding of an address in namespace `shop` with ready candidates on node n1; the first owns it.
    pub fn bind(&self, address: &str, candidates: &[&str]) {
        let store = self.store();
        let address = address.parse().unwrap();
        let candidates: Vec<Candidate> = candidates.iter().map(|name| candidate(name)).collect();
        let binding = Binding::new(
            ObjectMeta::named(names::binding_name(address)),
            BindingSpec {
                address,
                namespace: "shop".to_owned(),
                owner: candidates.first().map(|first| first.as_owner(Term(1))),
                released: candidates.is_empty().then(jiff::Timestamp::now),
                epoch: Epoch(7),
                ..BindingSpec::default()
            },
        );
        let key = Key::Binding(names::binding_name(address));
        wrote(&store.run(&StoreOp::Create(key.clone(), Value::Binding(binding))));
        let part = Part {
            candidates,
            conditions: Vec::new(),
        };
        wrote(&store.run(&StoreOp::Apply(key, Writer("n1".to_owned()), part)));
    }

    pub fn binding(&self, address: &str) -> Binding {
        let key = Key::Binding(names::binding_name(address.parse().unwrap()));
        match self.get(key).unwrap().value {
            Ok(Value::Binding(binding)) => binding,
            other => panic!("{other:?}"),
        }
    }

    /// Puts a record that does not decode into the store, past its codec.
    pub fn spoil(&self, key: &str) {
        self.done(&["get", "node"]);
        let file = rusqlite::Connection::open(self.path("buoy.db")).unwrap();
        let insert = "INSERT INTO kv (key, value, created, modified) VALUES (?1, 'rubbish', 1, 1)";
        file.execute(insert, [key]).unwrap();
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

pub fn candidate(workload: &str) -> Candidate {
    Candidate {
        node: "n1".to_owned(),
        workload: workload.to_owned(),
        endpoint: "eth0".to_owned(),
        uid: format!("{workload}-uid"),
        internal_ip: "10.65.0.7".parse().unwrap(),
        ready: true,
        priority: 0,
        since: jiff::Timestamp::UNIX_EPOCH,
    }
}

pub fn wrote(reply: &Reply) {
    assert!(matches!(reply, Reply::Written(_)), "{reply:?}");
}

/// A workload endpoint in namespace shop on node n1.
pub fn endpoint(pod: &str, address: &str) -> String {
    let name = format!("n1-k8s-{}-eth0", pod.replace('-', "--"));
    format!(
        "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{orchestrator: k8s, node: n1, pod: {pod}, endpoint: eth0, ipNetworks: ['{address}']}}\n"
    )
}

pub fn pool(name: &str, cidr: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: {name}}}\nspec: {{cidr: {cidr}}}\n"
    )
}
