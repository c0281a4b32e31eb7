//! The whole simulated cluster, and what each protocol's end means for it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use buoy_api::ip::Family;
use buoy_api::ipam::{AffinityOwner, IpamConfig};
use buoy_api::meta::ObjectMeta;
use buoy_api::names::floating_handle;
use buoy_api::v3::{IpPool, IpPoolSpec};
use buoy_core::ipam::{
    Ask, Asker, AssignAddress, AssignAddressRequest, AutoAssign, AutoAssignRequest, GiveUpBlock, Grant,
    ReleaseHandle, ReleaseReservation, ReserveFloating, ReserveRequest, Snapshot,
};
use buoy_core::store::{Key, Next, Reply, Value};
use jiff::{SignedDuration, Timestamp};

use super::actors::{Container, Floating, Host, Phase, Process, Purpose, Wish};
use super::check::{self, block_of, holder};
use super::machine::{Machine, ReleaseBareAddress};
use super::rng::Rng;
use super::run::Flaw;
use super::store::SimStore;

pub(crate) struct World {
    pub rng: Rng,
    pub store: SimStore,
    pub snapshot: Arc<Snapshot>,
    pub hosts: Vec<Host>,
    pub containers: Vec<Container>,
    pub floating: Vec<Floating>,
    pub processes: Vec<Process>,
    pub now: Timestamp,
    pub flaw: Flaw,
}

impl World {
    pub(crate) fn new(seed: u64, flaw: Flaw) -> Self {
        let mut rng = Rng::new(seed);
        let pools = [
            *rng.pick(&["10.0.0.0/28", "10.0.0.0/29"]).unwrap(),
            *rng.pick(&["fd00::/124", "fd00::/125"]).unwrap(),
        ];
        let reserved: &[&str] = rng
            .pick(&[&[][..], &["10.0.0.2/31"], &["10.0.0.4/30", "fd00::5/128"]])
            .unwrap();
        let config = IpamConfig {
            strict_affinity: rng.chance(300),
            max_blocks_per_host: *rng.pick(&[0, 0, 1, 2, 3]).unwrap(),
            ..IpamConfig::default()
        };
        let hosts = (0..2 + rng.below(4)).map(|index| Host {
            name: format!("n{index}"),
            cache: Vec::new(),
        });
        let floating = ["10.0.0.5", "fd00::2"].map(|address| Floating {
            address: address.parse().unwrap(),
            live: None,
            stamps: Vec::new(),
        });
        Self {
            hosts: hosts.collect(),
            rng,
            store: SimStore::default(),
            snapshot: Arc::new(Snapshot {
                pools: pools.iter().map(|cidr| pool(cidr)).collect(),
                reserved: reserved.iter().map(|cidr| cidr.parse().unwrap()).collect(),
                config,
            }),
            containers: Vec::new(),
            floating: floating.into(),
            processes: Vec::new(),
            now: Timestamp::from_second(1_700_000_000).unwrap(),
            flaw,
        }
    }

    /// Time goes by; never does one moment begin two requests.
    fn pass(&mut self, seconds: usize) {
        let pause = SignedDuration::new(seconds as i64, 1_000);
        self.now = self.now.checked_add(pause).unwrap();
    }

    /// A container that was not there before.
    pub(crate) fn new_container(&mut self) -> usize {
        let wish = match self.rng.below(8) {
            0 => Wish::Auto { v4: 0, v6: 1 },
            1 => Wish::Auto { v4: 2, v6: 1 },
            2 | 3 => Wish::Auto { v4: 1, v6: 1 },
            4 => Wish::Addresses(vec![self.any_address(Family::V4)]),
            5 => Wish::Addresses(vec![self.any_address(Family::V4), self.any_address(Family::V6)]),
            _ => Wish::Auto { v4: 1, v6: 0 },
        };
        let container = Container {
            handle: format!("net.c{}", self.containers.len()),
            host: self.rng.below(self.hosts.len()),
            wish,
            phase: Phase::New,
            addresses: Vec::new(),
            busy: 0,
            doomed: false,
        };
        self.containers.push(container);
        self.containers.len() - 1
    }

    fn any_address(&mut self, family: Family) -> IpAddr {
        let pool = self
            .snapshot
            .pools
            .iter()
            .find(|pool| Family::of_net(&pool.spec.cidr) == family)
            .unwrap();
        let n = self.rng.below(8) as u128;
        buoy_api::ipam::nth_address(&pool.spec.cidr, n).unwrap()
    }

    pub(crate) fn add(&mut self, index: usize) {
        let pause = self.rng.below(20);
        self.pass(pause);
        let container = &mut self.containers[index];
        container.doomed |= container.busy > 0;
        let host = container.host;
        let machine = self.adding(index);
        self.begin(Purpose::Add(index), host, machine);
    }

    fn adding(&mut self, index: usize) -> Machine {
        let container = &self.containers[index];
        let host = &self.hosts[container.host];
        let asker = Asker {
            host: host.name.clone(),
            ..Asker::default()
        };
        let grant = Grant {
            handle: container.handle.clone(),
            attributes: BTreeMap::from([("node".to_owned(), host.name.clone())]),
        };
        let snapshot = self.snapshot.clone();
        match &container.wish {
            Wish::Auto { v4, v6 } => Machine::Auto(AutoAssign::new(AutoAssignRequest {
                snapshot,
                asker,
                grant,
                v4: Ask::of(*v4),
                v6: Ask::of(*v6),
                cached: host.cache.clone(),
                seed: self.rng.next(),
                now: self.now,
            })),
            Wish::Addresses(addresses) => Machine::Address(AssignAddress::new(AssignAddressRequest {
                snapshot,
                asker,
                grant,
                addresses: addresses.clone(),
                now: self.now,
            })),
        }
    }

