//! Writes of a binding: claim, release, and the first claim of an address that has no binding.

use buoy_api::binding::{Binding, BindingSpec, Epoch, Offer, Owner, Term};
use buoy_api::ip::FloatingIp;
use buoy_api::meta::ObjectMeta;
use buoy_api::names;
use jiff::Timestamp;

use crate::edit::Change;
use crate::store::{Key, Next, Record, Reply, Revision, Steps, StoreError, StoreOp, Value};

/// Key of the binding of an address.
pub fn binding_key(floating: FloatingIp) -> Key {
    Key::Binding(names::binding_name(floating.addr()))
}

/// The binding with another owner, if it still is the one that was decided on.
pub fn claimed(found: Option<&Value>, seen: &Binding, owner: &Owner) -> Change {
    edited(found, seen, |spec| {
        spec.epoch = spec.epoch.next();
        spec.owner = Some(owner.clone());
        spec.offer = None;
        spec.released = None;
    })
}

/// The write that leaves a binding without an owner; `offer` says whom it is meant for.
///
/// It is tied to the revision that was decided on and is not tried at a later one: so a later revision that still names
/// the owner proves that the address was not given away and will not be, whatever became of the answer.
pub fn given_away((seen, revision): &Seen, offer: Option<&Offer>, now: Timestamp) -> StoreOp {
    let mut binding = seen.clone();
    let spec = &mut binding.spec;
    spec.epoch = spec.epoch.next();
    spec.owner = None;
    spec.offer = offer.cloned();
    spec.released = Some(now);
    StoreOp::Update(
        Key::Binding(seen.name().to_owned()),
        Value::Binding(binding),
        *revision,
    )
}

/// The binding with its owner's new term, if it still is the one that was decided on. It is the same owner's: the epoch
/// stays.
pub fn restamped(found: Option<&Value>, seen: &Binding, term: Term) -> Change {
    edited(found, seen, |spec| {
        if let Some(owner) = &mut spec.owner {
            owner.term = term;
        }
    })
}

/// The binding as it was before the store was restored from a copy, above every epoch that is remembered. A record that
/// has come further is left alone; and one that names an owner of another node, unless this `overrules` it: then it is a
/// record of the past.
pub fn reasserted(
    found: Option<&Value>,
    before: &Binding,
    above: Epoch,
    term: Term,
    overrules: bool,
) -> Change {
    let mut spec = BindingSpec {
        epoch: above.next(),
        offer: None,
        released: None,
        ..before.spec.clone()
    };
    let Some(owner) = &mut spec.owner else {
        return Change::Keep;
    };
    owner.term = term;
    let mut binding = match found {
        None => Binding::new(ObjectMeta::named(before.name()), BindingSpec::default()),
        Some(Value::Binding(found)) => found.clone(),
        Some(_) => return Change::Keep,
    };
    let is_elsewhere = |found: &Owner| found.node != owner.node;
    let taken = binding.spec.owner.as_ref().is_some_and(is_elsewhere);
    if binding.spec.epoch > above || (taken && !overrules) {
        return Change::Keep;
    }
    binding.spec = spec;
    Change::Put(Box::new(Value::Binding(binding)))
}

fn edited(found: Option<&Value>, seen: &Binding, change: impl FnOnce(&mut BindingSpec)) -> Change {
    match found {
        Some(Value::Binding(found)) if found.spec == seen.spec && found.metadata.uid == seen.metadata.uid => {
            let mut binding = found.clone();
            change(&mut binding.spec);
            Change::Put(Box::new(Value::Binding(binding)))
        }
        _ => Change::Keep,
    }
}

/// Makes the binding of an address that has none, with its first owner.
///
/// Epochs never fall, also across deletion. So the floor is read again after the binding was made: a floor that rose in
/// between lifts the epoch above itself.
#[derive(Debug)]
pub struct FirstClaim {
    floating: FloatingIp,
    namespace: String,
    owner: Owner,
    epoch: Epoch,
    doing: Doing,
    tries: u32,
}

/// What the last operation of a [`FirstClaim`] was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Making,
    ReadingFloor,
    ReadingBinding,
    Lifting,
}

/// Lost answers and conflicts after which a claim leaves it to its caller to look again.
const TRIES: u32 = 16;

impl FirstClaim {
    /// `floor` is the epoch floor as far as it is known.
    pub fn new(floating: FloatingIp, namespace: String, owner: Owner, floor: Epoch) -> Self {
        Self {
            floating,
            namespace,
            owner,
            epoch: floor.next(),
            doing: Doing::Making,
            tries: 0,
        }
    }

