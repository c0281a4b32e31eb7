//! A pool as a row of blocks.

use std::net::IpAddr;

use buoy_api::ipam::{block_capacity, distance, nth_address};
use buoy_api::v3::IpPool;
use ipnet::IpNet;

/// The blocks that a pool is cut into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Name of the pool.
    pub pool: String,
    /// Prefix of the pool.
    pub cidr: IpNet,
    /// Prefix length of its blocks.
    pub block_len: u8,
}

impl Range {
    /// The blocks of a pool; `None` if its `blockSize` does not fit.
    pub fn of(pool: &IpPool) -> Option<Self> {
        let (cidr, block_len) = (pool.spec.cidr.trunc(), pool.spec.block_len());
        let block = IpNet::new(cidr.network(), block_len).ok()?;
        let fits = block_len >= cidr.prefix_len() && block_capacity(&block).is_some();
        fits.then(|| Self {
            pool: pool.name().to_owned(),
            cidr,
            block_len,
        })
    }

    /// How many blocks.
    pub fn count(&self) -> u128 {
        1u128
            .checked_shl(u32::from(self.block_len - self.cidr.prefix_len()))
            .unwrap_or(u128::MAX)
    }

    /// The block with an index; `None` beyond the pool.
    pub fn nth(&self, index: u128) -> Option<IpNet> {
        let host_bits = u32::from(self.cidr.max_prefix_len() - self.block_len);
        let offset = if index == 0 {
            0
        } else {
            index.checked_mul(1u128.checked_shl(host_bits)?)?
        };
        IpNet::new(nth_address(&self.cidr, offset)?, self.block_len).ok()
    }

    /// The block that an address lies in; `None` outside of the pool.
    pub fn block_of(&self, address: IpAddr) -> Option<IpNet> {
        distance(&self.cidr, address)?;
        Some(IpNet::new(address, self.block_len).ok()?.trunc())
    }

    /// Whether a prefix is a block of this pool.
    pub fn has_block(&self, block: &IpNet) -> bool {
        block.prefix_len() == self.block_len && self.cidr.contains(block)
    }

    /// How many blocks there are from this index to the end of a prefix that covers it: at least one.
    pub fn blocks_left(&self, index: u128, covering: &IpNet) -> u128 {
        let host_bits = u32::from(self.cidr.max_prefix_len() - self.block_len);
        let end = match distance(&self.cidr, covering.broadcast()) {
            Some(last) => last.checked_shr(host_bits).unwrap_or(0),
            None => self.count() - 1,
        };
        end.saturating_sub(index) + 1
    }
}
