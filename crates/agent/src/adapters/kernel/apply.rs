//! One call to the kernel for each operation.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use buoy_api::FloatingIp;
use buoy_core::desired::{Hop, RouteKey};
use buoy_core::endpoint::{AttachmentId, IfIndex, IfName};
use buoy_core::observed::Observed;
use buoy_core::op::{Effect, Element, LinkRef, NftTransaction, Op};
use buoy_kernel::netlink::{OwnPorts, Protocol, Socket};
use buoy_kernel::nft::{self, Loaded, Nft};
use buoy_kernel::route::{self, Route, Target};
use buoy_kernel::{BIRD_PROTOCOL, Error, link};
use ipnet::IpNet;

use super::flows::Flows;
use super::observe::{learnt_by, mend, observe};
use super::{Namespaces, Originals, links, open_nft};
use crate::adapters::bird::Bird;
use crate::inputs::{Applied, OpError};

/// How many elements are added in one transaction, if they need not take effect at once.
const PART: usize = 500;

/// What came of one operation.
type Outcome = Result<Effect, OpError>;

/// Everything that operations are carried out with.
#[derive(Debug)]
pub(crate) struct Hands {
    own: OwnPorts,
    route: Socket,
    nft: Nft,
    flows: Flows,
    makers: Vec<Socket>,
    namespaces: Namespaces,
    originals: Originals,
    bird: Option<Bird>,
    /// Links that the present plan made or named.
    named: BTreeMap<IfName, IfIndex>,
}

impl Hands {
    /// Opens what is needed, in the namespace of this thread.
    pub(crate) fn new(
        own: OwnPorts,
        namespaces: Namespaces,
        originals: Originals,
        bird: Option<Bird>,
    ) -> Result<Self> {
        let route = Socket::open(Protocol::Route).context("open netlink")?;
        own.add(route.port());
        let nft = open_nft(&own)?;
        let flows = Flows::open(namespaces.clone())?;
        Ok(Self {
            own,
            route,
            nft,
            flows,
            makers: Vec::new(),
            namespaces,
            originals,
            bird,
            named: BTreeMap::new(),
        })
    }

    /// Reads the kernel back.
    pub(crate) fn observe(&mut self) -> buoy_kernel::Result<Observed> {
        mend(&mut self.nft, &self.own)?;
        let mut observed = observe(&mut self.route, &mut self.nft)?;
        observed.bird = self.bird.as_ref().and_then(Bird::loaded);
        Ok(observed)
    }

    /// Floating IPs to which the routing daemon has a route. None, where somebody else has that daemon.
    pub(crate) fn learnt(&mut self) -> buoy_kernel::Result<BTreeSet<FloatingIp>> {
        if self.bird.is_none() {
            return Ok(BTreeSet::new());
        }
        let routes = route::list_of(&mut self.route, BIRD_PROTOCOL)?;
        Ok(routes.iter().filter_map(learnt_by).collect())
    }

    /// Deletes the tables.
    pub(crate) fn delete_tables(&mut self) -> buoy_kernel::Result<()> {
        self.nft.delete_tables()
    }

    /// Settings that can be given back.
    pub(crate) fn into_originals(self) -> Originals {
        self.originals
    }

    /// Carries out a plan in its order. What comes in numbers goes to the kernel in one batch; every operation's result
    /// is told, and one that fails stops no other.
    pub(crate) fn apply(&mut self, ops: Vec<Op>) -> Vec<Applied> {
        self.named.clear();
        let mut applied = Vec::with_capacity(ops.len());
        let mut rest = ops.into_iter().peekable();
        while let Some(first) = rest.next() {
            let mut run = vec![first];
            while let Some(next) = rest.next_if(|next| is_batched(&run[0], next)) {
                run.push(next);
            }
            let results = self.apply_run(&run);
            applied.extend(
                run.into_iter()
                    .zip(results)
                    .map(|(op, result)| Applied { op, result }),
            );
        }
        applied
    }

    fn apply_run(&mut self, run: &[Op]) -> Vec<Outcome> {
        match &run[0] {
            Op::LoadRuleset => vec![self.load_ruleset()],
            Op::SetSysctl(path, value) => {
                let failed = |e: anyhow::Error| OpError {
                    message: format!("{e:#}"),
                    namespace_gone: false,
                };
                vec![
                    self.originals
                        .set(path, value)
                        .map(|()| Effect::Done)
                        .map_err(failed),
                ]
            }
            Op::AddLink(..) => self.add_links(run),
            Op::RaiseLink(name, index, gateway_v6) => {
                vec![links::raise(&mut self.route, name, *index, *gateway_v6)]
            }
            Op::DelLink(name, index) => {
                vec![links::delete(&mut self.route, name, *index).map(|()| Effect::Done)]
            }
            Op::Nft(transaction) => vec![self.change_elements(transaction)],
            Op::PutRoute(..) => self.put_routes(run),
            Op::DelRoute(_) => self.del_routes(run),
            Op::LoadBird(text) => vec![self.load_bird(text)],
            Op::EndFlows(_) => {
                let ends = run.iter().filter_map(|op| {
                    if let Op::EndFlows(end) = op {
                        Some(end)
                    } else {
                        None
                    }
                });
                self.flows.end(&ends.collect::<Vec<_>>())
            }
        }
    }