    fn binding(&self) -> Binding {
        Binding::new(
            ObjectMeta::named(names::binding_name(self.floating.addr())),
            BindingSpec {
                address: self.floating.addr(),
                namespace: self.namespace.clone(),
                owner: Some(self.owner.clone()),
                epoch: self.epoch,
                ..BindingSpec::default()
            },
        )
    }

    fn read_floor(&mut self) -> Next<Result<(), StoreError>> {
        self.doing = Doing::ReadingFloor;
        Next::Do(StoreOp::Get(Key::EpochFloor))
    }

    fn read_binding(&mut self) -> Next<Result<(), StoreError>> {
        self.doing = Doing::ReadingBinding;
        Next::Do(StoreOp::Get(binding_key(self.floating)))
    }

    fn floor_read(&mut self, record: Option<Record>) -> Next<Result<(), StoreError>> {
        let floor = match record.map(|record| record.value) {
            Some(Ok(Value::EpochFloor(floor))) => floor.spec.epoch,
            _ => Epoch(0),
        };
        if floor < self.epoch {
            return Next::Done(Ok(()));
        }
        self.epoch = floor.next();
        self.read_binding()
    }

    fn lift(&mut self, record: Option<Record>) -> Next<Result<(), StoreError>> {
        match record {
            Some(Record {
                key,
                value: Ok(Value::Binding(mut binding)),
                revision,
            }) if binding.spec.owner.as_ref() == Some(&self.owner) && binding.spec.epoch < self.epoch => {
                binding.spec.epoch = self.epoch;
                self.doing = Doing::Lifting;
                Next::Do(StoreOp::Update(key, Value::Binding(binding), revision))
            }
            _ => Next::Done(Ok(())),
        }
    }

    /// The answer was lost, or somebody else wrote: reads again what it was about.
    fn again(&mut self) -> Next<Result<(), StoreError>> {
        self.tries += 1;
        if self.tries >= TRIES {
            return Next::Done(Ok(()));
        }
        match self.doing {
            Doing::Making | Doing::ReadingFloor => self.read_floor(),
            Doing::ReadingBinding | Doing::Lifting => self.read_binding(),
        }
    }
}

impl Steps for FirstClaim {
    type Out = Result<(), StoreError>;

    fn step(&mut self, reply: Reply) -> Next<Self::Out> {
        match (reply, self.doing) {
            (Reply::Start, _) => Next::Do(StoreOp::Create(
                binding_key(self.floating),
                Value::Binding(self.binding()),
            )),
            (Reply::Written(_), Doing::Making) => self.read_floor(),
            (Reply::Record(record), Doing::ReadingFloor) => self.floor_read(record),
            (Reply::Record(record), _) => self.lift(record),
            // Somebody else was quicker: their record will say.
            (Reply::Conflict, Doing::Making) => Next::Done(Ok(())),
            (Reply::Conflict | Reply::Unknown, _) => self.again(),
            (Reply::Failed(error), _) => Next::Done(Err(error)),
            (Reply::Written(_) | Reply::Deleted | Reply::List(..), _) => Next::Done(Ok(())),
        }
    }
}