    pub(crate) fn delete(&mut self, index: usize) {
        let container = &mut self.containers[index];
        container.doomed |= container.busy > 0;
        if container.phase == Phase::Live {
            container.phase = Phase::Broken;
        }
        let host = container.host;
        let machine = match (self.flaw, container.addresses.first()) {
            (Flaw::ReleaseByBareAddress, Some(address)) => Machine::Bare(ReleaseBareAddress {
                address: *address,
                block: block_of(*address),
            }),
            _ => Machine::Release(ReleaseHandle::new(container.handle.clone())),
        };
        self.begin(Purpose::Delete(index), host, machine);
    }

    pub(crate) fn reserve(&mut self, index: usize) {
        let host = self.rng.below(self.hosts.len());
        self.pass(1);
        let machine = Machine::Reserve(ReserveFloating::new(ReserveRequest {
            known: None,
            snapshot: self.snapshot.clone(),
            address: self.floating[index].address,
            now: self.now,
        }));
        self.begin(Purpose::Reserve(index), host, machine);
    }

    pub(crate) fn release_reservation(&mut self, index: usize, stamp: u64) {
        let floating = &mut self.floating[index];
        if floating.live.is_some_and(|live| live <= stamp) {
            floating.live = None;
        }
        let machine = Machine::ReleaseReservation(ReleaseReservation::new(floating.address, stamp));
        let host = self.rng.below(self.hosts.len());
        self.begin(Purpose::Release(index), host, machine);
    }

    /// Somebody takes a host for gone, which may live all the same, and gives up one of its blocks.
    pub(crate) fn give_up(&mut self) {
        let blocks = self.store.iter().filter_map(|(_, value)| match value {
            Value::Block(block) => Some((block.affinity.clone()?, block.cidr)),
            _ => None,
        });
        let claims = self.store.iter().filter_map(|(key, _)| match key {
            Key::Affinity { owner, cidr } => Some((owner.clone(), *cidr)),
            _ => None,
        });
        let claims: Vec<_> = blocks.chain(claims).collect();
        if let Some((owner, cidr)) = self.rng.pick(&claims).cloned() {
            let host = self.rng.below(self.hosts.len());
            let machine = Machine::GiveUp(GiveUpBlock::new(owner, cidr));
            self.begin(Purpose::GiveUp, host, machine);
        }
    }

    /// The host's watch catches up.
    pub(crate) fn refresh(&mut self, host: usize) {
        let owner = AffinityOwner::Host(self.hosts[host].name.clone());
        let own = self.store.iter().filter(|(key, value)| match (key, value) {
            (Key::Block(_), Value::Block(block)) => block.affinity.as_ref() == Some(&owner),
            (Key::Affinity { owner: of, .. }, _) => *of == owner,
            _ => false,
        });
        let keys: Vec<Key> = own.map(|(key, _)| key.clone()).collect();
        self.hosts[host].cache = keys.iter().filter_map(|key| self.store.get(key)).collect();
    }

    pub(crate) fn begin(&mut self, purpose: Purpose, host: usize, mut machine: Machine) {
        if let Purpose::Add(index) | Purpose::Delete(index) = purpose {
            self.containers[index].busy += 1;
        }
        // A protocol that needs the store at all begins with an operation; the pools here refuse nobody.
        if let Next::Do(next) = machine.step(Reply::Start) {
            let failed = false;
            self.processes.push(Process {
                purpose,
                host,
                machine,
                next,
                failed,
            });
        }
    }

    /// The process dies where it is.
    pub(crate) fn crash(&mut self, process: usize) {
        let process = self.processes.swap_remove(process);
        if let Purpose::Add(index) | Purpose::Delete(index) = process.purpose {
            self.settle_container(index, Phase::Broken);
        }
    }

    /// Everything that must hold now: the records, and who lives.
    pub(crate) fn check(&self) -> Result<(), String> {
        check::records(&self.store)?;
        for container in self
            .containers
            .iter()
            .filter(|container| container.phase == Phase::Live)
        {
            for address in &container.addresses {
                let holder = holder(&self.store, *address).map(|(handle, _)| handle);
                if holder != Some(&container.handle) {
                    return Err(format!(
                        "{} lives with {address}, given to {holder:?}",
                        container.handle
                    ));
                }
            }
        }
        for floating in &self.floating {
            let address = floating.address.addr();
            let (Some(live), holder) = (floating.live, holder(&self.store, address)) else {
                continue;
            };
            if holder.is_none_or(|(handle, stamp)| handle != floating_handle(address) || stamp < live) {
                return Err(format!(
                    "floating IP {address} was stamped {live}, and is given to {holder:?}"
                ));
            }
        }
        Ok(())
    }
}

pub(crate) fn pool(cidr: &str) -> IpPool {
    let mut spec = IpPoolSpec::new(cidr.parse().unwrap());
    spec.block_size = Some(spec.cidr.max_prefix_len() - 2);
    IpPool::new(ObjectMeta::named(cidr.replace(['.', ':', '/'], "-")), spec)
}
