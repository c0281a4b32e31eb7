//! `buoy-cni install` and `buoy-cni uninstall`: what an init container does to its node.
//!
//! Invariants: a runtime sees a file whole or not at all, and programs before the configuration that names them; doing it
//! twice changes nothing; strangers' files at our places are kept and given back.
//!
//! Not here: questions to Kubernetes. Variables and files say everything.

mod bundled;
mod error;
mod kubeconfig;
mod place;
mod render;
mod settings;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::sys::signal::{SigSet, Signal};

use self::bundled::Bundled;
use self::error::{Doing, Error, Result};
use self::place::Put;
use self::settings::Settings;

/// The names of the plugins that this program is.
const PLUGINS: [&str; 2] = ["calico", "calico-ipam"];

/// Files that may hold a token.
const PRIVATE: u32 = 0o600;
/// Programs.
const PROGRAM: u32 = 0o755;

/// Larger files in the configuration directory are none of ours.
const LARGEST_CONF: u64 = 1 << 20;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Put plugins and network configuration on the node.
    Install,
    /// Take them away, and give back what was there before.
    Uninstall,
}

impl Command {
    /// The command of this name.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        match word {
            "install" => Some(Self::Install),
            "uninstall" => Some(Self::Uninstall),
            _ => None,
        }
    }
}

/// Runs a command with the process's environment.
pub(crate) fn main(command: Command) -> ExitCode {
    let run = || {
        let settings = Settings::read(|name| std::env::var(name).ok())?;
        match command {
            Command::Install => install(&settings)?,
            Command::Uninstall => uninstall(&settings)?,
        }
        if settings.stays {
            stay();
        }
        Ok::<(), Error>(())
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error.to_string().replace('\n', "\n  hint: "));
            ExitCode::FAILURE
        }
    }
}

fn install(settings: &Settings) -> Result<()> {
    // Whatever can be wrong with it is known before anything changes.
    let configuration = configuration(settings)?;
    let kubeconfig = settings.kubeconfig.then(|| kubeconfig::render(settings));
    let kubeconfig = kubeconfig.transpose()?;
    install_programs(settings)?;
    // Each is there before what names it.
    if let Some(text) = kubeconfig {
        let path = settings.net_dir.join(kubeconfig::NAME);
        tell(place::put(&path, PRIVATE, text.as_bytes())?, &path);
    }
    let path = settings.net_dir.join(&settings.conf_name);
    tell(place::put(&path, PRIVATE, configuration.as_bytes())?, &path);
    if let Some(old) = settings
        .old_conf_name
        .as_ref()
        .filter(|old| **old != settings.conf_name)
    {
        let old = settings.net_dir.join(old);
        if place::remove(&old)? {
            say(&format!("removed: {}", old.display()));
        }
    }
    warn_of_earlier(settings);
    Ok(())
}

/// The network configuration as the node will have it.
fn configuration(settings: &Settings) -> Result<String> {
    let template = settings.template()?;
    let text = render::substitute(&template, &mut |name| settings.placeholder(name))?;
    for name in render::left_over(&text) {
        say(&format!(
            "warning: not a placeholder that is known, and left as it is: __{name}__"
        ));
    }
    render::finish(&text, &template, &settings.conf_name)
}

fn install_programs(settings: &Settings) -> Result<()> {
    let own = Path::new("/proc/self/exe");
    let program = fs::read(own).doing("read", own)?;
    for name in PLUGINS {
        let path = settings.bin_dir.join(name);
        let is_wanted = !settings.skipped.iter().any(|skipped| skipped == name);
        if is_wanted && (settings.updates || !path.exists()) {
            tell(place::put(&path, PROGRAM, &program)?, &path);
        }
    }
    let mut bundled = Bundled::read(&settings.bin_dir)?;
    for (name, program) in bundled::sources(&settings.bundled)? {
        if !settings.skipped.contains(&name) && bundled.install(&name, &program)? {
            say(&format!("installed: {}", settings.bin_dir.join(&name).display()));
        }
    }
    Ok(())
}

/// The configuration goes first: without it nobody calls the programs.
fn uninstall(settings: &Settings) -> Result<()> {
    for path in files(&settings.net_dir)?
        .iter()
        .filter_map(|path| place::place_of(path))
    {
        give_back(&path)?;
    }
    for path in files(&settings.net_dir)? {
        let is_small = fs::metadata(&path).is_ok_and(|found| found.len() <= LARGEST_CONF);
        if is_small && place::is_ours(&path).doing("read", &path)? {
            remove(&path)?;
        }
    }
    for name in PLUGINS {
        let path = settings.bin_dir.join(name);
        if !give_back(&path)? && place::is_ours(&path).doing("read", &path)? {
            remove(&path)?;
        }
    }
    for path in Bundled::read(&settings.bin_dir)?.remove()? {
        say(&format!("removed: {}", path.display()));
    }
    for directory in [&settings.net_dir, &settings.bin_dir] {
        for path in files(directory)?.iter().filter(|path| place::is_left_over(path)) {
            remove(path)?;
        }
    }
    Ok(())
}

fn give_back(path: &Path) -> Result<bool> {
    let is_back = place::give_back(path)?;
    if is_back {
        say(&format!("given back: {}", path.display()));
    }
    Ok(is_back)
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).doing("remove", path)?;
    say(&format!("removed: {}", path.display()));
    Ok(())
}

/// Plain files and links of a directory, in order; those of a directory that is not there are none.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let read = || -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                paths.push(entry.path());
            }
        }
        paths.sort();
        Ok(paths)
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.doing("list", directory),
    }
}

/// Runtimes take the first configuration by name, whoever wrote it.
fn warn_of_earlier(settings: &Settings) {
    let is_read = |name: &str| {
        [".conf", ".conflist", ".json"]
            .iter()
            .any(|end| name.ends_with(end))
    };
    let names = files(&settings.net_dir).unwrap_or_default();
    let names = names.iter().filter_map(|path| path.file_name()?.to_str());
    for name in names.filter(|name| is_read(name) && *name < settings.conf_name.as_str()) {
        say(&format!(
            "warning: another network configuration comes first, and is in force: {name}\n  hint: remove it, or set a CNI_CONF_NAME that sorts before it"
        ));
    }
}

fn tell(put: Put, path: &Path) {
    match put {
        Put::Unchanged => say(&format!("unchanged: {}", path.display())),
        Put::Written => say(&format!("installed: {}", path.display())),
        Put::Replaced => say(&format!(
            "installed: {} (what was there is kept as {}{})",
            path.display(),
            path.display(),
            place::KEPT
        )),
    }
}

/// Standard error is what Kubernetes keeps of a container.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "buoy-cni: {text}");
}

/// Waits until somebody ends the container. Its first process gets no signal that it did not ask for.
fn stay() {
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGTERM);
    ends.add(Signal::SIGINT);
    if ends.thread_block().is_ok() {
        say("done; waiting for SIGTERM");
        let _ = ends.wait();
    }
}