    fn load_bird(&self, text: &str) -> Outcome {
        let absent = || OpError {
            message: "this agent has no routing daemon".to_owned(),
            namespace_gone: false,
        };
        self.bird.as_ref().ok_or_else(absent)?.load(text)?;
        Ok(Effect::Done)
    }

    fn load_ruleset(&mut self) -> Outcome {
        match nft::load(&mut self.nft, &self.own)? {
            Loaded::Kept => Ok(Effect::Done),
            Loaded::Emptied => Ok(Effect::Emptied),
        }
    }

    fn add_links(&mut self, run: &[Op]) -> Vec<Outcome> {
        let orders: Vec<links::Order> = run
            .iter()
            .filter_map(|op| {
                if let Op::AddLink(name, link) = op {
                    Some((name.clone(), link.clone()))
                } else {
                    None
                }
            })
            .collect();
        let results = links::create_all(&mut self.makers, &self.own, &self.namespaces, &orders);
        for ((name, _), result) in orders.into_iter().zip(&results) {
            if let Ok(Effect::Link(index)) = result {
                self.named.insert(name, *index);
            }
        }
        results
    }

    fn change_elements(&mut self, transaction: &NftTransaction) -> Outcome {
        for part in parts(transaction) {
            let of = |elements: Vec<&Element>| {
                elements
                    .iter()
                    .filter_map(|element| self.element(element))
                    .collect()
            };
            let (add, del) = (of(part.add), of(part.del));
            self.nft.apply(&nft::Transaction { add, del })?;
        }
        Ok(Effect::Done)
    }

    /// An element as the kernel knows it; none where its link could not be made.
    fn element(&self, element: &Element) -> Option<nft::Element> {
        Some(match element {
            Element::Member(link) => nft::Element::Link(self.index(link)?),
            Element::Source(link, prefix) if is_host(prefix) => {
                nft::Element::Source(self.index(link)?, prefix.addr())
            }
            Element::Source(link, prefix) => nft::Element::SourcePrefix(self.index(link)?, *prefix),
            Element::Nat(floating, internal) => nft::Element::Nat {
                floating: floating.addr(),
                internal: *internal,
            },
            Element::Ending(floating, old) => nft::Element::Ending(floating.addr(), *old),
            Element::Draining(floating, old, time) => nft::Element::Draining(floating.addr(), *old, *time),
        })
    }

    fn index(&self, link: &LinkRef) -> Option<buoy_kernel::IfIndex> {
        let index = match link {
            LinkRef::Index(index) => *index,
            LinkRef::Name(name) => *self.named.get(name)?,
        };
        Some(buoy_kernel::IfIndex(index.0))
    }

    fn put_routes(&mut self, run: &[Op]) -> Vec<Outcome> {
        let routes: Vec<Result<Route, OpError>> = run
            .iter()
            .filter_map(|op| {
                if let Op::PutRoute(key, hop) = op {
                    Some((key, hop))
                } else {
                    None
                }
            })
            .map(|(key, hop)| self.route_to(key, hop))
            .collect();
        let whole: Vec<Route> = routes
            .iter()
            .filter_map(|route| route.as_ref().ok().copied())
            .collect();
        let mut results = outcomes(route::put(&mut self.route, &whole), whole.len()).into_iter();
        let put = routes
            .into_iter()
            .map(|route| route.and_then(|_| results.next().unwrap_or(Ok(Effect::Done))));
        put.collect()
    }

    fn route_to(&mut self, key: &RouteKey, hop: &Hop) -> Result<Route, OpError> {
        let target = match hop {
            Hop::Unreachable => Target::Unreachable,
            Hop::Link(name) => Target::Link {
                ifindex: self.index_by_name(name)?,
                gateway: None,
            },
        };
        Ok(Route {
            destination: key.prefix,
            table: route::MAIN_TABLE,
            metric: key.metric,
            target,
        })
    }

