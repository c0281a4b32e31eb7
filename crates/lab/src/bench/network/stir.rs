//! Addresses are moved at random, and agents killed at random, for a while. The seeds are always the same.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::super::bindings;
use super::{Field, address};
use crate::checker::Checker;
use crate::dice::Dice;

/// Ten moves a second.
const EVERY: Duration = Duration::from_millis(100);
/// The shortest and the longest time between two kills.
const BETWEEN_KILLS: [u64; 2] = [500, 2_500];
/// Between two looks at the epochs.
const LOOK: Duration = Duration::from_secs(1);
/// How often who waits looks whether it is over.
const ATTENTION: Duration = Duration::from_millis(20);

/// What was done.
#[derive(Clone, Debug)]
pub(super) struct Stirred {
    /// The number of each address that was asked to move, in order; some more than once.
    pub(super) moved: Vec<usize>,
    /// Agents killed and started again.
    pub(super) kills: usize,
}

/// Does both for a period, to so many addresses. Error: an agent does not start again, or an epoch had two owners.
pub(super) fn stir(field: &Field, count: usize, period: Duration) -> Result<Stirred> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let killing = scope.spawn(|| kill(field, &over));
        let watching = scope.spawn(|| watch(field, &over));
        let moved = ask_for_moves(field, count, period);
        over.store(true, Ordering::Relaxed);
        let kills = killing.join().map_err(|_| anyhow!("who kills panicked"))?;
        watching.join().map_err(|_| anyhow!("who watches panicked"))??;
        Ok(Stirred {
            moved: moved?,
            kills: kills?,
        })
    })
}

fn ask_for_moves(field: &Field, count: usize, period: Duration) -> Result<Vec<usize>> {
    let mut dice = Dice::new(10);
    let (begun, mut moved) = (Instant::now(), Vec::new());
    let mut next = begun;
    while begun.elapsed() < period {
        let number = dice.below(count);
        let floating = address(number);
        let binding = bindings::binding(field.store.as_ref(), floating)?;
        let owner = binding.spec.owner.as_ref();
        let mut candidates = binding.status.candidates.iter();
        let other = candidates.find(|candidate| owner.is_none_or(|owner| !candidate.is(owner)));
        let other = other.with_context(|| format!("nobody stands by for {floating}"))?;
        let id = format!("stir-{}", moved.len());
        bindings::ask_to_move(field.store.as_ref(), floating, &other.workload, &id)?;
        moved.push(number);
        next += EVERY;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(moved)
}

/// Kills agents until it is over, one at a time, and starts each again at once.
fn kill(field: &Field, over: &AtomicBool) -> Result<usize> {
    let mut dice = Dice::new(9);
    let (nodes, mut kills) = (field.nodes()?, 0);
    let [shortest, longest] = BETWEEN_KILLS;
    loop {
        let pause = shortest + dice.roll() % (longest - shortest);
        if !pause_until(over, Duration::from_millis(pause)) {
            return Ok(kills);
        }
        let node = &nodes[dice.below(nodes.len())];
        node.kill_agent();
        node.start_agent()?;
        kills += 1;
    }
}

/// Looks at the records meanwhile: an epoch has one owner for ever.
fn watch(field: &Field, over: &AtomicBool) -> Result<()> {
    let mut checker = Checker::default();
    while pause_until(over, LOOK) {
        let wrong = checker.watch(&field.cluster.places())?;
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
    Ok(())
}

/// Waits; false as soon as it is over.
fn pause_until(over: &AtomicBool, pause: Duration) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < pause {
        if over.load(Ordering::Relaxed) {
            return false;
        }
        thread::sleep(ATTENTION);
    }
    true
}
