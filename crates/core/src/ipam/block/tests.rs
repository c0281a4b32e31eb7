use proptest::prelude::*;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn grant(handle: &str) -> Grant {
    Grant {
        handle: handle.to_owned(),
        attributes: BTreeMap::from([("node".to_owned(), "node1".to_owned())]),
    }
}

fn host_block(cidr: &str) -> Block {
    let now = "2026-11-21T01:02:38.929661091Z".parse().unwrap();
    new(net(cidr), Some(AffinityOwner::Host("node1".to_owned())), now)
}

/// As a write does.
fn written(block: &mut Block) {
    block.sequence_number += 1;
}

fn allocations(block: &Block) -> Vec<i64> {
    let index = |slot: &Option<usize>| slot.map_or(-1, |index| index as i64);
    block.allocations.iter().map(index).collect()
}

#[test]
fn a_new_block_begins_with_the_time() {
    let block = host_block("10.67.0.0/30");
    assert_eq!(block.sequence_number, 1_795_222_958_929_661_091);
    assert_eq!(
        block.affinity_claim_time,
        Some("2026-11-21T01:02:38Z".parse().unwrap())
    );
    assert_eq!(block.unallocated, [0, 1, 2, 3]);
    assert_eq!(
        new(net("fd00::/122"), None, Timestamp::UNIX_EPOCH)
            .allocations
            .len(),
        64
    );
    assert_eq!(
        new(net("fd00::/122"), None, Timestamp::UNIX_EPOCH).affinity_claim_time,
        None
    );
}

/// The blocks of a Calico node that fills a block of four and empties it again, release by release.
#[test]
fn a_block_fills_and_empties_as_calico_does() {
    let mut block = host_block("10.67.0.0/30");
    let first = block.sequence_number;
    for n in 0..4 {
        let handle = format!("net1.c{n}");
        assert_eq!(
            give_next(&mut block, 1, &grant(&handle), &[]),
            [ip(&format!("10.67.0.{n}"))]
        );
        written(&mut block);
    }
    assert_eq!(allocations(&block), [0, 1, 2, 3]);
    assert_eq!(block.unallocated, Vec::<usize>::new());
    let stamps = [(0, first), (1, first + 1), (2, first + 2), (3, first + 3)];
    assert_eq!(block.sequence_number_for_allocation, BTreeMap::from(stamps));
    assert!(!has_room(&block, &[]));
    assert!(give_next(&mut block, 1, &grant("net1.c5"), &[]).is_empty());

    free(&mut block, &[0]);
    assert_eq!(
        (allocations(&block), block.unallocated.clone()),
        (vec![-1, 0, 1, 2], vec![0])
    );
    assert_eq!(
        block.sequence_number_for_allocation,
        BTreeMap::from_iter(stamps.into_iter().skip(1))
    );
    free(&mut block, &[1]);
    assert_eq!(
        (allocations(&block), block.unallocated.clone()),
        (vec![-1, -1, 0, 1], vec![0, 1])
    );
    free(&mut block, &[2]);
    free(&mut block, &[3]);
    assert_eq!(block.unallocated, [0, 1, 2, 3]);
    assert!(block.attributes.is_empty() && block.sequence_number_for_allocation.is_empty());
}

#[test]
fn what_was_free_longest_is_given_first() {
    let mut block = host_block("10.67.0.0/30");
    give_next(&mut block, 2, &grant("a"), &[]);
    free(&mut block, &[1]);
    free(&mut block, &[0]);
    assert_eq!(block.unallocated, [2, 3, 1, 0]);
    let order = give_next(&mut block, 4, &grant("b"), &[]);
    assert_eq!(
        order,
        ["10.67.0.2", "10.67.0.3", "10.67.0.1", "10.67.0.0"].map(ip)
    );
}

#[test]
fn reserved_addresses_keep_their_place_in_the_queue() {
    let mut block = host_block("10.67.0.0/30");
    let reserved = [net("10.67.0.0/31")];
    assert_eq!(
        give_next(&mut block, 1, &grant("a"), &reserved),
        [ip("10.67.0.2")]
    );
    assert_eq!(block.unallocated, [0, 1, 3]);
    assert!(has_room(&block, &reserved));
    assert!(!has_room(&block, &[net("10.67.0.0/24")]));
    assert!(
        give_address(&mut block, ip("10.67.0.1"), &grant("b")),
        "by hand they are open"
    );
    assert_eq!(block.unallocated, [0, 3]);
}

#[test]
fn one_address_is_given_once() {
    let mut block = host_block("fd00:65::bec0/122");
    assert!(give_address(&mut block, ip("fd00:65::beef"), &grant("a")));
    assert_eq!(block.allocations[47], Some(0));
    assert_eq!(stamp_of(&block, 47), Some(block.sequence_number));
    assert!(!give_address(&mut block, ip("fd00:65::beef"), &grant("b")));
    assert!(
        !give_address(&mut block, ip("fd00:65::bf00"), &grant("b")),
        "it is in the next block"
    );
    assert!(!give_address(&mut block, ip("10.67.0.1"), &grant("b")));
}

