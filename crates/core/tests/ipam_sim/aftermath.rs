//! After the turmoil: whatever is left is found and freed, and keeps nobody from anything.

use std::sync::Arc;

use buoy_api::ip::Family;
use buoy_api::ipam::IpamConfig;
use buoy_api::names::address_of_floating_handle;
use buoy_core::ipam::{
    Ask, Asker, AutoAssign, AutoAssignRequest, Grant, ReleaseHandle, ReleaseReservation, Snapshot,
};
use buoy_core::store::{Key, Value};
use jiff::SignedDuration;

use super::actors::Phase;
use super::check::holder;
use super::run::Run;
use super::world::World;

impl Run {
    /// A collector frees what belongs to nobody, found by the handles alone; then everybody goes.
    pub(crate) fn tidy_up(&mut self) -> Result<(), String> {
        let live = |world: &World, id: &str| {
            world
                .containers
                .iter()
                .any(|container| container.phase == Phase::Live && container.handle == id)
                || world.floating.iter().any(|floating| {
                    floating.live.is_some() && address_of_floating_handle(id) == Some(floating.address.addr())
                })
        };
        for id in self.handles() {
            if !live(&self.world, &id) {
                self.collect(&id)?;
            }
        }
        self.world.check()?;
        self.world.containers.clear();
        self.world
            .floating
            .iter_mut()
            .for_each(|floating| floating.live = None);
        for id in self.handles() {
            self.collect(&id)?;
        }
        for (key, value) in self.world.store.iter() {
            match value {
                Value::Handle(_) => return Err(format!("left: {key:?}")),
                Value::Block(block) if !block.is_empty() => {
                    return Err(format!("addresses are left: {block:?}"));
                }
                _ => {}
            }
        }
        // It takes as long as all the rest.
        if self.world.rng.chance(250) {
            self.everything_can_be_given_again()
        } else {
            Ok(())
        }
    }

    fn handles(&self) -> Vec<String> {
        let of_handle = |(key, _): (&Key, _)| match key {
            Key::Handle(id) => Some(id.clone()),
            _ => None,
        };
        self.world.store.iter().filter_map(of_handle).collect()
    }

    fn collect(&mut self, id: &str) -> Result<(), String> {
        self.tell(|_| format!("collect {id}"));
        let released = match address_of_floating_handle(id) {
            None => self.drive(ReleaseHandle::new(id.to_owned()))?,
            Some(address) => {
                let stamp = holder(&self.world.store, address).map_or(0, |(_, stamp)| stamp);
                let address = address.try_into().map_err(|error| format!("{error}"))?;
                self.drive(ReleaseReservation::new(address, stamp))?
            }
        };
        released
            .map(drop)
            .map_err(|error| format!("{id} cannot be released: {error}"))
    }

    /// Nothing that died keeps a new host from any address.
    fn everything_can_be_given_again(&mut self) -> Result<(), String> {
        let snapshot = Snapshot {
            config: IpamConfig::default(),
            ..(*self.world.snapshot).clone()
        };
        let room = |family: Family| {
            let pools = snapshot.pools.iter().map(|pool| pool.spec.cidr);
            let hosts = pools
                .filter(|cidr| Family::of_net(cidr) == family)
                .flat_map(all_of);
            hosts
                .filter(|address| !snapshot.reserved.iter().any(|range| range.contains(address)))
                .count()
        };
        let (v4, v6) = (room(Family::V4), room(Family::V6));
        let handle = "net.last".to_owned();
        let later = self
            .world
            .now
            .checked_add(SignedDuration::from_mins(5))
            .map_err(|error| error.to_string())?;
        let request = AutoAssignRequest {
            snapshot: Arc::new(snapshot),
            asker: Asker {
                host: "new".to_owned(),
                ..Asker::default()
            },
            grant: Grant {
                handle: handle.clone(),
                ..Grant::default()
            },
            v4: Ask::of(v4),
            v6: Ask::of(v6),
            cached: Vec::new(),
            seed: self.world.rng.next(),
            now: later,
        };
        let assigned = self.drive(AutoAssign::new(request))?;
        let assigned = assigned.map_err(|error| format!("a new host does not get every address: {error}"))?;
        if assigned.addresses.len() != v4 + v6 {
            return Err(format!(
                "a new host was given {} of {}",
                assigned.addresses.len(),
                v4 + v6
            ));
        }
        self.drive(ReleaseHandle::new(handle))?
            .map_err(|error| error.to_string())?;
        match self.handles().first() {
            Some(left) => Err(format!("handle {left} is left")),
            None => Ok(()),
        }
    }
}

fn all_of(cidr: ipnet::IpNet) -> impl Iterator<Item = std::net::IpAddr> {
    (0..).map_while(move |n| buoy_api::ipam::nth_address(&cidr, n))
}