/// A binding with its revision, as it was when something was decided about it.
pub type Seen = (Binding, Revision);

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_api::binding::{EpochFloor, EpochFloorSpec};

    fn owner() -> Owner {
        Owner {
            node: "n1".into(),
            workload: "web-0".into(),
            endpoint: "eth0".into(),
            internal_ip: "10.65.0.7".parse().unwrap(),
            uid: "u".into(),
            term: Term(0),
        }
    }

    #[test]
    fn a_floor_that_rose_meanwhile_lifts_the_epoch() {
        let floating: FloatingIp = "172.16.1.3".parse().unwrap();
        let mut claim = FirstClaim::new(floating, "shop".into(), owner(), Epoch(3));
        let Next::Do(StoreOp::Create(key, Value::Binding(made))) = claim.step(Reply::Start) else {
            panic!()
        };
        assert_eq!(made.spec.epoch, Epoch(4));
        assert_eq!(
            claim.step(Reply::Written(Revision(9))),
            Next::Do(StoreOp::Get(Key::EpochFloor))
        );
        let floor = EpochFloor::new(
            ObjectMeta::named("default"),
            EpochFloorSpec {
                epoch: Epoch(8),
                ..EpochFloorSpec::default()
            },
        );
        let floor = Record {
            key: Key::EpochFloor,
            revision: Revision(8),
            value: Ok(Value::EpochFloor(floor)),
        };
        assert_eq!(
            claim.step(Reply::Record(Some(floor))),
            Next::Do(StoreOp::Get(key.clone()))
        );
        let record = Record {
            key,
            revision: Revision(9),
            value: Ok(Value::Binding(made)),
        };
        let Next::Do(StoreOp::Update(_, Value::Binding(lifted), Revision(9))) =
            claim.step(Reply::Record(Some(record)))
        else {
            panic!()
        };
        assert_eq!(lifted.spec.epoch, Epoch(9));
    }

    /// A claim whose binding was just asked for, with floor 3.
    fn begun() -> (FirstClaim, Key, Binding) {
        let mut claim = FirstClaim::new("172.16.1.3".parse().unwrap(), "shop".into(), owner(), Epoch(3));
        let Next::Do(StoreOp::Create(key, Value::Binding(made))) = claim.step(Reply::Start) else {
            panic!()
        };
        (claim, key, made)
    }

    fn floor(epoch: u64) -> Reply {
        let spec = EpochFloorSpec {
            epoch: Epoch(epoch),
            ..EpochFloorSpec::default()
        };
        let value = Ok(Value::EpochFloor(EpochFloor::new(
            ObjectMeta::named("default"),
            spec,
        )));
        Reply::Record(Some(Record {
            key: Key::EpochFloor,
            revision: Revision(8),
            value,
        }))
    }

    fn found(key: &Key, binding: &Binding, revision: u64) -> Reply {
        let value = Ok(Value::Binding(binding.clone()));
        Reply::Record(Some(Record {
            key: key.clone(),
            revision: Revision(revision),
            value,
        }))
    }

    #[test]
    fn the_floor_is_looked_at_also_when_the_answer_was_lost() {
        let (mut claim, key, made) = begun();
        assert_eq!(
            claim.step(Reply::Unknown),
            Next::Do(StoreOp::Get(Key::EpochFloor))
        );
        assert_eq!(
            claim.step(Reply::Unknown),
            Next::Do(StoreOp::Get(Key::EpochFloor))
        );
        assert_eq!(claim.step(floor(8)), Next::Do(StoreOp::Get(key.clone())));
        let Next::Do(StoreOp::Update(..)) = claim.step(found(&key, &made, 9)) else {
            panic!()
        };
        // Candidates were published meanwhile.
        assert_eq!(claim.step(Reply::Conflict), Next::Do(StoreOp::Get(key.clone())));
        let Next::Do(StoreOp::Update(_, Value::Binding(lifted), Revision(12))) =
            claim.step(found(&key, &made, 12))
        else {
            panic!()
        };
        assert_eq!(lifted.spec.epoch, Epoch(9));
        assert_eq!(claim.step(Reply::Unknown), Next::Do(StoreOp::Get(key.clone())));
        assert_eq!(claim.step(found(&key, &lifted, 13)), Next::Done(Ok(())));
    }

    #[test]
    fn somebody_elses_binding_is_not_lifted() {
        let (mut claim, key, made) = begun();
        claim.step(Reply::Unknown);
        claim.step(floor(8));
        let mut theirs = made;
        theirs.spec.owner = Some(Owner {
            uid: "other".into(),
            ..owner()
        });
        assert_eq!(claim.step(found(&key, &theirs, 9)), Next::Done(Ok(())));
        let (mut late, ..) = begun();
        assert_eq!(late.step(Reply::Conflict), Next::Done(Ok(())));
    }

    #[test]
    fn a_floor_below_is_the_end_of_it() {
        let (mut claim, ..) = begun();
        claim.step(Reply::Written(Revision(9)));
        assert_eq!(claim.step(floor(3)), Next::Done(Ok(())));
        let (mut claim, ..) = begun();
        claim.step(Reply::Written(Revision(9)));
        assert_eq!(claim.step(Reply::Record(None)), Next::Done(Ok(())));
    }

    #[test]
    fn a_binding_that_changed_since_is_left_alone() {
        let seen = FirstClaim::new("172.16.1.3".parse().unwrap(), "shop".into(), owner(), Epoch(0)).binding();
        let mut found = seen.clone();
        found.spec.epoch = Epoch(5);
        assert_eq!(
            claimed(Some(&Value::Binding(found)), &seen, &owner()),
            Change::Keep
        );
        let Change::Put(value) = claimed(Some(&Value::Binding(seen.clone())), &seen, &owner()) else {
            panic!()
        };
        let Value::Binding(binding) = *value else { panic!() };
        assert_eq!(binding.spec.epoch, seen.spec.epoch.next());
    }
}
