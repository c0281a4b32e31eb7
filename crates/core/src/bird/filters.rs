//! What is taken from whom, and what is told to whom.

use std::fmt::Write as _;

use buoy_api::ip::Family;
use ipnet::IpNet;

use super::{BIRD_METRIC, Pool};
use crate::desired::{BORROWED_METRIC, FLOATING_METRIC_BASE, FLOATING_METRIC_RANGE, ROUTE_PROTOCOL};

/// Epochs that the daemon's 16 bits of preference can tell apart, above what other sources have.
const PREFERENCES: u32 = 65_000;
/// Preference of an address without an epoch.
const PREFERENCE_BASE: u32 = 200;
/// Local preference of a route without an epoch.
const LOCAL_PREF_BASE: u32 = 100;

/// 4 or 6, as in the names of tables, channels and filters.
pub(super) fn number(family: Family) -> char {
    match family {
        Family::V4 => '4',
        Family::V6 => '6',
    }
}

/// Filters and functions of both families.
pub(super) fn filters(pools: &[Pool]) -> String {
    let mut text = from_kernel() + &from_mesh() + TO_KERNEL + IS_HERE;
    for family in Family::ALL {
        text += &of_family(family, pools);
    }
    text
}

/// From the kernel: only what this agent wrote, and only what leads to a workload. The metric says what it is: a
/// floating IP by its epoch, or an address of a block that is not this node's.
fn from_kernel() -> String {
    let lowest = FLOATING_METRIC_BASE - FLOATING_METRIC_RANGE;
    format!(
        "
filter buoy_from_kernel
int epoch;
{{
  if krt_source != {ROUTE_PROTOCOL} || dest != RTD_UNICAST || ! defined(krt_metric) then reject;
  if krt_metric = {BORROWED_METRIC} then accept;
  if krt_metric < {lowest} || krt_metric > {FLOATING_METRIC_BASE} then reject;
  epoch = {FLOATING_METRIC_BASE} - krt_metric;
  bgp_local_pref = {LOCAL_PREF_BASE} + epoch;
  if epoch > {PREFERENCES} then epoch = {PREFERENCES};
  preference = {PREFERENCE_BASE} + epoch;
  accept;
}}
"
    )
}

/// From other nodes: the epoch is the preference here too, else a node that has an address itself would not see a newer
/// owner.
fn from_mesh() -> String {
    format!(
        "
filter buoy_from_mesh
int epoch;
{{
  if bgp_local_pref > {LOCAL_PREF_BASE} then {{
    epoch = bgp_local_pref - {LOCAL_PREF_BASE};
    if epoch > {PREFERENCES} then epoch = {PREFERENCES};
    preference = {PREFERENCE_BASE} + epoch;
  }}
  accept;
}}
"
    )
}

/// To the kernel: what peers say, if it leads somewhere; and the blocks of this node, so that what nobody has in them is
/// unreachable. A block of one address would hide its workload.
const TO_KERNEL: &str = "
filter buoy_to_kernel
{
  if source = RTS_BGP && dest = RTD_UNICAST then accept;
  if source = RTS_STATIC && (net.type = NET_IP4 && net.len < 32 || net.type = NET_IP6 && net.len < 128) then accept;
  reject;
}
";

/// What lives on this node: learnt from its kernel, or a block of it.
const IS_HERE: &str = "
function buoy_is_here()
{
  return source = RTS_INHERIT || source = RTS_STATIC;
}
";

fn of_family(family: Family, pools: &[Pool]) -> String {
    let n = number(family);
    let of = |wanted: &dyn Fn(&Pool) -> bool| -> Vec<IpNet> {
        let pools = pools
            .iter()
            .filter(|pool| Family::of_net(&pool.cidr) == family && wanted(pool));
        pools.map(|pool| pool.cidr).collect()
    };
    let mut text = String::new();
    for (name, prefixes) in [
        ("in_pools", of(&|_| true)),
        ("hidden", of(&|pool| !pool.exported)),
        ("exported", of(&|pool| pool.exported)),
    ] {
        let within = within(&prefixes);
        let _ = write!(text, "\nfunction buoy_{name}{n}()\n{{\n  return {within};\n}}\n");
    }
    let _ = write!(
        text,
        "
function buoy_is_announced{n}()
{{
  return buoy_is_here() && buoy_exported{n}() && ! buoy_hidden{n}();
}}

filter buoy_to_mesh{n}
{{
  if buoy_is_announced{n}() then accept;
  reject;
}}

filter buoy_from_outside{n}
{{
  if buoy_in_pools{n}() then reject;
  accept;
}}

filter buoy_to_outside{n}
{{
  if ! buoy_is_announced{n}() then reject;
  if defined(krt_metric) then bgp_med = krt_metric;
  accept;
}}
"
    );
    text
}

/// Whether a route lies in one of these prefixes. The language has no empty set.
fn within(prefixes: &[IpNet]) -> String {
    if prefixes.is_empty() {
        return "false".to_owned();
    }
    let all: Vec<String> = prefixes.iter().map(|prefix| format!("{prefix}+")).collect();
    format!("net ~ [ {} ]", all.join(", "))
}

/// The daemon's view of links and kernel tables. It leaves its routes in place when it ends, and touches none of anybody
/// else's.
pub(super) fn kernel() -> String {
    let mut text = "
protocol device buoy_device { scan time 10; }
protocol direct buoy_direct { ipv4; ipv6; interface -\"cali*\", \"*\"; }
"
    .to_owned();
    for n in Family::ALL.map(number) {
        let _ = write!(
            text,
            "
protocol kernel buoy_kernel{n} {{
  learn;
  persist;
  graceful restart;
  scan time 10;
  metric {BIRD_METRIC};
  ipv{n} {{ import filter buoy_from_kernel; export filter buoy_to_kernel; }};
}}
"
        );
    }
    text
}
