//! Which flows of floating IPs end, in which pass, and which go on for a while.

use std::collections::BTreeSet;
use std::net::IpAddr;

use buoy_api::ip::FloatingIp;

use super::{Draft, Phase, SECOND_PASS};
use crate::desired::{Nat, OWN_METRIC, PodLink, RouteKey, RowKey};
use crate::observed::Ending;
use crate::op::{Element, EndFlows, Op, Pass};
use crate::time::Mono;

/// A floating IP and where flows of it lead.
type Pair = (FloatingIp, IpAddr);

impl Draft<'_> {
    /// Has flows end in the transaction that changes the translation.
    pub(super) fn begin_ending(&mut self, floating: FloatingIp, old: IpAddr) {
        self.making.add.push(Element::Ending(floating, old));
        self.ended.insert((floating, old));
    }

    /// A route comes. If it is to a floating IP whose translation stood without it, what this node has sent to that address
    /// meanwhile is tracked untranslated, and would stay so.
    pub(super) fn end_what_led_elsewhere(&mut self, key: RouteKey) {
        let Ok(floating) = FloatingIp::try_from(key.prefix.addr()) else {
            return;
        };
        let found = self.observed.nat.get(&floating);
        if found.is_some() && found.copied() == self.desired.nat(floating).map(|nat| nat.internal) {
            self.begin_ending(floating, floating.addr());
        }
    }

    /// Another workload of this node follows: flows to the one before end, or go on as long as was asked. Those that
    /// were never translated are nobody's, and end in any case.
    pub(super) fn hand_over(&mut self, floating: FloatingIp, old: IpAddr, nat: &Nat) {
        let link = self.workload_at(old);
        let time = link.map(|link| nat.drain.unwrap_or(link.drain));
        let Some(time) = time.filter(|time| !time.is_zero()) else {
            return self.begin_ending(floating, old);
        };
        self.begin_ending(floating, floating.addr());
        self.give_up_drain((floating, old));
        self.making.add.push(Element::Ending(floating, old));
        self.making.add.push(Element::Draining(floating, old, time));
        self.drained.insert((floating, old));
    }

    /// What is left of a drain counts no more. One that is over the kernel has forgotten itself.
    fn give_up_drain(&mut self, pair: Pair) {
        if let Some(Ending::Draining(until)) = self.observed.ending.get(&pair)
            && self.now < *until
        {
            let rest = until.since(self.now);
            self.making.del.push(Element::Draining(pair.0, pair.1, rest));
        }
    }

    /// Flows to be ended now, and when the next are due.
    pub(super) fn ending(&mut self) -> Option<Mono> {
        let (observed, now) = (self.observed, self.now);
        let mut wakes = BTreeSet::new();
        let mut first = self.ended.clone();
        for (pair, ending) in &observed.ending {
            match ending {
                _ if self.drained.contains(pair) => {}
                Ending::Draining(until) if now < *until && self.goes_on(pair) => {
                    self.drained.insert(*pair);
                    wakes.insert(*until);
                }
                Ending::Draining(_) | Ending::Open => {
                    self.give_up_drain(*pair);
                    first.insert(*pair);
                }
                Ending::FirstPass(_) => {}
            }
        }
        let second = self.second_passes(&mut first, &mut wakes);
        self.end(&first, Pass::First);
        self.end(&second, Pass::Second);
        wakes.first().copied()
    }

    /// Pairs whose flows are due to be ended a second time.
    fn second_passes(&self, first: &mut BTreeSet<Pair>, wakes: &mut BTreeSet<Mono>) -> BTreeSet<Pair> {
        let beginning: BTreeSet<FloatingIp> = first.iter().map(|(floating, _)| *floating).collect();
        let mut second = BTreeSet::new();
        for (pair, ending) in &self.observed.ending {
            let Ending::FirstPass(at) = ending else { continue };
            let due = at.after(SECOND_PASS);
            if first.contains(pair) || self.drained.contains(pair) {
                continue;
            }
            if self.now < due {
                wakes.insert(due);
            } else if beginning.contains(&pair.0) {
                // A second pass spares the flows that stay, and no other. Here another owner goes, whose sockets are
                // reset by what is tracked of their flows: that must still be there in the first pass.
                first.insert(*pair);
            } else {
                second.insert(*pair);
            }
        }
        second
    }

    fn end(&mut self, pairs: &BTreeSet<Pair>, pass: Pass) {
        let floating: BTreeSet<FloatingIp> = pairs.iter().map(|(floating, _)| *floating).collect();
        for floating in floating {
            let keep = self.kept(floating);
            let gone = of(pairs, floating).filter(|old| *old != floating.addr() && !keep.contains(old));
            let gone = gone.map(|old| (old, (self.netns_of)(old))).collect();
            let phase = match pass {
                Pass::First => Phase::Flows,
                Pass::Second => Phase::Ground,
            };
            let end = EndFlows {
                floating,
                keep,
                gone,
                pass,
            };
            self.ops.push((phase, Op::EndFlows(end)));
            if pass == Pass::Second {
                let done = of(pairs, floating).map(|old| Element::Ending(floating, old));
                self.taking.del.extend(done);
            }
        }
    }

    /// Internal addresses whose flows stay.
    fn kept(&self, floating: FloatingIp) -> BTreeSet<IpAddr> {
        of(&self.drained, floating)
            .chain(self.internal_of(floating))
            .collect()
    }

    /// What a floating IP is translated to after this plan.
    fn internal_of(&self, floating: FloatingIp) -> Option<IpAddr> {
        let key = RowKey::Nat(floating);
        if self.looked_at.contains(&key) && !self.desired.is_frozen(&key) {
            return self.desired.nat(floating).map(|nat| nat.internal);
        }
        self.observed.nat.get(&floating).copied()
    }

    /// Whether flows that are drained have somewhere to go. Not so when their workload goes, and there is nothing to drain
    /// when it has the address again.
    fn goes_on(&self, (floating, old): &Pair) -> bool {
        let own = RouteKey::host(*old, OWN_METRIC);
        // An agent that has not read all records yet does not know what should be, and goes by what it finds.
        let stays =
            || !self.looked_at.contains(&RowKey::Route(own)) && self.observed.routes.contains_key(&own);
        let ended = self.ended.contains(&(*floating, *old));
        !ended && self.internal_of(*floating) != Some(*old) && (self.workload_at(*old).is_some() || stays())
    }

    /// The link of the workload with this address of its own, if it is there and is to stay.
    fn workload_at(&self, own: IpAddr) -> Option<&PodLink> {
        let (name, link) = self.desired.link_of(own)?;
        self.present(name).map(|_| link)
    }
}

/// Where the flows of one floating IP lead.
fn of(pairs: &BTreeSet<Pair>, floating: FloatingIp) -> impl Iterator<Item = IpAddr> + '_ {
    pairs
        .range((floating, IpAddr::from([0; 4]))..)
        .take_while(move |(of, _)| *of == floating)
        .map(|(_, old)| *old)
}
