//! What the node should look like, what it looks like, and the one plan that is under way between the two.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use buoy_api::FloatingIp;
use buoy_core::bird::Section;
use buoy_core::calc;
use buoy_core::desired::{NodeDesired, RouteKey, RowKey, floating_metric};
use buoy_core::endpoint::{IfIndex, IfName};
use buoy_core::observed::{Claimed, Observed, ObservedHop};
use buoy_core::op::{Effect, Element, LinkRef, NftTransaction, Op};
use buoy_core::plan::{Plan, Scope, plan};
use buoy_core::subject::Subject;
use buoy_core::time::Mono;
use buoy_core::view::{Programmed, View};
use tracing::{debug, info, warn};

use crate::inputs::{Applied, OpError};

/// First and longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Operations of a plan that are logged one by one; of more, only the number.
const LOGGED: usize = 256;

/// Time after which a link that is down is not on its way out.
const GOING: Duration = Duration::from_millis(100);

/// Pause after the kernel could not be read back.
const READ_PAUSE: Duration = Duration::from_secs(1);

/// A row that could not be brought about.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    /// Why.
    pub(crate) error: OpError,
    tries: u32,
    until: Mono,
}

/// Operations to carry out: in order, and links whose end nobody waits for.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) ops: Vec<Op>,
    pub(crate) unlink: Vec<(IfName, IfIndex)>,
}

/// The network state of this node.
#[derive(Debug, Default)]
pub(crate) struct Network {
    desired: NodeDesired,
    observed: Observed,
    keys: BTreeSet<RowKey>,
    whole: bool,
    known: bool,
    stale: bool,
    reading: bool,
    stale_again: bool,
    read_after: Mono,
    /// How often the ruleset could not be loaded since it last was.
    failed_loads: u32,
    busy: bool,
    suspects: BTreeSet<IfName>,
    /// Links that somebody set down, and when to believe it.
    fallen: BTreeMap<(IfName, IfIndex), Mono>,
    trouble: BTreeMap<RowKey, Trouble>,
    wake: Option<Mono>,
    /// Floating IPs of which something may have changed in the kernel, or should.
    touched: BTreeSet<FloatingIp>,
}

impl Network {
    /// Calculates a subject's rows again.
    pub(crate) fn recalculate(&mut self, view: &View, subject: &Subject) {
        if let Subject::Binding(floating) = subject {
            let thawed = self.desired.freeze(*floating, calc::stays(view, *floating));
            self.keys.extend(thawed);
        }
        let changed = self.desired.replace(subject, calc::rows(view, subject));
        for key in &changed {
            self.trouble.remove(key);
        }
        if let Subject::Binding(floating) = subject {
            self.touched.insert(*floating);
        }
        self.keys.extend(changed);
    }

    /// Everything is to be compared, also what the kernel has and nobody wants.
    pub(crate) fn compare_all(&mut self) {
        self.whole = true;
    }

    /// These rows are to be compared.
    pub(crate) fn compare(&mut self, keys: impl IntoIterator<Item = RowKey>) {
        self.keys.extend(keys);
    }

    /// A link that may be there without being whole: an agent was killed while it made it.
    pub(crate) fn suspect(&mut self, name: IfName) {
        self.suspects.insert(name);
    }

    /// Takes in what the kernel has.
    pub(crate) fn read_back(&mut self, mut observed: Observed, now: Mono) {
        for (name, link) in &mut observed.links {
            // Whoever made it did not come to its end. It counts as ours, and as another attachment's.
            if self.suspects.remove(name)
                && link
                    .alias
                    .as_deref()
                    .is_none_or(|alias| alias.starts_with("buoy:"))
            {
                link.alias = Some("buoy:unfinished/".to_owned());
            }
            link.leaving = self
                .observed
                .links
                .get(name)
                .is_some_and(|l| l.leaving && l.index == link.index);
        }
        if self.known && observed != self.observed {
            debug!("the kernel is not as it was left");
        }
        self.observed = observed;
        self.touched.extend(self.desired.translated());
        self.known = true;
        // What changed while it was read may not be in it.
        self.stale = std::mem::take(&mut self.stale_again);
        self.reading = false;
        self.trouble.retain(|_, trouble| trouble.until > now);
        self.whole = true;
    }

