//! One schedule. Everything follows from its seed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::world::World;

/// A rule that is broken on purpose, to see that the model notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    /// An owner is taken from a node whose lease was only waited for.
    ClaimWithoutRevoking,
    /// A lease is revoked whatever contact there was while it stood.
    GapsCount,
    /// A lease is revoked by who has not shown that anybody could have renewed it.
    RevokesUnproven,
    /// The same, and a revocation that fails is tried again at once.
    OutagesCount,
    /// A lease is revoked as soon as it was read.
    RevokesAtOnce,
    /// The owner writes another node's workload as the next owner.
    OwnerIsWrittenForOthers,
    /// Who has begun to give an address away is sure of it until the record comes back.
    ConfirmedWhileGiving,
    /// A renewal is written whatever the lease's revision.
    RenewalIgnoresRevision,
    /// A claim is written whatever the binding has become.
    ClaimComparesNothing,
    /// After a restore of the store nobody waits until the others have written again what they have.
    WaitsForNobody,
}

/// What is checked after every step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// I3, and the rules that bring it about.
    All,
    /// That at most one agent is confirmed, whatever rules were broken before.
    ConfirmedAlone,
}

/// How rough the weather is, in chances of a thousand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// That an act of fate is a failure.
    pub trouble: u64,
    /// That a second agent under one node's name comes.
    pub twin: u64,
    /// That an answer is lost.
    pub unknown: u64,
    /// That an operation fails.
    pub failed: u64,
    /// That a write whose answer was lost happens later.
    pub late: u64,
}

/// Nothing fails by itself.
pub(crate) const FAIR: Weather = Weather {
    trouble: 0,
    twin: 0,
    unknown: 0,
    failed: 0,
    late: 0,
};
/// Workloads come and go, and people move addresses.
pub(crate) const CALM: Weather = Weather {
    trouble: 60,
    twin: 0,
    unknown: 5,
    failed: 5,
    late: 0,
};
/// Machines, processes and links fail.
pub(crate) const ROUGH: Weather = Weather {
    trouble: 900,
    twin: 0,
    unknown: 20,
    failed: 20,
    late: 10,
};
/// Answers are lost and writes are late.
pub(crate) const LOSSY: Weather = Weather {
    trouble: 500,
    twin: 0,
    unknown: 100,
    failed: 60,
    late: 60,
};
/// Two agents have one node name.
pub(crate) const TWINS: Weather = Weather {
    trouble: 700,
    twin: 800,
    unknown: 20,
    failed: 10,
    late: 10,
};

pub(crate) const WEATHERS: [Weather; 4] = [CALM, ROUGH, LOSSY, TWINS];

const ROUNDS: usize = 140;

/// Runs one schedule. On failure: what went wrong.
pub(crate) fn schedule(seed: u64, flaw: Flaw, watch: Watch) -> Result<(), String> {
    all(&mut world(seed, flaw, watch, false))
}

/// What happens in a schedule, in a word each, and how often.
pub(crate) fn events(seed: u64) -> BTreeMap<&'static str, u64> {
    let mut world = world(seed, Flaw::None, Watch::All, false);
    let _ = all(&mut world);
    world.history.events
}

/// The same with every step in words.
pub(crate) fn story(seed: u64) -> String {
    let mut world = world(seed, Flaw::None, Watch::All, true);
    let end = all(&mut world);
    let trace = world.trace.unwrap_or_default();
    match end {
        Ok(()) => format!("{trace}nothing went wrong"),
        Err(reason) => format!("{trace}{reason}"),
    }
}

fn world(seed: u64, flaw: Flaw, watch: Watch, traced: bool) -> World {
    let weather = WEATHERS[(seed % WEATHERS.len() as u64) as usize];
    World {
        flaw,
        watch,
        trace: traced.then(String::new),
        ..World::new(seed, weather)
    }
}

fn all(world: &mut World) -> Result<(), String> {
    let rounds = ROUNDS / 2 + world.rng.below(ROUNDS);
    for _ in 0..rounds {
        round(world)?;
    }
    world.come_to_rest()?;
    world.outlive_outages()?;
    world.replace_in_time()
}

/// Runs one schedule in which the store is restored from a copy in the end. On failure: what went wrong.
pub(crate) fn restored(seed: u64, flaw: Flaw) -> Result<(), String> {
    let weathers = [CALM, ROUGH, LOSSY];
    let mut world = World {
        flaw,
        ..World::new(seed, weathers[(seed % 3) as usize])
    };
    let rounds = ROUNDS / 4 + world.rng.below(ROUNDS / 2);
    let at = world.rng.below(rounds);
    for number in 0..rounds {
        if number == at {
            world.copy();
        }
        round(&mut world)?;
    }
    world.come_to_rest()?;
    world.restore()
}

fn round(world: &mut World) -> Result<(), String> {
    const PAUSES: [u64; 8] = [0, 10, 50, 100, 200, 200, 300, 500];
    let pause = world.rng.pick(&PAUSES).copied().unwrap_or_default();
    world.pass(Duration::from_millis(pause));
    world.check_confirmed()?;
    world.take_writes_again();
    for who in 0..world.agents.len() {
        if world.troubles[who].is_some_and(|until| until <= world.now) {
            world.mend(who)?;
        }
    }
    if world.rng.chance(350) {
        world.act()?;
        world.check_confirmed()?;
    }
    let steps = world.agents.len() * (8 + world.rng.below(24));
    for _ in 0..steps {
        world.any_step()?;
    }
    Ok(())
}
