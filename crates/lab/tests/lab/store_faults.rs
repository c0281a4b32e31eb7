//! What happens to an etcd under a running cluster: traffic does not suffer, nothing is taken from anybody whose agent lives
//! and reaches the store, every node says how it stands, and soon after the end all is as before.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use buoy_lab::ask::{answered_by, owner, shows};
use buoy_lab::cluster::Cluster;
use buoy_lab::etcd::{Etcd, Member};
use buoy_lab::faults::{self, Lost, Seen};
use buoy_lab::probe::Via;
use buoy_lab::store::Kind;

use crate::endure::{FLOATING, Fault, comes_back, endured, endured_slowly, shop};

/// The members but the last.
fn majority(etcd: &Etcd) -> &[Member] {
    &etcd.members()[..2]
}

#[test]
fn a_store_that_is_away_takes_nothing() {
    Cluster::start_on(Kind::Etcd).unwrap().test(|cluster| {
        let _shop = shop(cluster)?;
        let etcd = cluster.store().etcd()?;
        let fault = |what| Fault::of_everybody(cluster, what, Seen::NO_CONTACT);
        let kill = || {
            etcd.members().iter().for_each(Member::kill);
            Ok(())
        };
        endured(cluster, &fault("stopped, and back with its data"), kill, |()| {
            etcd.start_all()
        })?;
        endured(
            cluster,
            &fault("frozen"),
            || etcd.members().iter().try_for_each(Member::freeze),
            |()| etcd.members().iter().try_for_each(Member::thaw),
        )?;
        let without_a_quorum = Fault {
            lasts: Duration::from_secs(60),
            ..fault("without a quorum for a minute")
        };
        let plug = |state| {
            let mut members = majority(etcd).iter();
            members.try_for_each(|member| etcd.plug(member, state))
        };
        endured(cluster, &without_a_quorum, || plug("down"), |()| plug("up"))
    });
}

#[test]
fn a_store_of_which_enough_works_goes_on() {
    Cluster::start_on(Kind::Etcd).unwrap().test(|cluster| {
        let _shop = shop(cluster)?;
        let etcd = cluster.store().etcd()?;
        let fault = |what| Fault::of_everybody(cluster, what, Seen::IN_CONTACT);
        let kill = || {
            let leader = etcd.leader()?;
            leader.kill();
            Ok(leader)
        };
        endured(cluster, &fault("its leader killed"), kill, Member::start)?;
        let cut_off = || {
            let leader = etcd.leader()?;
            etcd.plug(leader, "down")?;
            Ok(leader)
        };
        let plug_in = |leader: &Member| etcd.plug(leader, "up");
        endured(cluster, &fault("its leader cut off"), cut_off, plug_in)?;
        let members = etcd.members();
        endured_slowly(
            cluster,
            &fault("slow: 200 ms"),
            || members.iter().try_for_each(Member::freeze),
            || members.iter().try_for_each(Member::thaw),
        )?;
        let compacted = Fault {
            lasts: Duration::ZERO,
            ..fault("compacted and defragmented")
        };
        let compact = || {
            etcd.ctl(&["compact", &etcd.revision()?.to_string()])?;
            etcd.ctl(&["defrag"]).map(drop)
        };
        endured(cluster, &compacted, compact, Ok)
    });
}

/// Cuts a node off from all members.
fn cut_off(etcd: &Etcd, address: &str, lost: Lost) -> Result<()> {
    let mut members = etcd.members().iter();
    members.try_for_each(|member| faults::cut_off(member.netns(), address, lost))
}

fn let_in(etcd: &Etcd) -> Result<()> {
    let mut members = etcd.members().iter();
    members.try_for_each(|member| faults::let_in(member.netns()))
}

#[test]
fn a_node_cut_off_from_the_store_alone_goes_on_as_it_was() {
    Cluster::start_on(Kind::Etcd).unwrap().test(|cluster| {
        let _shop = shop(cluster)?;
        let etcd = cluster.store().etcd()?;
        for (what, lost) in [
            ("a standby's requests are lost", Lost::Requests),
            ("answers to a standby are lost", Lost::Answers),
            ("a standby is cut off", Lost::Both),
        ] {
            let fault = Fault {
                nodes: &cluster.nodes[2..],
                ..Fault::of_everybody(cluster, what, Seen::NO_CONTACT)
            };
            let begin = || cut_off(etcd, "192.0.2.3", lost);
            endured(cluster, &fault, begin, |()| let_in(etcd))?;
        }
        the_owner_is_cut_off(cluster)
    });
}

/// Its lease is revoked, and a standby has the address; the owner's agent hears of it when it is back. Meanwhile its node
/// forwards, for it has learnt the newer route.
fn the_owner_is_cut_off(cluster: &Cluster) -> Result<()> {
    let etcd = cluster.store().etcd()?;
    let n1 = &cluster.nodes[0];
    cut_off(etcd, "192.0.2.1", Lost::Both)?;
    shows(n1, Seen::NO_CONTACT)?;
    for floating in FLOATING {
        answered_by(&cluster.client, Via::Tcp, floating, "web-2")?;
        answered_by(n1.netns(), Via::Udp, floating, "web-2")?;
    }
    comes_back(cluster, "the owner was cut off", || let_in(etcd))?;
    cluster.check()?;
    ensure!(owner(n1, FLOATING[0])?.0 == "web-2");
    Ok(())
}

#[test]
fn a_full_store_keeps_everything_as_it_is_and_says_so() {
    Cluster::bare_on(Kind::Etcd).unwrap().test(|cluster| {
        let etcd = cluster.store().etcd()?;
        for member in etcd.members() {
            member.kill();
            member.set_arguments(&["--quota-backend-bytes", "8000000"]);
        }
        etcd.start_all()?;
        cluster.begin()?;
        let _shop = shop(cluster)?;
        let full = Fault {
            nodes: &cluster.nodes[..1],
            ..Fault::of_everybody(cluster, "full", Seen::FULL)
        };
        let fill = || {
            let blob = "x".repeat(500_000);
            let filled = (0..40).find(|number| {
                let key = format!("/somebody/else/{number}");
                etcd.put(&key, &blob).is_err()
            });
            filled.context("there is room for everything").map(drop)
        };
        endured(cluster, &full, fill, |()| {
            etcd.ctl(&["del", "--prefix", "/somebody/"])?;
            etcd.ctl(&["compact", &etcd.revision()?.to_string()])?;
            etcd.ctl(&["defrag"])?;
            etcd.ctl(&["alarm", "disarm"]).map(drop)
        })
    });
}
