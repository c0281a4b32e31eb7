//! A node: the loop as the agent runs it, on a kernel that is made up.

use std::collections::BTreeSet;
use std::time::Duration;

use buoy_core::bird::Section;
use buoy_core::calc;
use buoy_core::desired::{NodeDesired, RowKey};
use buoy_core::endpoint::{IfIndex, IfName};
use buoy_core::observed::{Ending, Observed};
use buoy_core::op::{Effect, Element, LinkRef, NftTransaction, Op};
use buoy_core::plan::{Plan, SECOND_PASS, Scope, plan};
use buoy_core::subject::Subject;
use buoy_core::time::Mono;
use buoy_core::view::View;

use crate::check;
use crate::inputs::Input;
use crate::kernel::{Kernel, Tables};
use crate::universe::view;

/// Which operations of a turn fail, by their place.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Luck {
    pub(crate) fails: u32,
    /// The agent dies after so many operations.
    pub(crate) dies_after: Option<usize>,
}

pub(crate) struct NodeSim {
    pub(crate) view: View,
    pub(crate) desired: NodeDesired,
    pub(crate) observed: Observed,
    pub(crate) kernel: Kernel,
    pub(crate) now: Mono,
    keys: BTreeSet<RowKey>,
    whole: bool,
    stale: bool,
    leaving: Vec<(IfName, IfIndex)>,
    revision: u64,
}

impl NodeSim {
    pub(crate) fn new() -> Self {
        let mut node = Self {
            view: view(),
            desired: NodeDesired::default(),
            observed: Observed::default(),
            kernel: Kernel::default(),
            now: Mono::default(),
            keys: BTreeSet::new(),
            whole: true,
            stale: true,
            leaving: Vec::new(),
            revision: 0,
        };
        node.recalculate(BTreeSet::from([Subject::Node]));
        node
    }

    pub(crate) fn take(&mut self, input: &Input) {
        self.revision += 1;
        let dirty = input.feed(&mut self.view, self.revision);
        self.recalculate(dirty);
    }

    fn recalculate(&mut self, dirty: BTreeSet<Subject>) {
        for subject in dirty {
            let changed = recalculate(&mut self.desired, &self.view, &subject);
            self.keys.extend(changed);
        }
    }

    pub(crate) fn plan(&self, scope: &Scope) -> Plan {
        plan(
            &self.desired,
            &self.observed,
            scope,
            &|internal| self.view.netns_of(internal),
            self.now,
        )
    }

    /// What was known of the kernel is not to be relied upon.
    pub(crate) fn distrust(&mut self) {
        self.stale = true;
    }

    /// Plans what is dirty, or all, and carries it out.
    pub(crate) fn turn(&mut self, luck: Luck) -> Result<Plan, String> {
        if self.stale {
            self.read_back();
        }
        let scope = if std::mem::take(&mut self.whole) {
            self.keys.clear();
            Scope::All
        } else {
            Scope::Keys(std::mem::take(&mut self.keys))
        };
        let planned = self.plan(&scope);
        check::order(&planned.ops, &self.observed).map_err(|e| format!("{e}\n{}", told(&planned)))?;
        self.carry_out(&planned, luck)
            .map_err(|e| format!("{e}\n{}", told(&planned)))?;
        Ok(planned)
    }

