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

#[cfg(test)]
mod tests {
    use buoy_api::meta::ObjectMeta;
    use buoy_api::v3::IpPoolSpec;

    use super::*;

    fn range(cidr: &str, block_len: u8) -> Option<Range> {
        let mut spec = IpPoolSpec::new(cidr.parse().unwrap());
        spec.block_size = Some(block_len);
        Range::of(&IpPool::new(ObjectMeta::named("pool"), spec))
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn blocks_are_counted_in_both_families() {
        let v4 = range("10.65.0.0/16", 26).unwrap();
        assert_eq!(v4.count(), 1024);
        assert_eq!(v4.nth(666), Some(net("10.65.166.128/26")));
        assert_eq!(v4.nth(1024), None);
        assert_eq!(
            v4.block_of("10.65.3.7".parse().unwrap()),
            Some(net("10.65.3.0/26"))
        );
        assert_eq!(v4.block_of("10.66.3.7".parse().unwrap()), None);
        let v6 = range("fd00:65::/64", 122).unwrap();
        assert_eq!(v6.count(), 1 << 58);
        assert_eq!(
            v6.nth((1 << 58) - 1),
            Some(net("fd00:65::ffff:ffff:ffff:ffc0/122"))
        );
        assert_eq!(
            v6.block_of("fd00:65::beef".parse().unwrap()),
            Some(net("fd00:65::bec0/122"))
        );
        let all = range("::/0", 116).unwrap();
        assert_eq!(
            all.nth(all.count() - 1),
            Some(net("ffff:ffff:ffff:ffff:ffff:ffff:ffff:f000/116"))
        );
        assert_eq!(range("::1/128", 128).unwrap().nth(0), Some(net("::1/128")));
    }

    #[test]
    fn blocks_that_do_not_fit_are_none() {
        assert_eq!(range("10.65.0.0/28", 26), None);
        assert_eq!(range("10.65.0.0/16", 33), None);
        assert_eq!(
            range("10.0.0.0/8", 19),
            None,
            "more than 4096 addresses in a block"
        );
        assert_eq!(range("fd00::/32", 64), None);
    }

    #[test]
    fn a_reservation_is_stepped_over_as_a_whole() {
        let v6 = range("fd00:65::/64", 122).unwrap();
        assert_eq!(v6.blocks_left(5, &net("fd00:65::/65")), (1 << 57) - 5);
        assert_eq!(v6.blocks_left(5, &net("fd00::/16")), (1 << 58) - 5);
        let v4 = range("10.65.0.0/24", 26).unwrap();
        assert_eq!(v4.blocks_left(1, &net("10.65.0.64/26")), 1);
        assert_eq!(v4.blocks_left(2, &net("10.65.0.128/25")), 2);
        assert_eq!(v4.blocks_left(2, &net("0.0.0.0/0")), 2);
    }
}
