//! An API server with an etcd behind it, on the loopback link: no node, and no kubelet.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::Result;
use buoy_kubeserver::{ADMIN, ApiServer};

use super::{Ground, Scale};
use crate::bench::report::Report;

/// Any number of requests: it is the server that is measured.
const UNLIMITED: &str = "?qps=0";

pub(super) fn measure(scale: Scale, report: &mut Report) -> Result<()> {
    let server = ApiServer::start(IpAddr::V4(Ipv4Addr::LOCALHOST))?;
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    server.create(&[&deploy.join("crds"), &deploy.join("rbac.yaml")])?;
    let url = format!("kubernetes:{}{UNLIMITED}", server.kubeconfig(ADMIN).display());
    let ground = Ground {
        name: "kubernetes".to_owned(),
        scale,
        store: buoy_datastore::open(&url)?,
        processes: server.pids(),
        opens: Box::new(move || Ok(buoy_datastore::open(&url)?)),
    };
    ground.measure(report)
}
