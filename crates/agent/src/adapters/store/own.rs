//! Own addresses of workloads, on a thread of their own: assigned, taken again, released.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use buoy_api::ip::Family;
use buoy_core::endpoint::{AddressRequest, Attachment};
use buoy_core::ipam::{
    Ask, AssignAddress, AssignAddressRequest, Assigned, AutoAssign, AutoAssignRequest, Grant, IpamError,
    ReleaseHandle, Snapshot,
};
use buoy_core::records;
use buoy_core::store::{Prefix, Value};
use buoy_datastore::{drive, list};
use ipnet::IpNet;

use super::Performer;
use super::context::Context;
use crate::inputs::Outcome;

impl Performer {
    /// Assigns an attachment's addresses. If the pools that are known do not do, they are read: of one that was made just
    /// now, nobody may have told yet.
    pub(super) fn allocate(
        &mut self,
        attachment: &Attachment,
        context: Context,
    ) -> Result<Vec<IpNet>, IpamError> {
        match self.allocate_from_known(attachment, context.clone()) {
            Err(IpamError::Pool(error)) => match self.newer(&context.snapshot) {
                Some(snapshot) => self.allocate_from_known(attachment, Context { snapshot, ..context }),
                None => Err(error.into()),
            },
            allocated => allocated,
        }
    }

    /// The same with other pools, if there are.
    fn newer(&self, known: &Snapshot) -> Option<Arc<Snapshot>> {
        let (records, _) = list(self.store.as_ref(), Prefix::Pools).ok()?;
        let pools = records.into_iter().filter_map(|record| match record.value {
            Ok(Value::Pool(pool)) => Some(pool),
            _ => None,
        });
        let newer = Snapshot {
            pools: pools.collect(),
            ..known.clone()
        };
        (newer != *known).then(|| Arc::new(newer))
    }

    fn allocate_from_known(
        &mut self,
        attachment: &Attachment,
        context: Context,
    ) -> Result<Vec<IpNet>, IpamError> {
        let (grant, restores) = (grant(attachment, &context), context.restores);
        let assigned: Assigned = match &attachment.request.addresses {
            AddressRequest::Given(addresses) => {
                return Ok(addresses.iter().copied().map(IpNet::from).collect());
            }
            AddressRequest::Specific(addresses) => self.assign(addresses.clone(), grant, context)?,
            AddressRequest::Automatic {
                families,
                ipv4_pools,
                ipv6_pools,
            } => {
                let ask = |family: Family, pools: &[String]| Ask {
                    count: families.iter().filter(|f| Family::from(**f) == family).count(),
                    pools: pools.to_vec(),
                };
                let request = AutoAssignRequest {
                    v4: ask(Family::V4, ipv4_pools),
                    v6: ask(Family::V6, ipv6_pools),
                    cached: self.written.freshest(context.cached, context.restores),
                    snapshot: context.snapshot,
                    seed: seed(&context.asker.host),
                    asker: context.asker,
                    grant,
                    now: context.now.wall,
                };
                drive(self.store.as_ref(), AutoAssign::new(request))?
            }
        };
        self.written.remember(assigned.written, restores);
        Ok(assigned.addresses)
    }

    /// Takes an attachment's addresses again.
    pub(super) fn reallocate(&mut self, attachment: &Attachment, context: Context) -> Result<(), IpamError> {
        let (grant, restores) = (grant(attachment, &context), context.restores);
        let assigned = self.assign(attachment.own_addresses().collect(), grant, context)?;
        self.written.remember(assigned.written, restores);
        Ok(())
    }

    fn assign(&self, addresses: Vec<IpAddr>, grant: Grant, context: Context) -> Result<Assigned, IpamError> {
        let request = AssignAddressRequest {
            snapshot: context.snapshot,
            asker: context.asker,
            grant,
            addresses,
            now: context.now.wall,
        };
        drive(self.store.as_ref(), AssignAddress::new(request))
    }

    /// Releases an attachment's addresses, and then its record.
    pub(super) fn retire(&mut self, attachment: &Attachment, restores: u64) -> Outcome {
        let handle = attachment.request.handle(&attachment.id);
        if !attachment.request.is_given() {
            match drive(self.store.as_ref(), ReleaseHandle::new(handle)) {
                Ok(released) => self.written.remember(released.written, restores),
                Err(error) => return Outcome::Failed(error.to_string()),
            }
        }
        // Of a pod that ends the kubelet writes at the same time: what is known of it is seldom what is there.
        self.edit(records::endpoint_key(attachment), |found| {
            records::retired(found, attachment)
        })
    }
}

fn grant(attachment: &Attachment, context: &Context) -> Grant {
    let mut attributes = BTreeMap::from([
        ("node".to_owned(), context.asker.host.clone()),
        ("timestamp".to_owned(), go_timestamp(context.now.wall)),
    ]);
    if attachment.request.is_pod() {
        attributes.insert("namespace".to_owned(), attachment.endpoint.namespace.clone());
        attributes.insert("pod".to_owned(), attachment.request.workload.clone());
    }
    Grant {
        handle: attachment.request.handle(&attachment.id),
        attributes,
    }
}

/// A time as Calico writes it into an allocation's attributes.
fn go_timestamp(time: jiff::Timestamp) -> String {
    format!("{} +0000 UTC", time.strftime("%Y-%m-%d %H:%M:%S.%f"))
}

/// Where a node begins its walk for a free block: the same every time, and another for each node.
fn seed(node: &str) -> u64 {
    node.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
