//! Ending the daemon: in order, so that its routes and its peers' stay; or for good, with all that it made.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use buoy_core::bird::BIRD_METRIC;
use buoy_kernel::netlink::{Protocol, Socket};
use buoy_kernel::{BIRD_PROTOCOL, route};
use tracing::info;

use super::control::{Control, Mute, is_refusal, last};
use super::{Place, process};
use crate::settings::Settings;

/// How long the daemon may take to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the daemon and its supervisor leave in the run directory.
const FILES: [&str; 7] = [
    "bird.conf",
    "bird.conf.new",
    "bird.ctl",
    "bird.pid",
    "bird.out",
    "bird.log",
    "bird.log.1",
];

/// Ends the daemon in order: routes stay in the kernel, and peers keep theirs until it is back. A running agent starts
/// it again at once.
pub fn stop(settings: &Settings) -> Result<()> {
    let place = Place::new(&settings.run_dir);
    let running = process::running(&place);
    match tell(&place, "graceful restart") {
        Err(Mute::Absent) => bail!(
            "BIRD does not run: nobody listens on {}",
            place.control().display()
        ),
        Err(Mute::Silent(why)) => bail!("BIRD does not answer: {why}"),
        Ok(()) => {}
    }
    let begun = Instant::now();
    // Another process may be the daemon already.
    while running.is_some() && process::running(&place) == running {
        if begun.elapsed() > PATIENCE {
            bail!("BIRD was told to end, and runs on");
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Ends the daemon, and removes its routes and files. Nothing, if this agent never had one.
pub(crate) fn remove(place: &Place) -> Result<()> {
    let running = process::running(place);
    if running.is_none() && !place.config().exists() {
        return Ok(());
    }
    if let Err(Mute::Silent(why)) = tell(place, "down") {
        info!("BIRD does not answer, and is killed: {why}");
        running.into_iter().for_each(process::end);
    }
    let begun = Instant::now();
    while let Some(pid) = process::running(place) {
        if begun.elapsed() > PATIENCE {
            info!("BIRD does not end, and is killed: process {pid}");
            process::end(pid);
        }
        if begun.elapsed() > PATIENCE * 2 {
            bail!("BIRD does not end: process {pid}");
        }
        thread::sleep(Duration::from_millis(10));
    }
    remove_routes().context("remove BIRD's routes")?;
    for name in FILES {
        let file = place.file(name);
        match std::fs::remove_file(&file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("remove: {}", file.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// No other BIRD can have routes in the same table: each would remove the other's.
fn remove_routes() -> Result<()> {
    let mut socket = Socket::open(Protocol::Route)?;
    let routes: Vec<route::Route> = route::list_of(&mut socket, BIRD_PROTOCOL)?
        .into_iter()
        .filter(|route| route.table == route::MAIN_TABLE && route.metric == BIRD_METRIC)
        .collect();
    for outcome in route::del_of(&mut socket, BIRD_PROTOCOL, &routes)? {
        outcome?;
    }
    Ok(())
}

fn tell(place: &Place, command: &str) -> Result<(), Mute> {
    let lines = Control::connect(&place.control())?.ask(command)?;
    if is_refusal(&lines) {
        return Err(Mute::Silent(last(&lines)));
    }
    Ok(())
}
