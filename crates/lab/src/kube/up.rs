//! A cluster for a person, until Ctrl-C.

use std::fs;
use std::io::{self, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result};

use super::{Cluster, Options, image};
use crate::netns::Netns;

/// Makes the cluster, says what to do with it, and waits for Ctrl-C, which removes it.
pub fn run(options: &Options) -> Result<()> {
    writeln!(
        io::stderr(),
        "starting {} nodes and a control plane",
        options.nodes
    )?;
    let cluster = Cluster::start(options)?;
    let kubeconfig = open(&cluster)?;
    let kubectl = kubectl(&cluster)?;
    let text = guide(
        &cluster,
        &kubeconfig.display().to_string(),
        &kubectl.display().to_string(),
    );
    writeln!(io::stdout(), "{text}")?;
    loop {
        thread::park();
    }
}

/// The real kubectl under its own name.
fn kubectl(cluster: &Cluster) -> Result<PathBuf> {
    let path = cluster.run().base().join("kubectl");
    let text = format!(
        "#!/bin/sh\nexport KUBECONFIG=\"${{KUBECONFIG:-{}}}\"\nexec nsenter --net={} {} kubectl \"$@\"\n",
        cluster.kubeconfig().display(),
        cluster.control.netns().path().display(),
        buoy_kubeserver::binary()?.display()
    );
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Opens the API to programs of this machine, on a free port of its loopback link. Returns a kubeconfig for them.
fn open(cluster: &Cluster) -> Result<PathBuf> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let server = cluster.control.url();
    let here = format!("https://{}", listener.local_addr()?);
    let config = fs::read_to_string(cluster.kubeconfig())?.replace(&server, &here);
    let path = cluster.run().base().join("kubeconfig");
    fs::write(&path, config)?;
    let inside = cluster.control.netns().clone();
    let address = server.trim_start_matches("https://").to_owned();
    thread::Builder::new().name("door".to_owned()).spawn(move || {
        for stream in listener.incoming().flatten() {
            // Who cannot be served sees a connection that ends.
            let _ = pass_on(stream, &inside, address.clone());
        }
    })?;
    Ok(path)
}

/// Connects a client outside with a server inside, until one of them ends.
fn pass_on(outside: TcpStream, netns: &Netns, address: String) -> Result<()> {
    let inside = netns.enter(move || TcpStream::connect(&address).context("the API server is not there"))?;
    let back = (inside.try_clone()?, outside.try_clone()?);
    for (mut from, mut to) in [(outside, inside), back] {
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
    Ok(())
}

/// What there is and what to try.
fn guide(cluster: &Cluster, kubeconfig: &str, kubectl: &str) -> String {
    let first = &cluster.nodes()[0];
    format!(
        "\
Kubernetes with {count} nodes, made in {took:.1?}; a router and a client beyond it.

  kubeconfig         {kubeconfig}
  kubectl            {kubectl}
  on node {name}         {node}
  on the client      {client}
  logs               {logs}

Try, with your own kubectl and this kubeconfig, or with that one:
  {kubectl} get nodes -o wide
  {kubectl} create deployment web --image={image} --replicas=3 -- httpd -f -p 80
  {kubectl} get pods -o wide
  {client} ping <address of a pod>

Nothing is pulled: images are {image}, and what is imported on a node with
  ctr --namespace k8s.io images import <archive>

Ctrl-C removes everything.",
        count = cluster.nodes().len(),
        took = cluster.took(),
        name = first.name(),
        node = first.how_to_enter(),
        client = cluster.client.how_to_enter(),
        logs = cluster.run().base().display(),
        image = image::BUSYBOX,
    )
}