    fn index_by_name(&mut self, name: &IfName) -> Result<buoy_kernel::IfIndex, OpError> {
        if let Some(index) = self.named.get(name) {
            return Ok(buoy_kernel::IfIndex(index.0));
        }
        let absent = || OpError {
            message: format!("no link of ours: {name}"),
            namespace_gone: false,
        };
        // A stranger's link of this name is not the one that is meant.
        let found = link::find_link(&mut self.route, &name.0)?
            .filter(|link| link.alias.as_deref().and_then(AttachmentId::from_alias).is_some())
            .ok_or_else(absent)?;
        self.named.insert(name.clone(), IfIndex(found.ifindex.0));
        Ok(found.ifindex)
    }

    fn del_routes(&mut self, run: &[Op]) -> Vec<Outcome> {
        let keys = run.iter().filter_map(|op| {
            if let Op::DelRoute(key) = op {
                Some(key)
            } else {
                None
            }
        });
        let routes: Vec<Route> = keys
            .map(|key| Route {
                destination: key.prefix,
                table: route::MAIN_TABLE,
                metric: key.metric,
                target: Target::Unreachable,
            })
            .collect();
        outcomes(route::del(&mut self.route, &routes), routes.len())
    }
}

/// Whether an operation can go to the kernel together with the ones before it.
fn is_batched(first: &Op, next: &Op) -> bool {
    matches!(
        (first, next),
        (Op::AddLink(..), Op::AddLink(..))
            | (Op::PutRoute(..), Op::PutRoute(..))
            | (Op::DelRoute(_), Op::DelRoute(_))
            | (Op::EndFlows(_), Op::EndFlows(_))
    )
}

/// What one transaction of the kernel changes.
struct Part<'a> {
    add: Vec<&'a Element>,
    del: Vec<&'a Element>,
}

/// Additions in numbers go to the kernel in parts: it keeps a message for each element and each listener until the
/// commit, and thirty thousand at once take twice as long as in parts. What replaces something, or is drained, changes
/// in one transaction; and no flow's end is noted later than the translation that ends it.
fn parts(transaction: &NftTransaction) -> Vec<Part<'_>> {
    let drains = |element: &Element| matches!(element, Element::Draining(..));
    if !transaction.del.is_empty() || transaction.add.len() <= PART || transaction.add.iter().any(drains) {
        return vec![Part {
            add: transaction.add.iter().collect(),
            del: transaction.del.iter().collect(),
        }];
    }
    let mut add: Vec<&Element> = transaction.add.iter().collect();
    add.sort_by_key(|element| !matches!(element, Element::Ending(..)));
    add.chunks(PART)
        .map(|chunk| Part {
            add: chunk.to_vec(),
            del: Vec::new(),
        })
        .collect()
}

fn outcomes(batch: Result<Vec<Result<(), Error>>, Error>, count: usize) -> Vec<Outcome> {
    match batch {
        Ok(results) => results
            .into_iter()
            .map(|result| Ok(result.map(|()| Effect::Done)?))
            .collect(),
        Err(error) => vec![Err(OpError::from(&error)); count],
    }
}

fn is_host(prefix: &IpNet) -> bool {
    prefix.prefix_len() == prefix.max_prefix_len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floating(number: usize) -> FloatingIp {
        let [.., high, low] = number.to_be_bytes();
        FloatingIp::try_from(std::net::IpAddr::from([10, 9, high, low])).unwrap()
    }

    /// So many addresses that had no owner here.
    fn claimed(count: usize) -> NftTransaction {
        let of = |number| {
            let floating = floating(number);
            let internal = std::net::IpAddr::from([10, 65, 0, 1]);
            [
                Element::Nat(floating, internal),
                Element::Ending(floating, floating.addr()),
            ]
        };
        NftTransaction {
            add: (0..count).flat_map(of).collect(),
            del: Vec::new(),
        }
    }

    #[test]
    fn many_additions_go_in_parts_and_ends_of_flows_first() {
        let transaction = claimed(PART);
        let parts = parts(&transaction);
        assert_eq!(
            parts.iter().map(|part| part.add.len()).collect::<Vec<_>>(),
            [PART, PART]
        );
        let is_end = |element: &&Element| matches!(element, Element::Ending(..));
        assert!(parts[0].add.iter().all(is_end) && !parts[1].add.iter().any(is_end));
    }

    #[test]
    fn what_replaces_or_drains_is_one_transaction() {
        let mut replaces = claimed(PART);
        replaces
            .del
            .push(Element::Nat(floating(0), std::net::IpAddr::from([10, 65, 0, 2])));
        assert_eq!(parts(&replaces).len(), 1);
        let mut drains = claimed(PART);
        let time = std::time::Duration::from_secs(30);
        drains
            .add
            .push(Element::Draining(floating(0), floating(0).addr(), time));
        assert_eq!(parts(&drains).len(), 1);
    }
}