    fn carry_out(&mut self, planned: &Plan, luck: Luck) -> Result<(), String> {
        let made: BTreeSet<&IfName> = planned
            .ops
            .iter()
            .filter_map(|op| {
                if let Op::AddLink(name, _) = op {
                    Some(name)
                } else {
                    None
                }
            })
            .collect();
        // Tables that cannot be kept leave every address exposed until the next plan.
        let strict = luck.fails == 0 && self.kernel.tables != Tables::Strange;
        let before = check::exposed(&self.kernel);
        for (at, op) in planned.ops.iter().enumerate() {
            if luck.dies_after == Some(at) {
                break;
            }
            if let Op::DelLink(name, index) = op
                && !made.contains(name)
            {
                self.observed.begin_leaving(name);
                self.leaving.push((name.clone(), *index));
                continue;
            }
            if let Op::EndFlows(end) = op
                && luck.fails == 0
            {
                check::spared(end, &self.kernel, self.now)?;
            }
            let fails = luck.fails & (1 << (at % 32)) != 0;
            let done = if fails {
                Err("bad luck".to_owned())
            } else {
                self.kernel.execute(op, self.now)
            };
            // What fails may make others fail.
            self.account(op, done, luck.fails != 0)?;
            if strict && !check::exposed(&self.kernel).is_subset(&before) {
                return Err(format!("exposed by: {op}"));
            }
        }
        if luck.dies_after.is_some() {
            self.restart();
        } else if !self.stale {
            self.compare_with_kernel()?;
        }
        Ok(())
    }

    fn account(&mut self, op: &Op, done: Result<Effect, String>, unlucky: bool) -> Result<(), String> {
        match (op, done) {
            (_, Ok(effect)) => {
                let again = self.observed.absorb(op, &effect, self.now);
                self.keys.extend(again);
            }
            // Whoever has the name stays; the workload waits.
            (Op::AddLink(..), Err(_)) => self.keys.extend(keys_of(op)),
            (Op::PutRoute(..), Err(_)) => self.keys.extend(keys_of(op)),
            (_, Err(error)) if !unlucky => return Err(format!("{op}: {error}")),
            (Op::EndFlows(_), Err(_)) => {
                self.observed.absorb(op, &Effect::Done, self.now);
            }
            (Op::Nft(_) | Op::LoadRuleset | Op::DelLink(..), Err(_)) => self.stale = true,
            (_, Err(_)) => self.keys.extend(keys_of(op)),
        }
        Ok(())
    }

    /// What was carried forward must be what one would read.
    fn compare_with_kernel(&self) -> Result<(), String> {
        let comparable = |observed: &Observed| {
            let mut observed = observed.clone();
            observed.links.values_mut().for_each(|link| link.leaving = false);
            // The kernel does not know how far the ending of flows has come.
            for ending in observed.ending.values_mut() {
                match ending {
                    Ending::Draining(until) if self.now < *until => {}
                    _ => *ending = Ending::Open,
                }
            }
            observed
        };
        let carried = comparable(&self.observed);
        let mut read = comparable(&self.kernel.read(self.now));
        // One that was set down counts as down until it is raised here, whoever sets it up meanwhile.
        for (name, link) in &mut read.links {
            link.up &= carried.links.get(name).is_none_or(|carried| carried.up);
        }
        if carried == read {
            Ok(())
        } else {
            Err(format!("carried forward {carried:#?}, read {read:#?}"))
        }
    }

    fn read_back(&mut self) {
        let mut observed = self.kernel.read(self.now);
        for (name, link) in &mut observed.links {
            link.leaving = self.leaving.contains(&(name.clone(), link.index));
        }
        self.observed = observed;
        self.stale = false;
        self.whole = true;
    }

    /// The agent is gone, and with it all that it knew of the kernel; its orders to delete links too.
    pub(crate) fn restart(&mut self) {
        self.leaving.clear();
        self.keys.clear();
        self.stale = true;
    }

    /// The kernel lets go of the first link on its way out.
    pub(crate) fn let_go(&mut self) {
        if self.leaving.is_empty() {
            return;
        }
        let (name, index) = self.leaving.remove(0);
        if self
            .kernel
            .links
            .get(&name)
            .is_some_and(|link| link.index == index.0)
        {
            self.kernel.del_link(&name);
        }
        self.gone(&name, index);
    }

    /// A link goes without our doing.
    pub(crate) fn vanish(&mut self, name: &IfName) {
        let Some(link) = self.kernel.links.get(name) else {
            return;
        };
        let index = IfIndex(link.index);
        self.kernel.del_link(name);
        self.gone(name, index);
    }