    /// Floating IPs that the kernel serves, once it was read.
    pub(crate) fn claimed(&self) -> Option<impl Iterator<Item = Claimed> + '_> {
        self.known.then(|| self.observed.claimed())
    }

    /// Whether the kernel must be read back before anything else is done. Whoever asks then does it.
    pub(crate) fn begin_reading(&mut self, now: Mono) -> bool {
        let begins = self.stale && !self.busy && !self.reading && now >= self.read_after;
        self.reading |= begins;
        begins
    }

    /// The kernel could not be read back; after a pause it is tried again.
    pub(crate) fn not_read(&mut self, now: Mono) {
        self.reading = false;
        self.stale = true;
        self.read_after = now.after(READ_PAUSE);
    }

    /// What is known of the kernel is not to be relied upon.
    pub(crate) fn distrust(&mut self) {
        self.stale = true;
        self.stale_again = self.reading;
    }

    /// The next operations, unless some are under way. `everything` allows more than the rows named: it is true once all
    /// records are known.
    pub(crate) fn turn(&mut self, view: &View, everything: bool, now: Mono) -> Option<Batch> {
        if self.busy || !self.known || self.stale {
            return None;
        }
        self.note_fallen(now);
        let whole = self.whole && everything;
        let scope = if whole {
            Scope::All
        } else {
            Scope::Keys(self.ready_keys(now))
        };
        let Plan { ops, wake } = self.plan(view, &scope, now);
        self.wake = self.later(wake, now);
        if whole {
            self.whole = false;
            self.keys.clear();
        }
        if ops.is_empty() {
            return None;
        }
        self.busy = true;
        Some(self.batch(ops))
    }

    /// Takes the rows that are due; those in trouble stay for later.
    fn ready_keys(&mut self, now: Mono) -> BTreeSet<RowKey> {
        let due = |trouble: &Trouble| trouble.until <= now;
        self.keys.extend(
            self.trouble
                .iter()
                .filter(|(_, t)| due(t))
                .map(|(key, _)| key.clone()),
        );
        let keys = std::mem::take(&mut self.keys);
        keys.into_iter()
            .filter(|key| self.trouble.get(key).is_none_or(due))
            .collect()
    }

    fn later(&self, wake: Option<Mono>, now: Mono) -> Option<Mono> {
        let troubles = self
            .trouble
            .values()
            .map(|trouble| trouble.until)
            .filter(|until| *until > now);
        let fallen = self.fallen.values().copied();
        troubles.chain(fallen).chain(wake).min()
    }

    fn plan(&self, view: &View, scope: &Scope, now: Mono) -> Plan {
        plan(
            &self.desired,
            &self.observed,
            scope,
            &|internal| view.netns_of(internal),
            now,
        )
    }

    /// Splits off the links whose end nobody waits for: their names are not needed again by this plan.
    fn batch(&mut self, ops: Vec<Op>) -> Batch {
        let made: BTreeSet<IfName> = ops
            .iter()
            .filter_map(|op| {
                if let Op::AddLink(name, _) = op {
                    Some(name.clone())
                } else {
                    None
                }
            })
            .collect();
        let mut batch = Batch::default();
        let many = ops.len() > LOGGED;
        if many {
            debug!("{} operations", ops.len());
        }
        for op in ops {
            if !many {
                debug!("{op}");
            }
            if let Op::DelLink(name, _) = &op {
                self.observed.begin_leaving(name);
            }
            match op {
                Op::DelLink(name, index) if !made.contains(&name) => batch.unlink.push((name, index)),
                op => batch.ops.push(op),
            }
        }
        batch
    }

    /// Takes in what came of a batch.
    pub(crate) fn applied(&mut self, results: Vec<Applied>, now: Mono) {
        self.busy = false;
        let mut failed = Vec::new();
        for Applied { op, result } in results {
            let keys = self.keys_of(&op);
            self.touch(&keys);
            match result {
                Ok(effect) => self.succeeded(&op, &effect, now),
                Err(error) => failed.push((op, error)),
            }
        }
        // Afterwards: a row is in trouble if any of its operations failed, whichever else succeeded.
        for (op, error) in failed {
            self.failed(&op, error, now);
        }
    }

    fn succeeded(&mut self, op: &Op, effect: &Effect, now: Mono) {
        if *op == Op::LoadRuleset {
            self.failed_loads = 0;
        }
        let again = self.observed.absorb(op, effect, now);
        self.keys.extend(again);
        for key in self.keys_of(op) {
            self.trouble.remove(&key);
        }
    }

    fn failed(&mut self, op: &Op, error: OpError, now: Mono) {
        warn!("{op}: {}", error.message);
        match op {
            // Ended flows are a courtesy to their peers; the second pass tries again, and then they are left.
            Op::EndFlows(_) => {
                self.observed.absorb(op, &Effect::Done, now);
            }
            Op::Nft(_) => self.stale = true,
            Op::LoadRuleset => {
                self.stale = true;
                self.read_after = now.after(pause(self.failed_loads));
                self.failed_loads = self.failed_loads.saturating_add(1);
            }
            Op::DelLink(name, _) => self.link_stays(name, &error.message),
            _ => {}
        }
        for key in self.keys_of(op) {
            let tries = self.trouble.get(&key).map_or(0, |trouble| trouble.tries);
            let trouble = Trouble {
                error: error.clone(),
                tries: tries.saturating_add(1),
                until: now.after(pause(tries)),
            };
            self.trouble.insert(key, trouble);
        }
    }

    /// The rows that an operation serves.
    fn keys_of(&self, op: &Op) -> Vec<RowKey> {
        match op {
            Op::LoadRuleset | Op::EndFlows(_) => Vec::new(),
            Op::LoadBird(_) => vec![RowKey::Bird(Section::Router)],
            Op::SetSysctl(path, _) => vec![RowKey::Sysctl(path.clone())],
            Op::AddLink(name, _) | Op::RaiseLink(name, ..) | Op::DelLink(name, _) => {
                vec![RowKey::Link(name.clone())]
            }
            Op::PutRoute(key, _) | Op::DelRoute(key) => vec![RowKey::Route(*key)],
            Op::Nft(NftTransaction { del, add }) => del
                .iter()
                .chain(add)
                .filter_map(|element| self.key_of(element))
                .collect(),
        }
    }

    fn key_of(&self, element: &Element) -> Option<RowKey> {
        match element {
            Element::Nat(floating, _) => Some(RowKey::Nat(*floating)),
            Element::Ending(..) | Element::Draining(..) => None,
            Element::Member(LinkRef::Name(name)) | Element::Source(LinkRef::Name(name), _) => {
                Some(RowKey::Link(name.clone()))
            }
            Element::Member(LinkRef::Index(index)) | Element::Source(LinkRef::Index(index), _) => {
                let mut links = self.observed.links.iter();
                links
                    .find(|(_, link)| link.index == *index)
                    .map(|(name, _)| RowKey::Link(name.clone()))
            }
        }
    }

    /// A link is gone, by our doing or another's.
    pub(crate) fn link_gone(&mut self, name: &IfName, index: IfIndex) {
        self.fallen.remove(&(name.clone(), index));
        if self
            .observed
            .links
            .get(name)
            .is_some_and(|link| link.index == index)
        {
            let ours = self
                .observed
                .links
                .get(name)
                .is_some_and(|link| link.attachment().is_some());
            let keys = self.observed.forget_link(name, index);
            self.touch(&keys);
            if ours {
                self.keys.extend(keys);
                self.whole |= self.observed.filters.contains_key(&index);
            }
        }
    }

    /// A workload's link is down: somebody set it so, or it goes, which is told a little later.
    pub(crate) fn link_down(&mut self, name: IfName, index: IfIndex, now: Mono) {
        if !self.is_leaving(&name) {
            self.fallen.entry((name, index)).or_insert(now.after(GOING));
        }
    }

    /// Links that are still there are to be raised, and their routes are gone.
    fn note_fallen(&mut self, now: Mono) {
        let fallen = std::mem::take(&mut self.fallen).into_iter();
        let (due, waiting): (BTreeMap<_, _>, _) = fallen.partition(|(_, due)| *due <= now);
        self.fallen = waiting;
        for (name, index) in due.into_keys() {
            let keys = self.observed.link_fell(&name, index);
            self.touch(&keys);
            if !keys.is_empty() {
                info!("set down by somebody else: {name}");
            }
            for key in &keys {
                self.trouble.remove(key);
            }
            self.keys.extend(keys);
        }
    }

    fn is_leaving(&self, name: &IfName) -> bool {
        self.observed.links.get(name).is_some_and(|link| link.leaving)
    }

    /// A link that was to go is still there.
    pub(crate) fn link_stays(&mut self, name: &IfName, error: &str) {
        warn!("delete link {name}: {error}");
        self.stale = true;
        if let Some(link) = self.observed.links.get_mut(name) {
            link.leaving = false;
        }
    }

    /// Whether a link is there, up, and is to stay.
    pub(crate) fn is_staying(&self, index: IfIndex) -> bool {
        let fell = self.fallen.keys().any(|(_, fallen)| *fallen == index);
        let mut links = self.observed.links.values();
        !fell && links.any(|link| link.index == index && link.up && !link.leaving)
    }

    /// Whether these rows are as they should be; a link on its way out and flows that are ended a second time do not
    /// count.
    pub(crate) fn is_settled(&self, view: &View, keys: &BTreeSet<RowKey>, now: Mono) -> bool {
        if self.busy || !self.known || self.stale || keys.iter().any(|key| self.awaits_name(key)) {
            return false;
        }
        let scope = Scope::Keys(keys.clone());
        self.plan(view, &scope, now).ops.iter().all(|op| match op {
            Op::EndFlows(end) => !keys.contains(&RowKey::Nat(end.floating)),
            Op::Nft(NftTransaction { del, add }) => del
                .iter()
                .chain(add)
                .all(|element| matches!(element, Element::Ending(..) | Element::Draining(..))),
            _ => false,
        })
    }

    /// Whether a link is wanted whose name a link on its way out still has. No operation is due until it is gone.
    fn awaits_name(&self, key: &RowKey) -> bool {
        let RowKey::Link(name) = key else { return false };
        self.desired.get(key).is_some() && self.is_leaving(name)
    }

    /// Keys of all that the kernel has of a link and of the addresses behind it.
    pub(crate) fn keys_behind(&self, name: &IfName, addresses: &[std::net::IpAddr]) -> BTreeSet<RowKey> {
        let index = self.observed.links.get(name).map(|link| link.index);
        let routes = index
            .into_iter()
            .flat_map(|index| self.observed.routes_to(index))
            .map(RowKey::Route);
        let nat = self
            .observed
            .nat
            .iter()
            .filter(|(_, internal)| addresses.contains(internal));
        let nat = nat.map(|(floating, _)| RowKey::Nat(*floating));
        routes.chain(nat).chain([RowKey::Link(name.clone())]).collect()
    }

    fn touch<'a>(&mut self, keys: impl IntoIterator<Item = &'a RowKey>) {
        let floating = keys.into_iter().filter_map(|key| match key {
            RowKey::Nat(floating) => Some(*floating),
            RowKey::Route(key) if key.is_floating() => FloatingIp::try_from(key.prefix.addr()).ok(),
            _ => None,
        });
        self.touched.extend(floating);
    }

    /// Floating IPs of which something may have changed since this was asked last, and whether the kernel has what each
    /// needs; nothing for one that it should not have.
    pub(crate) fn take_touched(&mut self) -> Vec<(FloatingIp, Option<Programmed>)> {
        let touched = std::mem::take(&mut self.touched).into_iter();
        touched
            .map(|floating| (floating, self.programmed(floating)))
            .collect()
    }

    fn programmed(&self, floating: FloatingIp) -> Option<Programmed> {
        let nat = self.desired.nat(floating)?;
        let route = RouteKey::host(floating.addr(), floating_metric(nat.epoch));
        let troubles = [RowKey::Nat(floating), RowKey::Route(route)];
        if let Some(trouble) = troubles.iter().find_map(|key| self.trouble.get(key)) {
            return Some(Programmed::Failed(trouble.error.message.clone()));
        }
        let is_translated = self.observed.nat.get(&floating) == Some(&nat.internal);
        let is_routed = matches!(self.observed.routes.get(&route), Some(ObservedHop::Link(_)));
        Some(if self.known && is_translated && is_routed {
            Programmed::Yes
        } else {
            Programmed::Pending
        })
    }

    /// What should be.
    pub(crate) fn desired(&self) -> &NodeDesired {
        &self.desired
    }

    /// What is.
    pub(crate) fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Whether nothing is under way and nothing is left to compare.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.known && !self.stale && !self.busy && !self.whole && self.keys.is_empty()
    }

    /// Why a row could not be brought about.
    pub(crate) fn trouble(&self, key: &RowKey) -> Option<&Trouble> {
        self.trouble.get(key)
    }

    /// All rows that could not be brought about.
    pub(crate) fn troubles(&self) -> impl Iterator<Item = (&RowKey, &Trouble)> {
        self.trouble.iter()
    }

    /// What would be done now.
    pub(crate) fn whole_plan(&self, view: &View, now: Mono) -> Plan {
        self.plan(view, &Scope::All, now)
    }

    /// When to take the next turn although nothing happens.
    pub(crate) fn wake(&self) -> Option<Mono> {
        if self.busy || self.reading {
            None
        } else if self.stale {
            Some(self.read_after)
        } else {
            self.wake
        }
    }
}

/// How long something rests that has failed so often before.
fn pause(tries: u32) -> Duration {
    PAUSE.0.saturating_mul(1 << tries.min(16)).min(PAUSE.1)
}
