//! A lab for a person: one node, one client, one workload with a floating IP.

use std::io::{self, Write};
use std::thread;

use anyhow::Result;

use crate::lab::{Lab, NODE};
use crate::workload::{Spec, Workload};

const FLOATING: &str = "172.16.1.3";

/// Makes the lab, says what to do with it, and waits for Ctrl-C, which removes it.
pub fn run() -> Result<()> {
    let lab = Lab::start()?;
    let workload = Workload::start(&lab.node, Spec::pod("shop", "web-0").floating(&[FLOATING]))?;
    writeln!(io::stdout(), "{}", guide(&lab, &workload))?;
    loop {
        thread::park();
    }
}

/// What there is and what to try.
fn guide(lab: &Lab, workload: &Workload) -> String {
    let node = &lab.node;
    let ctl = format!(
        "buoyctl --datastore {} --socket {}",
        node.store().url(),
        node.socket().display()
    );
    format!(
        "\
A client, a switch and the node {NODE} with buoy-agent; pod web-0 in namespace shop has the floating IP {FLOATING}.

  on the client      {client}
  on the node        {on_node}
  in the workload    {inside}
  the agent's log    {log}

Try:
  {ping} ping {FLOATING}
  {ctl} fip list
  {ctl} fip why {FLOATING}
  {ctl} fip attach 172.16.1.4 web-0 -n shop
  {ctl} ipam show
  {on_node} nft list table ip buoy

Ctrl-C removes everything.",
        client = lab.client.how_to_enter(),
        on_node = node.netns().how_to_enter(),
        inside = workload.netns().how_to_enter(),
        log = node.log().display(),
        ping = lab.client.how_to_enter(),
    )
}
