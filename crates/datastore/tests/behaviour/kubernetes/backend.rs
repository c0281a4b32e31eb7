//! A real API server with our definitions, for as long as a test lasts.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use buoy_api::Family;
use buoy_core::store::Prefix;
use buoy_datastore::Datastore;
use buoy_datastore::kubernetes::{Kubernetes, Options};
use buoy_kubeserver::{ADMIN, ApiServer, Lent, Pool};

use serde_json::{Value as Json, json};

use crate::faults::proxy::Proxy;
use crate::server::own_address;
use crate::tools::{Backend, Ipam, Raw, list};

/// Where definitions and rights are.
pub(crate) const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy");

/// Servers that know our records, one test after another.
static SERVERS: Pool = Pool::new(|| known(&[]));

/// An API server of a test.
pub(crate) enum ApiServerBackend {
    Lent(Lent),
    Own(Box<Mutex<ApiServer>>),
}

/// One that knows our records, and has none.
pub(crate) fn api_server() -> ApiServerBackend {
    ApiServerBackend::Lent(SERVERS.take().unwrap())
}

/// The same, which no other test has before or after: for who stops it, changes definitions or rights, reads what it noted, or
/// leaves requests on their way.
pub(crate) fn own_api_server() -> ApiServerBackend {
    api_server_with(&[])
}

/// The same, with more arguments.
pub(crate) fn api_server_with(more: &[&str]) -> ApiServerBackend {
    ApiServerBackend::Own(Box::new(Mutex::new(known(more).unwrap())))
}

/// One that knows only what it begins with.
pub(crate) fn bare_api_server() -> ApiServerBackend {
    ApiServerBackend::Own(Box::new(Mutex::new(ApiServer::start(own_address()).unwrap())))
}

fn known(more: &[&str]) -> anyhow::Result<ApiServer> {
    let server = ApiServer::start_with(own_address(), more)?;
    server.create(&[&Path::new(DEPLOY).join("crds")])?;
    remember_from_now(&*client(&url(&server, ADMIN), Options::default()));
    Ok(server)
}

/// The tests are not to wait for the sake of a server that is theirs alone.
fn url(server: &ApiServer, user: &str) -> String {
    format!("kubernetes:{}?qps=0", server.kubeconfig(user).display())
}

/// Until the server remembers what changes. It begins to when it is first asked for a collection, and takes its time: a
/// watch from before is told that its past is gone.
fn remember_from_now(store: &dyn Datastore) {
    let watched = [
        Prefix::Pools,
        Prefix::Reservations,
        Prefix::BgpPeers,
        Prefix::Bindings,
        Prefix::Blocks(Family::V4),
    ];
    let deadline = Instant::now() + Duration::from_secs(60);
    let remembers = || {
        let begin = watched.clone().map(|prefix| {
            let (_, from) = list(store, prefix.clone());
            (prefix, from)
        });
        let mut watch = store.watch(&begin)?;
        watch.next(Duration::from_millis(10))
    };
    while let Err(error) = remembers() {
        assert!(Instant::now() < deadline, "{error}");
    }
}

