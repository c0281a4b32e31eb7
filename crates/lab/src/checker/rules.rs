//! The invariants, each as a function from what is to what is wrong, a line each.

mod clean;
mod elsewhere;
mod ipam;
mod network;
mod owner;
mod records;

use super::facts::Facts;

/// Everything that does not agree.
pub(super) fn disagreements(facts: &Facts) -> Vec<String> {
    let mut wrong: Vec<String> = facts
        .records
        .bad
        .iter()
        .map(|bad| format!("a record cannot be read: {bad}"))
        .collect();
    for rule in [
        clean::wrong,
        owner::wrong,
        elsewhere::wrong,
        network::wrong,
        ipam::wrong,
        records::wrong,
    ] {
        wrong.extend(rule(facts));
    }
    wrong
}

#[cfg(test)]
pub(super) mod planted;