#[test]
fn addresses_of_one_request_share_an_attribute() {
    let mut block = host_block("10.67.0.0/29");
    give_next(&mut block, 2, &grant("a"), &[]);
    give_next(&mut block, 1, &grant("b"), &[]);
    give_next(&mut block, 1, &grant("a"), &[]);
    assert_eq!(allocations(&block), [0, 0, 1, 0, -1, -1, -1, -1]);
    let mut other = grant("a");
    other.attributes.insert("node".to_owned(), "node2".to_owned());
    give_next(&mut block, 1, &other, &[]);
    assert_eq!(allocations(&block)[4], 2, "same handle, other attributes");

    free(&mut block, &[0, 1, 3]);
    assert_eq!(allocations(&block), [-1, -1, 0, -1, 1, -1, -1, -1]);
    assert_eq!(block.attributes.len(), 2);
    assert_eq!(block.unallocated, [5, 6, 7, 0, 1, 3]);
}

#[test]
fn a_stamp_is_newer_and_keeps_the_place() {
    let mut block = host_block("10.67.0.0/30");
    give_address(&mut block, ip("10.67.0.2"), &grant("a"));
    give_address(&mut block, ip("10.67.0.3"), &grant("b"));
    written(&mut block);
    let before = stamp_of(&block, 2).unwrap();
    let mut anew = grant("a");
    anew.attributes.insert("note".to_owned(), "again".to_owned());
    stamp(&mut block, 2, &anew);
    assert_eq!(stamp_of(&block, 2), Some(before + 1));
    assert_eq!(block.holder(2).unwrap().secondary["note"], "again");
    assert_eq!(block.holder(3).unwrap().handle.as_deref(), Some("b"));
    assert_eq!(
        (block.attributes.len(), block.unallocated.clone()),
        (2, vec![0, 1])
    );
}

#[test]
fn a_cooling_address_is_not_free() {
    let mut block = host_block("10.67.0.0/30");
    give_address(&mut block, ip("10.67.0.0"), &grant("a"));
    block.attributes[0] = Attribute {
        released_at: Some("2026-11-21T01:05:00Z".parse().unwrap()),
        ..Attribute::default()
    };
    assert!(!give_address(&mut block, ip("10.67.0.0"), &grant("b")));
    assert_eq!(block.ordinals_of("a").count(), 0);
}

#[test]
fn a_damaged_queue_gives_nothing_twice() {
    let mut block = host_block("10.67.0.0/30");
    give_next(&mut block, 1, &grant("a"), &[]);
    block.unallocated = vec![0, 99, 1, 2, 3];
    assert_eq!(give_next(&mut block, 1, &grant("b"), &[]), [ip("10.67.0.1")]);
}

#[test]
fn sequence_numbers_beyond_doubles_stay_exact() {
    let mut block = host_block("10.67.0.0/30");
    block.sequence_number = (1 << 53) + 1;
    give_next(&mut block, 1, &grant("a"), &[]);
    assert_eq!(stamp_of(&block, 0), Some(9_007_199_254_740_993));
}

proptest! {
    /// Any row of gifts and releases leaves every ordinal either given or queued once, and no attribute unused.
    #[test]
    fn gifts_and_releases_partition_the_block(acts in prop::collection::vec((0..4u8, 0..8usize), 0..60)) {
        let mut block = host_block("10.67.0.0/29");
        for (act, n) in acts {
            match act {
                0 => drop(give_next(&mut block, n % 3, &grant(&format!("h{}", n % 4)), &[net("10.67.0.6/31")])),
                1 => {
                    let address = block.address(n).unwrap();
                    let free = block.allocations[n].is_none();
                    prop_assert_eq!(give_address(&mut block, address, &grant("x")), free);
                }
                2 => free(&mut block, &[n]),
                _ => {
                    let handle = format!("h{}", n % 4);
                    let ordinals: Vec<usize> = block.ordinals_of(&handle).collect();
                    free(&mut block, &ordinals);
                    prop_assert_eq!(block.ordinals_of(&handle).count(), 0);
                }
            }
            written(&mut block);
            let mut queued = block.unallocated.clone();
            queued.extend(block.allocated().map(|(ordinal, _)| ordinal));
            queued.sort_unstable();
            prop_assert_eq!(queued, (0..8).collect::<Vec<_>>());
            prop_assert_eq!(block.defect(), None);
            for index in 0..block.attributes.len() {
                prop_assert!(block.allocations.contains(&Some(index)));
            }
        }
    }
}
