//! `fip release`: ends the time for which a namespace keeps an address that nobody uses.

use buoy_api::{Binding, FloatingIp};
use buoy_core::store::Value;
use jiff::Timestamp;
use serde::Serialize;

use super::{binding_in, binding_key};
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::store::{Edit, Store};

/// What was released.
#[derive(Debug, Serialize)]
struct Released {
    address: FloatingIp,
    namespace: String,
}

/// Gives an address without owner up, so that the collector takes it at once.
pub(crate) fn release(store: &Store, address: FloatingIp, format: Format) -> Result<Output, Failure> {
    let namespace = store.change(&binding_key(address.addr()), |record| {
        let Some(binding) = binding_in(record)? else {
            return Err(Failure::new(format!(
                "not held: {address}\nbuoyctl fip list shows the floating IPs that are"
            )));
        };
        let namespace = binding.spec.namespace.clone();
        Ok(match ended(binding)? {
            Some(binding) => Edit::Put(Box::new(Value::Binding(binding)), namespace),
            None => Edit::Keep(namespace),
        })
    })?;
    let released = Released { address, namespace };
    Output::render(format, &released, || {
        format!("{address} is no longer held for namespace {}", released.namespace)
    })
}

/// The binding with its hold ended long ago; `None` if it is already.
fn ended(binding: &Binding) -> Result<Option<Binding>, Failure> {
    let address = binding.spec.address;
    if let Some(owner) = &binding.spec.owner {
        return Err(Failure::new(format!(
            "in use: {address}: {} on {}\ntake the request back first: buoyctl fip detach {address}",
            owner.workload, owner.node
        )));
    }
    if binding.spec.released == Some(Timestamp::UNIX_EPOCH) {
        return Ok(None);
    }
    let mut binding = binding.clone();
    binding.spec.released = Some(Timestamp::UNIX_EPOCH);
    Ok(Some(binding))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::binding;
    use super::*;

    #[test]
    fn only_an_address_without_owner_is_released() {
        let mut record = binding(&["web-0"]);
        assert_eq!(
            ended(&record).unwrap_err().to_string(),
            "in use: 172.16.1.3: web-0 on n1\ntake the request back first: buoyctl fip detach 172.16.1.3"
        );
        record.spec.owner = None;
        record.spec.released = Some(Timestamp::now());
        let after = ended(&record).unwrap().unwrap();
        assert_eq!(after.spec.released.unwrap().to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(after.spec.epoch, record.spec.epoch);
        assert_eq!(ended(&after), Ok(None));
    }
}