impl ApiServerBackend {
    pub(crate) fn server(&self) -> MutexGuard<'_, ApiServer> {
        match self {
            Self::Lent(server) => server.lock(),
            Self::Own(server) => server.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// A client with the rights of a user.
    pub(crate) fn open_as(&self, user: &str) -> Arc<dyn Datastore> {
        self.open_with(user, Options::default())
    }

    /// The same, with options.
    pub(crate) fn open_with(&self, user: &str, options: Options) -> Arc<dyn Datastore> {
        client(&self.url(user), options)
    }

    /// The same, for what is more than a datastore.
    pub(crate) fn cluster(&self, user: &str) -> Kubernetes {
        Kubernetes::open(&self.url(user), |_| None, Options::default()).unwrap()
    }

    fn url(&self, user: &str) -> String {
        url(&self.server(), user)
    }

    /// Creates an object past the datastore.
    pub(crate) fn create(&self, object: &str) {
        self.server().kubectl(&["create", "-f", "-"], object).unwrap();
    }

    fn create_all(&self, items: Vec<Json>) {
        self.create(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string());
    }
}

/// How a client is to call one of these servers by way of a relay: whichever of them it leads to.
pub(crate) fn by_way_of(proxy: &Proxy, servers: &[&ApiServerBackend]) -> String {
    let mut trusted = String::new();
    for backend in servers {
        let certificates = backend
            .server()
            .kubeconfig(ADMIN)
            .with_file_name("certs/apiserver.crt");
        trusted.push_str(&std::fs::read_to_string(certificates).unwrap());
    }
    let server = servers[0].server();
    let text = std::fs::read_to_string(server.kubeconfig(ADMIN)).unwrap();
    let mut config: Json = serde_json::from_str(&text).unwrap();
    let path = server.kubeconfig(&proxy.address.to_string());
    let authority = path.with_extension("crt");
    std::fs::write(&authority, trusted).unwrap();
    // By the relay's address nobody is known.
    config["clusters"][0]["cluster"] = json!({
        "server": format!("https://{}", proxy.address),
        "certificate-authority": authority,
        "tls-server-name": "kubernetes",
    });
    std::fs::write(&path, config.to_string()).unwrap();
    format!("kubernetes:{}?qps=0", path.display())
}

/// A client of the server that a URL names, whatever the environment says.
pub(crate) fn client(url: &str, options: Options) -> Arc<dyn Datastore> {
    Arc::new(Kubernetes::open(url, |_| None, options).unwrap())
}

impl Backend for ApiServerBackend {
    fn open(&self) -> Arc<dyn Datastore> {
        self.open_as(ADMIN)
    }

    fn put_bad(&self) -> &'static str {
        let object = r#"{"apiVersion": "crd.projectcalico.org/v1", "kind": "IPReservation",
            "metadata": {"name": "b"}, "spec": {"reservedCIDRs": ["10.0.0.0/8", "garbage"]}}"#;
        self.create(object);
        "spec.reservedCIDRs"
    }

    /// Also out of the memory of the server: another takes its place.
    fn compact(&self) {
        let mut server = self.server();
        server.compact().unwrap();
        server.replace().unwrap();
    }

    fn make_pods(&self, namespace: &str, pods: &[(String, String)]) {
        let items = pods.iter().map(|(node, name)| {
            json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": name},
                "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
            })
        });
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        let items: Vec<Json> = std::iter::once(namespace).chain(items).collect();
        self.create_all(items);
    }

    fn make_nodes(&self, names: &[&str]) {
        let node = |name| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        self.create_all(names.iter().map(node).collect());
    }

    fn remove_node(&self, name: &str) {
        self.server().kubectl(&["delete", "node", name], "").unwrap();
    }

    /// The server's own clock for this strikes once a minute.
    fn heartbeat(&self) -> Duration {
        Duration::from_secs(100)
    }
}

impl Raw for ApiServerBackend {
    fn put_raw(&self, what: &Ipam<'_>, record: &Json) {
        let mut spec = record.clone();
        let dashed = |cidr: &str| cidr.replace(['.', '/'], "-");
        let (kind, name, labels) = match what {
            Ipam::Block(cidr) => ("IPAMBlock", dashed(cidr), json!({})),
            Ipam::Affinity(host, cidr) => {
                spec["node"] = (*host).into();
                if spec.get("cidr").is_none() {
                    spec["cidr"] = (*cidr).into();
                }
                if let Some(deleted) = record["deleted"].as_bool() {
                    spec["deleted"] = deleted.to_string().into();
                }
                let labels = json!({
                    "projectcalico.org/hostname-hash": hash(host),
                    "projectcalico.org/affinity-type": "host",
                    "projectcalico.org/ip-version": "4",
                });
                ("BlockAffinity", format!("{host}-{}", dashed(cidr)), labels)
            }
            Ipam::Handle(id) => {
                spec["handleID"] = (*id).into();
                ("IPAMHandle", id.to_lowercase(), json!({}))
            }
        };
        let object = json!({
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": kind,
            "metadata": {"name": name, "labels": labels},
            "spec": spec,
        });
        self.create(&object.to_string());
    }
}

/// By which lists find the affinities of a host: RFC 4648's base 32 of the SHA-3 of its name.
fn hash(host: &str) -> &'static str {
    match host {
        "alpha" => "E4MHR6FJE62FM2WJKH6ICWYY36WY2AYC2YORDWAMXYK3PI5AK2XQ",
        other => panic!("nobody has worked out the hash of {other}"),
    }
}
