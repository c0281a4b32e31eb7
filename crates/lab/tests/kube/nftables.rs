//! The same by a kube-proxy that uses nftables, as Buoy does: neither is in the other's way.

use buoy_lab::kube::{Buoy, Case, Cluster, Cni, Gate, Options, ProxyMode};

use crate::service;

const CASES: [Case; 1] = [("host-port-and-service", service::host_port_and_service)];

#[test]
fn services_by_nftables() {
    let options = Options {
        cni: Cni::None,
        proxy: ProxyMode::Nftables,
        ..Options::default()
    };
    Cluster::start(&options).unwrap().test(|cluster| {
        cluster.import_server()?;
        let buoy = Buoy::install(cluster, Gate::Open)?;
        cluster.cases(&buoy, &CASES)
    });
}
