//! Decoded records of every kind.

use buoy_api::binding::{Binding, EpochFloor};
use buoy_api::ipam::{Block, BlockAffinity, Handle, IpamConfig};
use buoy_api::lease::NodeLease;
use buoy_api::v3::{
    BgpConfiguration, BgpPeer, ClusterInformation, FelixConfiguration, IpPool, IpReservation, Node, Profile,
    WorkloadEndpoint,
};

use super::Bad;

/// Makes the enum of all kinds, and each kind what one of it may turn out to be.
macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident($kind:ty),)*) => {
        /// A decoded record. `TryFrom` makes a record of a kind of it, if it is of that kind.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Value {
            $($(#[$doc])* $variant($kind),)*
        }

        $(
            impl TryFrom<Value> for $kind {
                type Error = Bad;

                fn try_from(value: Value) -> Result<Self, Bad> {
                    match value {
                        Value::$variant(record) => Ok(record),
                        _ => Err(Bad {
                            reason: "a record of another kind under this key".to_owned(),
                        }),
                    }
                }
            }
        )*
    };
}

kinds! {
    /// IPPool.
    Pool(IpPool),
    /// IPReservation.
    Reservation(IpReservation),
    /// Node.
    Node(Node),
    /// WorkloadEndpoint.
    Endpoint(WorkloadEndpoint),
    /// FelixConfiguration.
    Felix(FelixConfiguration),
    /// ClusterInformation.
    ClusterInformation(ClusterInformation),
    /// Profile.
    Profile(Profile),
    /// BGPPeer.
    BgpPeer(BgpPeer),
    /// BGPConfiguration.
    BgpConfiguration(BgpConfiguration),
    /// IPAM block.
    Block(Block),
    /// Affinity to a block.
    Affinity(BlockAffinity),
    /// IPAM handle.
    Handle(Handle),
    /// IPAM settings.
    IpamConfig(IpamConfig),
    /// FloatingIPBinding.
    Binding(Binding),
    /// Epoch floor.
    EpochFloor(EpochFloor),
    /// NodeLease.
    Lease(NodeLease),
}
