//! A node from which everything was removed: nothing of an agent or its BIRD is left in the kernel.

use crate::checker::facts::{BIRD, Facts, Kernel, OURS};
use crate::cluster::Standing;

/// What is left on nodes that are clean.
pub(super) fn wrong(facts: &Facts) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, node) in &facts.nodes {
        if node.standing == Standing::Clean {
            let left = left(&node.kernel).into_iter();
            wrong.extend(left.map(|what| format!("{name} is clean, and it has {what}")));
        }
    }
    wrong
}

fn left(kernel: &Kernel) -> Vec<String> {
    let routes = kernel.routes.iter();
    let mut left: Vec<String> = routes
        .filter(|route| [OURS, BIRD].contains(&route.protocol.as_str()))
        .map(|route| format!("a route to {} of protocol {}", route.to, route.protocol))
        .collect();
    let links = kernel.links.iter();
    left.extend(links.map(|(_, link)| format!("{link} in the set of links")));
    let translated = kernel.translated.keys().chain(&kernel.floating);
    left.extend(translated.map(|address| format!("a translation of {address}")));
    let pairs = kernel.ending.iter().chain(&kernel.draining);
    left.extend(pairs.map(|(floating, gone)| format!("the end of flows to {floating} by way of {gone}")));
    left
}
