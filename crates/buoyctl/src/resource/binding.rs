//! Deletion of a binding by hand. Epochs must never fall, also across deletion: every other binding is deleted by the
//! collector, which notes its epoch first.

use buoy_api::binding::BindingSpec;
use buoy_api::{Epoch, Kind as _, names};
use buoy_core::edit::{Edit, EditError};
use buoy_core::floating::collect::raised;
use buoy_core::store::{Key, Record, Value};

use crate::failure::Failure;
use crate::store::Store;

/// How far above every known epoch the floor is put for the sake of one that is not known. An epoch counts the changes
/// of one binding's owner, so this is more than an address goes through while its record lies there unread.
const MARGIN: u64 = 1000;

/// Refuses a binding that can be read and stands for its address.
pub(super) fn only_if_useless(record: &Record, name: &str) -> Result<(), Failure> {
    match &record.value {
        Ok(Value::Binding(binding))
            if names::address_of_binding(binding.name()) == Some(binding.spec.address) =>
        {
            Err(Failure::new(format!(
                "{} is deleted by Buoy itself: {name}\nuse buoyctl fip release {} to give the address up",
                BindingSpec::KIND,
                binding.spec.address
            )))
        }
        _ => Ok(()),
    }
}

/// Raises the epoch floor for the sake of a binding whose epoch is not known, and says where it is now: [`MARGIN`] above
/// the old floor and above the epochs of all bindings that can be read. To be called before the binding is deleted, so
/// that the next binding of its address begins above all that the old one fenced off.
pub(super) fn raise_floor(store: &Store) -> Result<Epoch, Failure> {
    let bindings = store.bindings()?.items;
    let highest = bindings.iter().map(|binding| binding.spec.epoch).max();
    let highest = highest.unwrap_or_default();
    let mut target = None;
    let edit = Edit::new(Key::EpochFloor, |found| {
        // Fixed by the first reading, so that a lost answer does not raise it twice.
        raised(found, *target.get_or_insert_with(|| above(found, highest)))
    });
    store.drive(edit).map_err(|error| not_raised(&error))?;
    Ok(target.unwrap_or_default())
}

fn above(floor: Option<&Value>, highest: Epoch) -> Epoch {
    let known = match floor {
        Some(Value::EpochFloor(floor)) => floor.spec.epoch.max(highest),
        _ => highest,
    };
    Epoch(known.0.saturating_add(MARGIN))
}

fn not_raised(error: &EditError) -> Failure {
    Failure::new(match error {
        EditError::Bad { key, reason } => format!(
            "{key}: {reason}\nthe binding stays, since epochs could fall; restore the epoch floor from a copy of the \
             datastore"
        ),
        other => other.to_string(),
    })
}

/// Tells that the floor was raised.
pub(super) fn floor_raised(binding: &Key, floor: Epoch) -> String {
    format!(
        "{binding}: its epoch is not known, so the epoch floor was raised to {}\nthe next owner of the address begins \
         above it",
        floor.0
    )
}

#[cfg(test)]
mod tests {
    use buoy_api::ObjectMeta;
    use buoy_api::binding::{Binding, EpochFloor, EpochFloorSpec};
    use buoy_core::store::{Bad, Revision};

    use super::*;

    #[test]
    fn a_binding_that_stands_for_an_address_stays() {
        let record = |name: &str| Record {
            key: Key::Binding(name.to_owned()),
            revision: Revision(1),
            value: Ok(Value::Binding(Binding::new(
                ObjectMeta::named(name),
                BindingSpec {
                    address: "172.16.1.3".parse().unwrap(),
                    ..BindingSpec::default()
                },
            ))),
        };
        let message = only_if_useless(&record("172-16-1-3"), "172-16-1-3")
            .unwrap_err()
            .to_string();
        assert!(message.contains("buoyctl fip release 172.16.1.3"), "{message}");
        assert_eq!(only_if_useless(&record("172-16-1-4"), "172-16-1-4"), Ok(()));
        let mut garbage = record("172-16-1-3");
        garbage.value = Err(Bad {
            reason: "x".to_owned(),
        });
        assert_eq!(only_if_useless(&garbage, "172-16-1-3"), Ok(()));
    }

    #[test]
    fn the_floor_comes_to_stand_above_all_that_is_known() {
        let floor = |epoch| {
            let spec = EpochFloorSpec {
                epoch: Epoch(epoch),
                ..EpochFloorSpec::default()
            };
            Value::EpochFloor(EpochFloor::new(ObjectMeta::named("default"), spec))
        };
        assert_eq!(above(None, Epoch(7)), Epoch(1007));
        assert_eq!(above(Some(&floor(3)), Epoch(7)), Epoch(1007));
        assert_eq!(above(Some(&floor(9)), Epoch(7)), Epoch(1009));
        assert_eq!(above(Some(&floor(u64::MAX)), Epoch(7)), Epoch(u64::MAX));
    }
}
