//! Calico and this project allocate from one prefix at the same time, on six nodes that die and lose answers, while a
//! collector of Calico's goes round: no address is given twice, and nothing that lives is freed.

mod agreement;
mod calico;
mod clock;
mod collector;
mod collects;
mod cooling;
mod ledger;
mod line;
mod node;
mod release;

pub(crate) use collects::{
    a_handle_is_collected_as_a_whole, blocks_that_stay_empty_are_given_up, cold_addresses_are_freed,
    leaks_are_collected_in_batches, nothing_of_ours_is_collected, what_is_leaked_is_collected,
};

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use buoy_api::ObjectMeta;
use buoy_api::ip::FloatingIp;
use buoy_api::v3::{IpPool, IpPoolSpec};
use buoy_core::ipam::{ReserveFloating, ReserveRequest, Snapshot};
use buoy_datastore::{Datastore, drive};
use ipnet::IpNet;
use jiff::Timestamp;

use crate::tools::Backend;
use calico::Calico;
use clock::Clock;
use collector::{Collector, RULES};
use cooling::Cooling;
use line::{Dice, Line};
use node::{Kind, Node};

const POOL: &str = "10.77.0.0/24";
const BLOCK_LEN: u8 = 28;
const ROUNDS: u64 = 150;
const NODES: [&str; 7] = ["n0", "n1", "n2", "n3", "n4", "n5", "n6"];
/// Scans that find nothing, after which nothing is left to be found: a grace is over after three.
const IDLE: u32 = 5;

fn handle(node: &str, round: u64) -> String {
    format!("net.{node}-{round}")
}

/// What is known to be so, whatever the store says.
#[derive(Default)]
struct Truth {
    /// Who uses an address.
    used: BTreeMap<IpAddr, String>,
    /// Nobody will free what these have: their node died with them.
    abandoned: BTreeSet<String>,
}

fn pool() -> IpNet {
    POOL.parse().unwrap()
}

fn snapshot() -> Arc<Snapshot> {
    let mut spec = IpPoolSpec::new(pool());
    spec.block_size = Some(BLOCK_LEN);
    Arc::new(Snapshot {
        pools: vec![IpPool::new(ObjectMeta::named("shared"), spec)],
        ..Snapshot::default()
    })
}

/// Reserves floating IPs of this project, for as long as their bindings live. Their handles.
fn reserve<const N: usize>(store: &dyn Datastore, addresses: [&str; N]) -> BTreeMap<IpAddr, String> {
    let reserved = addresses.map(|text| {
        let address: FloatingIp = text.parse().unwrap();
        drive(store, ReserveFloating::new(reservation(address))).unwrap();
        (address.addr(), buoy_api::names::floating_handle(address.addr()))
    });
    reserved.into()
}

fn reservation(address: FloatingIp) -> ReserveRequest {
    ReserveRequest {
        known: None,
        snapshot: snapshot(),
        address,
        now: Timestamp::now(),
    }
}

/// An address of a pod that is not there.
fn leak(store: &dyn Datastore) {
    let line = Line::new(store, Dice::new(1));
    line.set_bad(false);
    let assigned = node::assign_by(&line, "n6", "net.leak");
    assert!(matches!(assigned, Ok(Some(_))), "{assigned:?}");
}

/// One of Calico's nodes.
fn calico<'a>(line: Line<'a>, host: &str) -> Calico<'a> {
    Calico {
        line,
        host: host.to_owned(),
        pool: pool(),
        block_len: BLOCK_LEN,
        cooling: Cooling::NONE,
    }
}

pub(crate) fn writers_of_two_kinds_share_a_prefix(backend: &dyn Backend) {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let pods = (0..6).flat_map(|node| {
        let node = format!("n{node}");
        (0..ROUNDS).map(move |round| (node.clone(), handle(&node, round)))
    });
    backend.make_pods("shop", &pods.collect::<Vec<_>>());
    backend.make_nodes(&NODES);
    let (truth, clock) = (Mutex::new(Truth::default()), Clock::default());
    let reserved = reserve(&*backend.open(), ["10.77.0.3", "10.77.0.100", "10.77.0.255"]);
    truth.lock().unwrap().used.extend(reserved);
    leak(&*backend.open());
    let over = AtomicBool::new(false);
    let collected = std::thread::scope(|scope| {
        let nodes: Vec<_> = (0..6)
            .map(|index| {
                let (truth, clock) = (&truth, &clock);
                scope.spawn(move || one_node(backend, truth, clock, (index, seed)))
            })
            .collect();
        let collecting = scope.spawn(|| collect(backend, &truth, &clock, &over));
        let ended: Vec<_> = nodes.into_iter().map(|node| node.join()).collect();
        over.store(true, Ordering::SeqCst);
        let collected = collecting.join().unwrap();
        for end in ended {
            end.unwrap();
        }
        collected
    });
    let truth = truth.into_inner().unwrap();
    let used = truth.used.len();
    println!(
        "{used} addresses in use, {collected} collected, {} abandoned",
        truth.abandoned.len()
    );
    assert!(used > 150, "there was little to fight for: {used}");
    assert!(collected > 0, "the collector never found what nobody has");
    agreement::everything_agrees(&*backend.open(), &truth);
}

fn one_node(backend: &dyn Backend, truth: &Mutex<Truth>, clock: &Clock, (index, seed): (u64, u64)) {
    let store = backend.open();
    let name = format!("n{index}");
    let line = Line::new(&*store, Dice::new(seed * 7 + index));
    let kind = if index.is_multiple_of(2) {
        Kind::Buoy(line)
    } else {
        Kind::Calico(calico(line, &name))
    };
    let mut node = Node {
        name,
        kind,
        truth,
        clock,
        has: Vec::new(),
    };
    node.live();
}

/// Scans whenever it is time to until all is over, and then until nothing is left to free.
fn collect(backend: &dyn Backend, truth: &Mutex<Truth>, clock: &Clock, over: &AtomicBool) -> usize {
    let store = backend.open();
    let mut collector = Collector::new(&*store, RULES, Timestamp::now());
    let (mut freed, mut idle, mut scans) = (0, 0, 0);
    while idle < IDLE {
        let was_over = over.load(Ordering::SeqCst);
        let Some(now) = clock.step(RULES.grace / 2) else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        scans += 1;
        let frees = |address, handle: &str| {
            let used = truth.lock().unwrap().used.get(&address).cloned();
            assert_ne!(used.as_deref(), Some(handle), "{address} lives");
        };
        let collected = collector.scan(now, frees);
        freed += collected;
        idle = if was_over && collected == 0 { idle + 1 } else { 0 };
    }
    println!("{scans} scans");
    assert_eq!(collector.suspects(), 0);
    freed
}
