//! Traffic through a floating IP, beside plain forwarding to the same workload.

use std::time::Duration;

use anyhow::{Context, Result};

use super::bed::Bed;
use super::load::{self, Way};
use super::population::Population;
use super::report::{Aim, Report, Row, median};
use super::throughput::Throughput;
use super::{Scale, progress};

/// How the client gets to the workload.
const WAYS: [&str; 3] = ["plain", "own", "floating"];

/// What part of the rate with one floating IP must be left with many. A fall is a trend; this is noise.
const NO_FALL: f64 = 0.95;

/// One way to load the network.
struct Kind<'a> {
    name: String,
    unit: &'static str,
    least: Option<f64>,
    run: Box<dyn Fn(Way) -> Result<f64> + 'a>,
}

/// Measures every kind of load with as many floating IPs as there are.
pub(super) fn measure(
    bed: &Bed,
    population: &Population<'_>,
    scale: &Scale,
    report: &mut Report,
) -> Result<()> {
    let workload = population.front();
    let ways = Way::to([
        population.plain_address()?,
        workload.address(bed.family.any())?,
        population.floating(),
    ]);
    let throughput = Throughput::start(workload)?;
    let mut kinds = kinds(bed, scale.period);
    if let Some(throughput) = &throughput {
        kinds.push(Kind {
            name: format!("tcp-stream{}", bed.family.suffix()),
            unit: "Gbit/s",
            least: Some(0.90),
            run: Box::new(|way| throughput.measure(&bed.client, way.address(), scale.stream)),
        });
    }
    for kind in kinds {
        progress(&format!("  {}", kind.name))?;
        let rounds = rounds(&kind, ways, scale.rounds)?;
        report_kind(&kind, &rounds, population.level(), scale, report);
    }
    Ok(())
}

fn kinds(bed: &Bed, period: Duration) -> Vec<Kind<'_>> {
    let kind = |name: &str, least, load: fn(Way, Duration) -> Result<f64>| Kind {
        name: format!("{name}{}", bed.family.suffix()),
        unit: "1/s",
        least,
        run: Box::new(move |way| bed.client.enter(move || load(way, period))),
    };
    vec![
        kind("connect", Some(0.75), load::connections),
        kind("tcp-rr", Some(0.90), load::tcp_questions),
        kind("udp-rr", Some(0.90), load::udp_questions),
        kind("udp-path", None, load::udp_path),
    ]
}

/// Each way once, again and again. A first round only warms up.
fn rounds(kind: &Kind<'_>, ways: [Way; 3], count: usize) -> Result<Vec<[f64; 3]>> {
    let mut rounds = Vec::new();
    for round in 0..=count {
        let mut rates = [0.0; 3];
        for (rate, way) in rates.iter_mut().zip(ways) {
            *rate = (kind.run)(way).with_context(|| format!("{} to {}", kind.name, way.address()))?;
        }
        if round > 0 {
            rounds.push(rates);
        }
    }
    Ok(rounds)
}

fn report_kind(kind: &Kind<'_>, rounds: &[[f64; 3]], level: usize, scale: &Scale, report: &mut Report) {
    let name = |way: usize, level: usize| format!("{}/{}/{level}", kind.name, WAYS[way]);
    let rates = |way: usize| rounds.iter().map(|round| round[way]).collect::<Vec<_>>();
    // Ratios of neighbours: what slows a whole round slows both.
    let ratio = |way: usize| {
        median(
            &rounds
                .iter()
                .map(|round| round[way] / round[0])
                .collect::<Vec<_>>(),
        )
    };
    let plain = name(0, level);
    report.add(Row::rates(&plain, kind.unit, &rates(0)));
    report.add(Row::rates(name(1, level), kind.unit, &rates(1)).ratio(&plain, ratio(1)));
    let floating = Row::rates(name(2, level), kind.unit, &rates(2)).ratio(&plain, ratio(2));
    report.add(match kind.least {
        Some(least) => floating.aim(Aim::RatioAtLeast(least)),
        None => floating,
    });
    let few = name(2, scale.levels[0]);
    if level == scale.levels[2]
        && let Some(before) = report.find(&few).and_then(Row::found_ratio)
    {
        let left = ratio(2) / before;
        let row = Row::rates(format!("{}/left/{level}", kind.name), "", &[left]);
        report.add(row.ratio(&few, left).aim(Aim::RatioAtLeast(NO_FALL)));
    }
}
