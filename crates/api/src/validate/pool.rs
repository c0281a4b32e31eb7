//! Rules of an IPPool.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Check, Invalid};
use crate::annotations::FloatingUse;
use crate::ip::Family;
use crate::selector::Selector;
use crate::v3::{AllowedUse, IpPool, IpPoolSpec};

/// Prefixes that no pool may touch: link-local ones, and IPv4 written as IPv6.
const UNUSABLE: [IpNet; 3] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16)),
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),
        10,
    )),
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0),
        96,
    )),
];

/// Values of `ipipMode` and `vxlanMode`.
const ENCAPSULATIONS: [&str; 3] = ["Never", "Always", "CrossSubnet"];

/// Checks an IPPool against `before`, the record it replaces, and `others`, all pools there are (one of the same name
/// is passed over).
pub fn ip_pool<'a>(
    pool: &IpPool,
    before: Option<&IpPool>,
    others: impl IntoIterator<Item = &'a IpPool>,
) -> Result<(), Invalid> {
    let mut check = Check::default();
    check.object_name(&pool.metadata);
    prefix(&mut check, pool);
    for other in others {
        if other.name() != pool.name() && overlap(&pool.spec.cidr, &other.spec.cidr) {
            check.fail(
                "spec.cidr",
                &format!("overlaps IPPool {:?}: {}", other.name(), other.spec.cidr),
                "choose a prefix that no other pool covers",
            );
        }
    }
    if let Some(before) = before {
        unchanged(&mut check, &pool.spec, &before.spec);
    }
    encapsulation(&mut check, &pool.spec);
    uses(&mut check, &pool.spec);
    selectors(&mut check, &pool.spec);
    if let Err(errors) = FloatingUse::of_pool(&pool.metadata.annotations) {
        for error in errors.iter() {
            check.told(
                format!("metadata.annotations[{}]", error.annotation),
                &error.problem.to_string(),
            );
        }
    }
    check.finish::<IpPoolSpec>(&pool.metadata)
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

fn prefix(check: &mut Check, pool: &IpPool) {
    let spec = &pool.spec;
    check.masked("spec.cidr", &spec.cidr);
    for unusable in UNUSABLE {
        if overlap(&spec.cidr, &unusable) {
            check.fail(
                "spec.cidr",
                &format!("overlaps {unusable}, which cannot be routed: {}", spec.cidr),
                "choose another prefix",
            );
        }
    }
    let family = Family::of_net(&spec.cidr);
    let allowed = match family {
        Family::V4 => 20..=32,
        Family::V6 => 116..=128,
    };
    let block = spec.block_len();
    if !allowed.contains(&block) {
        check.fail(
            "spec.blockSize",
            &format!("not a size of {family} blocks: {block}"),
            &format!("use {} to {}", allowed.start(), allowed.end()),
        );
    } else if spec.cidr.prefix_len() > block && !spec.disabled {
        check.fail(
            "spec.cidr",
            &format!("holds no block of /{block}: {}", spec.cidr),
            "choose a shorter prefix or a larger blockSize",
        );
    }
}

/// Blocks and allocations exist by prefix and size, so neither may change under them.
fn unchanged(check: &mut Check, spec: &IpPoolSpec, before: &IpPoolSpec) {
    let hint = "make another pool and delete this one";
    if spec.cidr != before.cidr {
        check.fail(
            "spec.cidr",
            &format!("cannot change from {} to {}", before.cidr, spec.cidr),
            hint,
        );
    }
    if spec.block_len() != before.block_len() {
        check.fail(
            "spec.blockSize",
            &format!(
                "cannot change from {} to {}",
                before.block_len(),
                spec.block_len()
            ),
            hint,
        );
    }
}

fn encapsulation(check: &mut Check, spec: &IpPoolSpec) {
    let modes = [
        ("spec.ipipMode", &spec.ipip_mode),
        ("spec.vxlanMode", &spec.vxlan_mode),
    ];
    for (field, mode) in modes {
        if let Some(mode) = mode {
            check.one_of(field, mode, &ENCAPSULATIONS);
        }
    }
    let [ipip, vxlan] = modes.map(|(_, mode)| mode.as_deref().is_some_and(|mode| mode != "Never"));
    if ipip && vxlan {
        check.fail(
            "spec.vxlanMode",
            "used together with ipipMode",
            "set one of them to Never",
        );
    }
    if ipip && Family::of_net(&spec.cidr) == Family::V6 {
        check.fail("spec.ipipMode", "carries no IPv6", "set it to Never");
    }
}

fn uses(check: &mut Check, spec: &IpPoolSpec) {
    let uses = &spec.allowed_uses;
    if uses.contains(&AllowedUse::LoadBalancer) && uses.iter().any(|u| *u != AllowedUse::LoadBalancer) {
        check.fail(
            "spec.allowedUses",
            "LoadBalancer stands beside another use",
            "make a pool for it alone",
        );
    }
}

fn selectors(check: &mut Check, spec: &IpPoolSpec) {
    let selectors = [
        ("spec.nodeSelector", &spec.node_selector),
        ("spec.namespaceSelector", &spec.namespace_selector),
    ];
    for (field, text) in selectors {
        if let Some(text) = text.as_deref().filter(|text| !text.is_empty())
            && let Err(error) = text.parse::<Selector>()
        {
            check.fail(
                field,
                &error.to_string(),
                "write it as zone == \"a\" && !has(edge), or all()",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::fields;
    use super::*;
    use crate::annotations::POOL_FLOATING_IPS;
    use crate::meta::ObjectMeta;

    fn pool(name: &str, cidr: &str) -> IpPool {
        IpPool::new(ObjectMeta::named(name), IpPoolSpec::new(cidr.parse().unwrap()))
    }

    fn alone(pool: &IpPool) -> Result<(), Invalid> {
        ip_pool(pool, None, [])
    }

    fn edited(edit: impl FnOnce(&mut IpPoolSpec)) -> Result<(), Invalid> {
        let mut pool = pool("p", "10.65.0.0/16");
        edit(&mut pool.spec);
        alone(&pool)
    }

    #[test]
    fn a_pool_is_a_masked_prefix_that_can_be_routed() {
        assert_eq!(alone(&pool("p", "10.65.0.0/16")), Ok(()));
        assert_eq!(alone(&pool("p", "fd80::/64")), Ok(()));
        assert_eq!(
            alone(&pool("p", "10.65.0.7/16")).unwrap_err().problems[0].hint,
            "write 10.65.0.0/16"
        );
        for unusable in ["169.254.7.0/24", "fe80::/64", "::ffff:10.0.0.0/104", "0.0.0.0/0"] {
            assert_eq!(fields(alone(&pool("p", unusable))), ["spec.cidr"], "{unusable}");
        }
    }

    #[test]
    fn blocks_have_a_size_that_fits() {
        assert_eq!(edited(|spec| spec.block_size = Some(32)), Ok(()));
        for size in [19, 33, 122] {
            assert_eq!(
                fields(edited(|spec| spec.block_size = Some(size))),
                ["spec.blockSize"],
                "{size}"
            );
        }
        let mut small = pool("p", "10.65.0.0/28");
        assert_eq!(fields(alone(&small)), ["spec.cidr"]);
        small.spec.disabled = true;
        assert_eq!(alone(&small), Ok(()));
        let mut six = pool("p", "fd80::/64");
        six.spec.block_size = Some(115);
        assert_eq!(fields(alone(&six)), ["spec.blockSize"]);
    }

    #[test]
    fn pools_do_not_overlap_and_do_not_move() {
        let before = pool("p", "10.65.0.0/16");
        let others = [before.clone(), pool("q", "10.66.0.0/16")];
        assert_eq!(ip_pool(&before, Some(&before), &others), Ok(()));
        let inside = pool("r", "10.66.1.0/24");
        assert_eq!(fields(ip_pool(&inside, None, &others)), ["spec.cidr"]);
        let mut moved = pool("p", "10.67.0.0/16");
        moved.spec.block_size = Some(28);
        assert_eq!(
            fields(ip_pool(&moved, Some(&before), &others)),
            ["spec.cidr", "spec.blockSize"]
        );
        let mut spelled_out = before.clone();
        spelled_out.spec.block_size = Some(26);
        assert_eq!(ip_pool(&spelled_out, Some(&before), &others), Ok(()));
    }

    #[test]
    fn encapsulations_and_uses_exclude_each_other() {
        let always = || Some("Always".to_owned());
        assert_eq!(edited(|spec| spec.ipip_mode = always()), Ok(()));
        assert_eq!(
            fields(edited(|spec| {
                spec.ipip_mode = always();
                spec.vxlan_mode = Some("always".to_owned());
            })),
            ["spec.vxlanMode", "spec.vxlanMode"]
        );
        let mut six = pool("p", "fd80::/64");
        six.spec.ipip_mode = always();
        assert_eq!(fields(alone(&six)), ["spec.ipipMode"]);
        assert_eq!(
            fields(edited(
                |spec| spec.allowed_uses = vec![AllowedUse::LoadBalancer, AllowedUse::Tunnel]
            )),
            ["spec.allowedUses"]
        );
    }

    #[test]
    fn selectors_can_be_read() {
        let good = |text: &str| Some(text.to_owned());
        assert_eq!(
            edited(|spec| {
                spec.node_selector = good("zone == 'a' && !has(edge)");
                spec.namespace_selector = good("");
            }),
            Ok(())
        );
        assert_eq!(
            fields(edited(|spec| {
                spec.node_selector = good("zone ==");
                spec.namespace_selector = good("(");
            })),
            ["spec.nodeSelector", "spec.namespaceSelector"]
        );
    }

    #[test]
    fn the_annotation_about_floating_ips_is_checked() {
        let mut odd = pool("p", "10.65.0.0/16");
        odd.metadata
            .annotations
            .insert(POOL_FLOATING_IPS.to_owned(), "yes".to_owned());
        let error = alone(&odd).unwrap_err();
        assert_eq!(
            error.problems[0].field,
            "metadata.annotations[buoy.dev/floatingIPs]"
        );
        assert_eq!(error.problems[0].hint, "write Allow, Deny or Only");
    }
}