    /// A link is set down by somebody else, and perhaps up again. Whoever watches hears only of the first.
    pub(crate) fn fall(&mut self, name: &IfName, and_rise: bool) {
        if self.observed.links.get(name).is_none_or(|link| link.leaving) {
            return;
        }
        let Some(index) = self.kernel.set_down(name) else {
            return;
        };
        if and_rise {
            self.kernel.set_up(name);
        }
        let keys = self.observed.link_fell(name, IfIndex(index));
        self.keys.extend(keys);
    }

    fn gone(&mut self, name: &IfName, index: IfIndex) {
        let keys = self.observed.forget_link(name, index);
        self.keys.extend(keys);
        self.whole |= self.observed.filters.contains_key(&index);
    }

    pub(crate) fn pass_time(&mut self, millis: u64) {
        self.now = self.now.after(Duration::from_millis(millis));
    }

    /// Turns until there is nothing left to do. Every step of it is told if that never comes.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        let mut story = String::new();
        for _ in 0..24 {
            let planned = self.turn(Luck::default())?;
            story += &told(&planned);
            while !self.leaving.is_empty() {
                self.let_go();
            }
            // The dirty rows alone led to where all would have led.
            if !self.stale && !self.whole && self.keys.is_empty() && self.at_rest(&self.plan(&Scope::All)) {
                return check::programmed(&self.desired, &self.kernel).map_err(|e| format!("{e}\n{story}"));
            }
            let keys = std::mem::take(&mut self.keys);
            self.keys = keys.into_iter().filter(|key| !self.is_blocked(key)).collect();
            self.now = self.now.after(SECOND_PASS);
        }
        Err(format!("never at rest:\n{story}"))
    }

    fn is_blocked(&self, key: &RowKey) -> bool {
        let strangers = |name: &IfName| {
            self.observed
                .links
                .get(name)
                .is_some_and(|l| l.attachment().is_none())
        };
        matches!(key, RowKey::Link(name) if strangers(name))
    }

    /// Nothing to do, but to try for a name that a stranger has.
    pub(crate) fn at_rest(&self, planned: &Plan) -> bool {
        let waits =
            |op: &Op| matches!(op, Op::AddLink(name, _) if self.is_blocked(&RowKey::Link(name.clone())));
        planned.ops.iter().all(waits) && planned.wake.is_none()
    }
}

/// Calculates one subject anew and says which keys that changed.
pub(crate) fn recalculate(desired: &mut NodeDesired, view: &View, subject: &Subject) -> BTreeSet<RowKey> {
    let mut changed = desired.replace(subject, calc::rows(view, subject));
    if let Subject::Binding(floating) = subject {
        changed.append(&mut desired.freeze(*floating, calc::stays(view, *floating)));
    }
    changed
}

/// The rows that an operation serves.
fn keys_of(op: &Op) -> Vec<RowKey> {
    match op {
        Op::LoadRuleset | Op::EndFlows(_) => Vec::new(),
        Op::LoadBird(_) => vec![RowKey::Bird(Section::Router)],
        Op::SetSysctl(path, _) => vec![RowKey::Sysctl(path.clone())],
        Op::AddLink(name, _) | Op::RaiseLink(name, ..) | Op::DelLink(name, _) => {
            vec![RowKey::Link(name.clone())]
        }
        Op::PutRoute(key, _) | Op::DelRoute(key) => vec![RowKey::Route(*key)],
        Op::Nft(NftTransaction { del, add }) => del.iter().chain(add).filter_map(key_of).collect(),
    }
}

fn key_of(element: &Element) -> Option<RowKey> {
    match element {
        Element::Nat(floating, _) => Some(RowKey::Nat(*floating)),
        Element::Member(LinkRef::Name(name)) | Element::Source(LinkRef::Name(name), _) => {
            Some(RowKey::Link(name.clone()))
        }
        _ => None,
    }
}

pub(crate) fn told(planned: &Plan) -> String {
    let ops = planned.ops.iter().map(|op| format!("  {op}\n"));
    ["plan:\n".to_owned()].into_iter().chain(ops).collect()
}
