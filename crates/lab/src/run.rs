//! A run: one lab's identity, its directory, and the list of what it made on the machine.
//!
//! Everything that outlives a process (namespaces, processes, mounts, cgroups) is written into the run's journal when it
//! is made. The same removal serves the ordinary end, a panic, an interrupt, and the sweep after a run that was killed.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::made::{Made, Thing};

/// Prefix of every run's directory.
pub(crate) const DIRECTORY_PREFIX: &str = "buoy-lab-";

/// The file in a run's directory that lists what was made.
pub(crate) const JOURNAL: &str = "made";

/// The file in a run's directory that says that somebody wants to look at what is left.
pub(crate) const KEPT: &str = "kept";

/// Unix socket paths hold 107 bytes; a node's take up to 40 below the run's directory.
const LONGEST_BASE: usize = 64;

/// The runs of this process that are not over, for the handler of signals.
static RUNS: LazyLock<Mutex<BTreeMap<String, Weak<Inner>>>> = LazyLock::new(Mutex::default);

/// One lab on this machine. Clones are the same run; it is over, and everything is removed, when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Run {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    id: String,
    base: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    made: Made,
    journal: Option<File>,
    keep_directory: bool,
    over: bool,
}

impl Run {
    /// Begins a run: a fresh identity and an empty directory below `$TMPDIR`. What earlier runs left that were killed is
    /// swept first. Error: not root, or the directory cannot be made.
    pub fn begin() -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "the lab makes network namespaces, which only root can\n  run it as root, for instance with sudo"
        );
        handle_signals()?;
        crate::sweep::sweep_once();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}x{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let base = env::temp_dir().join(format!("{DIRECTORY_PREFIX}{id}"));
        if base.as_os_str().len() > LONGEST_BASE {
            bail!(
                "path too long for unix sockets: {}\n  set TMPDIR to a shorter directory",
                base.display()
            );
        }
        // A namesake is a dead run's: its process id was ours before.
        let _ = fs::remove_dir_all(&base);
        fs::create_dir_all(&base).with_context(|| format!("cannot make {}", base.display()))?;
        let journal = File::create(base.join(JOURNAL)).context("cannot make the run's journal")?;
        let run = Self {
            inner: Arc::new(Inner {
                id: id.clone(),
                base,
                state: Mutex::new(State {
                    journal: Some(journal),
                    ..State::default()
                }),
            }),
        };
        run.made_process(process::id());
        lock(&RUNS).insert(id, Arc::downgrade(&run.inner));
        Ok(run)
    }

    /// Its identity: unique among living runs, and with the process id of its maker.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// Its directory.
    pub fn base(&self) -> &Path {
        &self.inner.base
    }

    /// The name of a network namespace of this run.
    pub fn namespace_name(&self, name: &str) -> String {
        format!("{}{name}", namespace_prefix(&self.inner.id))
    }

    /// Keeps the directory, and with it the logs, when the run is over.
    pub fn keep_directory(&self) {
        lock(&self.inner.state).keep_directory = true;
    }

    /// Whether something failed and a person wants to find everything in place.
    pub(crate) fn stays(&self) -> bool {
        keep_everything() && lock(&self.inner.state).keep_directory
    }

    /// Notes a process to be ended with the run.
    pub(crate) fn made_process(&self, pid: u32) {
        if let Some(thing) = Thing::process(pid) {
            self.note(thing);
        }
    }

    /// Notes a named network namespace to be removed with the run.
    pub(crate) fn made_namespace(&self, name: &str) {
        self.note(Thing::Namespace(name.to_owned()));
    }

    /// Notes a control group whose processes end with the run.
    pub(crate) fn made_cgroup(&self, path: &Path) {
        self.note(Thing::Cgroup(path.to_owned()));
    }

    fn note(&self, thing: Thing) {
        let mut state = lock(&self.inner.state);
        if let Some(journal) = &mut state.journal {
            // The journal serves only a sweep after a kill; the list in memory serves everything else.
            let _ = writeln!(journal, "{thing}");
        }
        state.made.note(thing);
    }
}

/// The prefix of the namespaces of a run.
pub(crate) fn namespace_prefix(run: &str) -> String {
    format!("b{run}-")
}

/// Whether the person wants to find everything in place after a failure (`BUOY_LAB_KEEP=1`).
pub fn keep_everything() -> bool {
    env::var_os("BUOY_LAB_KEEP").is_some_and(|value| !value.is_empty() && value != "0")
}

impl Inner {
    fn end(&self) {
        let mut state = lock(&self.state);
        if std::mem::replace(&mut state.over, true) {
            return;
        }
        state.journal = None;
        let failed = state.keep_directory;
        if failed {
            let _ = File::create(self.base.join(KEPT));
        }
        if failed && keep_everything() {
            return;
        }
        state.made.remove();
        if !failed {
            let _ = fs::remove_dir_all(&self.base);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.end();
        lock(&RUNS).remove(&self.id);
    }
}

/// A panic of one test must not keep another from tidying up.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From the first run on, an interrupt ends every run of this process in order, and then the process.
fn handle_signals() -> Result<()> {
    static HANDLED: Mutex<bool> = Mutex::new(false);
    let mut handled = lock(&HANDLED);
    if *handled {
        return Ok(());
    }
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).context("cannot handle signals")?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            let runs: Vec<_> = lock(&RUNS).values().filter_map(Weak::upgrade).collect();
            for run in runs {
                run.end();
            }
            process::exit(128 + signal);
        }
    })?;
    *handled = true;
    Ok(())
}
