//! Values and their bytes.

use buoy_api::FloatingIp;
use buoy_api::binding::Binding;
use buoy_api::meta::Extra;
use buoy_api::names;
use buoy_core::store::{Bad, Key, Record, Revision, Value};

use super::key::EPOCH_FLOOR;
use super::resource::check_name;
use super::{bad, ipam, resource};

/// Reads the record of a key.
pub fn decode(key: &Key, bytes: &[u8]) -> Result<Value, Bad> {
    let value = match key {
        Key::Pool(_) => Value::Pool(resource::decode(bytes)?),
        Key::Reservation(_) => Value::Reservation(resource::decode(bytes)?),
        Key::Node(_) => Value::Node(resource::decode(bytes)?),
        Key::Endpoint { .. } => Value::Endpoint(resource::decode(bytes)?),
        Key::Felix(_) => Value::Felix(resource::decode(bytes)?),
        Key::ClusterInformation(_) => Value::ClusterInformation(resource::decode(bytes)?),
        Key::Profile(_) => Value::Profile(resource::decode(bytes)?),
        Key::BgpPeer(_) => Value::BgpPeer(resource::decode(bytes)?),
        Key::BgpConfiguration(_) => Value::BgpConfiguration(resource::decode(bytes)?),
        Key::Block(_) => Value::Block(ipam::decode_block(bytes)?),
        Key::Affinity { .. } => Value::Affinity(ipam::decode_affinity(bytes)?),
        Key::Handle(_) => Value::Handle(ipam::decode_handle(bytes)?),
        Key::IpamConfig => Value::IpamConfig(ipam::decode_config(bytes)?),
        Key::Binding(_) => Value::Binding(resource::decode(bytes)?),
        Key::EpochFloor => Value::EpochFloor(resource::decode(bytes)?),
        Key::Lease(_) => Value::Lease(resource::decode(bytes)?),
    };
    check(key, &value)?;
    Ok(value)
}

/// The record of a key, decoded or bad.
pub fn record(key: Key, bytes: &[u8], revision: Revision) -> Record {
    let value = decode(&key, bytes);
    Record { key, revision, value }
}

/// The bytes of a value, with status, as it is.
pub fn encode(value: &Value) -> Result<Vec<u8>, Bad> {
    match encode_parts(value)? {
        Parts::Resource(object) => to_bytes(&object),
        Parts::Plain(bytes) => Ok(bytes),
    }
}

/// A value on its way to its bytes.
pub(super) enum Parts {
    /// JSON of a resource.
    Resource(Extra),
    /// A record without metadata and status.
    Plain(Vec<u8>),
}

pub(super) fn encode_parts(value: &Value) -> Result<Parts, Bad> {
    Ok(match value {
        Value::Pool(value) => Parts::Resource(resource::encode(value)?),
        Value::Reservation(value) => Parts::Resource(resource::encode(value)?),
        Value::Node(value) => Parts::Resource(resource::encode(value)?),
        Value::Endpoint(value) => Parts::Resource(resource::encode(value)?),
        Value::Felix(value) => Parts::Resource(resource::encode(value)?),
        Value::ClusterInformation(value) => Parts::Resource(resource::encode(value)?),
        Value::Profile(value) => Parts::Resource(resource::encode(value)?),
        Value::Binding(value) => Parts::Resource(resource::encode(value)?),
        Value::EpochFloor(value) => Parts::Resource(resource::encode(value)?),
        Value::Lease(value) => Parts::Resource(resource::encode(value)?),
        Value::BgpPeer(value) => Parts::Resource(resource::encode(value)?),
        Value::BgpConfiguration(value) => Parts::Resource(resource::encode(value)?),
        Value::Block(value) => Parts::Plain(ipam::encode_block(value)?),
        Value::Affinity(value) => Parts::Plain(ipam::encode_affinity(value)?),
        Value::Handle(value) => Parts::Plain(ipam::encode_handle(value)?),
        Value::IpamConfig(value) => Parts::Plain(ipam::encode_config(value)?),
    })
}

pub(super) fn to_bytes(object: &Extra) -> Result<Vec<u8>, Bad> {
    serde_json::to_vec(object).map_err(|error| bad(error.to_string()))
}

/// Checks that a value may stand under a key: same kind, same name, and consistent in itself.
pub(super) fn check(key: &Key, value: &Value) -> Result<(), Bad> {
    match (key, value) {
        (Key::Pool(name), Value::Pool(value)) => check_name(value, None, name),
        (Key::Reservation(name), Value::Reservation(value)) => check_name(value, None, name),
        (Key::Node(name), Value::Node(value)) => check_name(value, None, name),
        (Key::Endpoint { namespace, name }, Value::Endpoint(value)) => {
            check_name(value, Some(namespace), name)
        }
        (Key::Felix(name), Value::Felix(value)) => check_name(value, None, name),
        (Key::ClusterInformation(name), Value::ClusterInformation(value)) => check_name(value, None, name),
        (Key::Profile(name), Value::Profile(value)) => check_name(value, None, name),
        (Key::BgpPeer(name), Value::BgpPeer(value)) => check_name(value, None, name),
        (Key::BgpConfiguration(name), Value::BgpConfiguration(value)) => check_name(value, None, name),
        (Key::Lease(name), Value::Lease(value)) => check_name(value, None, name),
        (Key::Binding(name), Value::Binding(value)) => {
            check_name(value, None, name).and_then(|()| check_address(value))
        }
        (Key::EpochFloor, Value::EpochFloor(value)) => check_name(value, None, EPOCH_FLOOR),
        (Key::Block(cidr), Value::Block(block)) => ipam::check_block(cidr, block),
        (Key::Affinity { .. }, Value::Affinity(_))
        | (Key::Handle(_), Value::Handle(_))
        | (Key::IpamConfig, Value::IpamConfig(_)) => Ok(()),
        _ => Err(bad(format!("value of another kind under {key:?}"))),
    }
}

/// The name of a binding is its address: two records of one address would be two owners.
fn check_address(binding: &Binding) -> Result<(), Bad> {
    let address =
        FloatingIp::try_from(binding.spec.address).map_err(|error| bad(format!("spec.address: {error}")))?;
    let expected = names::binding_name(address.addr());
    if binding.name() != expected {
        return Err(bad(format!(
            "metadata.name: {} in the record of {address}, which is named {expected}",
            binding.name()
        )));
    }
    Ok(())
}
