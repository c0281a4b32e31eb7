//! The thread that has the daemon.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use prometheus_client::metrics::counter::Counter;
use tracing::{info, warn};

use super::control::{Control, Mute, is_refusal, last};
use super::report::{Condition, Report, ask};
use super::{Loaded, Place, process};
use crate::inputs::Input;

/// How often the daemon is looked at, when it is well and when it is not.
const LOOK: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(100));
/// First and longest pause before a daemon that ended is started again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// Starts within this time are counted.
const LATELY: Duration = Duration::from_secs(60);
/// So many of them are worth a word.
const OFTEN: usize = 3;
/// How long a daemon without a control socket may take to end.
const ENDING: Duration = Duration::from_secs(5);

/// A configuration to load.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) text: String,
    pub(super) reply: Sender<Result<(), String>>,
}

/// The daemon, and how it went so far.
#[derive(Debug)]
pub(super) struct Supervisor {
    place: Place,
    loaded: Loaded,
    begun: Counter,
    inputs: Sender<Input>,
    told: Option<Report>,
    answers: bool,
    /// The daemon may not have read the file as it is now.
    owed: bool,
    starts: VecDeque<Instant>,
    not_before: Instant,
    deaf_since: Option<Instant>,
    trouble: Option<String>,
}

impl Supervisor {
    pub(super) fn new(place: Place, loaded: Loaded, begun: Counter, inputs: Sender<Input>) -> Self {
        Self {
            place,
            loaded,
            begun,
            inputs,
            told: None,
            answers: false,
            // An agent may have ended between writing the file and telling of it.
            owed: true,
            starts: VecDeque::new(),
            not_before: Instant::now(),
            deaf_since: None,
            trouble: None,
        }
    }

    /// Works for as long as anybody may have orders.
    pub(super) fn work(mut self, orders: &Receiver<Order>) {
        loop {
            if !self.look() {
                return;
            }
            let well = self
                .told
                .as_ref()
                .is_some_and(|report| report.condition == Condition::Ready);
            match orders.recv_timeout(if well { LOOK.0 } else { LOOK.1 }) {
                Ok(order) => {
                    let result = self.load(&order.text);
                    order.reply.send(result).ok();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Looks how the daemon is, does what that calls for, and tells what is new. False when nobody listens any more.
    fn look(&mut self) -> bool {
        let asked = Control::connect(&self.place.control()).and_then(|mut control| ask(&mut control));
        self.answers = asked.is_ok();
        let report = match asked {
            Ok(report) => {
                self.deaf_since = None;
                self.answered(report)
            }
            Err(Mute::Absent) => Report::away(self.revive()),
            Err(Mute::Silent(why)) => {
                Report::away(format!("BIRD does not answer on its control socket: {why}"))
            }
        };
        if self.told.as_ref() == Some(&report) {
            return true;
        }
        self.told = Some(report.clone());
        self.inputs.send(Input::Bird(report)).is_ok()
    }

    fn answered(&mut self, report: Report) -> Report {
        if matches!(report.condition, Condition::Away(_)) {
            return report;
        }
        let outlived = self.starts.back().is_none_or(|start| start.elapsed() > PAUSE.1);
        if outlived {
            self.trouble = None;
        }
        if self.owed {
            match self.configure() {
                Ok(()) => self.owed = false,
                Err(why) => return Report::away(why),
            }
        }
        report
    }

    /// Nobody listens on the socket: starts the daemon, unless it is too early. Says why there is none.
    fn revive(&mut self) -> String {
        if !self.place.config().exists() {
            // Whether there is a program at all is known before there is anything to load.
            let now = Instant::now();
            if now >= self.not_before {
                self.not_before = now + PAUSE.1;
                self.trouble = process::check_version(&self.place).err();
            }
            let why = self.trouble.clone();
            return why.unwrap_or_else(|| "BIRD has no configuration yet".to_owned());
        }
        if let Some(pid) = process::running(&self.place) {
            let since = *self.deaf_since.get_or_insert_with(Instant::now);
            if since.elapsed() < ENDING {
                return "BIRD has no control socket: it is ending, or beginning".to_owned();
            }
            warn!("BIRD runs without a control socket, and is ended: process {pid}");
            process::end(pid);
        }
        self.deaf_since = None;
        let now = Instant::now();
        if now >= self.not_before {
            self.begin(now);
        }
        self.why_away(now)
    }

    fn begin(&mut self, now: Instant) {
        while self.starts.front().is_some_and(|start| start.elapsed() > LATELY) {
            self.starts.pop_front();
        }
        let times = u32::try_from(self.starts.len()).unwrap_or(u32::MAX);
        let pause = PAUSE.0.saturating_mul(1 << times.min(16)).min(PAUSE.1);
        self.not_before = now + pause;
        self.starts.push_back(now);
        let begun = process::check_version(&self.place).and_then(|()| process::start(&self.place));
        self.trouble = begun.err();
        match &self.trouble {
            // The daemon reads the file as it is now.
            None => {
                info!("BIRD is started");
                self.begun.inc();
                self.owed = false;
            }
            Some(why) => warn!("{why}"),
        }
    }

    fn why_away(&self, now: Instant) -> String {
        let lately = self
            .starts
            .iter()
            .filter(|start| start.elapsed() < LATELY)
            .count();
        let mut why = self
            .trouble
            .clone()
            .unwrap_or_else(|| "BIRD is starting".to_owned());
        if lately >= OFTEN {
            let left = self.not_before.saturating_duration_since(now);
            why = format!(
                "{why}\nit was started {lately} times within a minute; the next time in {} s\nlook into {}",
                left.as_secs() + 1,
                self.place.file("bird.log").display()
            );
        }
        why
    }

    /// Loads a configuration. Error: what the daemon has against it; then the old one stays.
    fn load(&mut self, text: &str) -> Result<(), String> {
        let (config, new) = (self.place.config(), self.place.file("bird.conf.new"));
        process::check_version(&self.place)?;
        process::write(&new, text)?;
        if let Err(why) = process::check_config(&self.place, &new) {
            std::fs::remove_file(&new).ok();
            return Err(why);
        }
        rename(&new, &config)?;
        self.owed = true;
        // A daemon that does not answer is told as soon as it does.
        if self.answers
            && let Err(why) = self.configure()
        {
            self.put_back(&new, &config);
            return Err(why);
        }
        self.owed = !self.answers;
        if !self.answers {
            self.not_before = self.not_before.min(Instant::now() + PAUSE.0);
        }
        *self.loaded.locked() = Some(text.to_owned());
        Ok(())
    }

    /// The file says what the daemon has.
    fn put_back(&mut self, new: &Path, config: &Path) {
        let old = self.loaded.locked().clone();
        let Some(old) = old else { return };
        if let Err(why) = process::write(new, &old).and_then(|()| rename(new, config)) {
            warn!("{why}");
        }
        self.owed = false;
    }

    fn configure(&self) -> Result<(), String> {
        let refused = |why: String| format!("BIRD does not take the configuration: {why}");
        let mut control = Control::connect(&self.place.control()).map_err(|mute| refused(why(mute)))?;
        let lines = control.ask("configure").map_err(|mute| refused(why(mute)))?;
        if is_refusal(&lines) {
            return Err(refused(last(&lines)));
        }
        Ok(())
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), String> {
    std::fs::rename(from, to).map_err(|e| format!("write: {}: {e}", to.display()))
}

fn why(mute: Mute) -> String {
    match mute {
        Mute::Absent => "it ended".to_owned(),
        Mute::Silent(why) => why,
    }
}
