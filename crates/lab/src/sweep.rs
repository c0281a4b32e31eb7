//! Removes what killed runs left behind. Runs whose process lives are never touched.

use std::env;
use std::fs;
use std::path::Path;
use std::sync::Once;

use crate::made::{Made, NETNS_DIRECTORY, Thing, remove_namespace};
use crate::run::{DIRECTORY_PREFIX, JOURNAL, KEPT};

/// What a sweep removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Runs whose directory was removed.
    pub runs: Vec<String>,
    /// Namespaces of runs whose directory was gone already.
    pub namespaces: Vec<String>,
}

/// Which leftovers a sweep takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All but those that a failed test left for a person to look at.
    Forgotten,
    /// Those too.
    All,
    /// Those of this run alone.
    Run(String),
}

/// Sweeps once in the life of this process.
pub(crate) fn sweep_once() {
    static SWEPT: Once = Once::new();
    SWEPT.call_once(|| {
        sweep(&Which::Forgotten);
    });
}

/// Removes what runs left whose process is dead.
pub fn sweep(which: &Which) -> Swept {
    let mut swept = Swept::default();
    for entry in fs::read_dir(env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(run) = name.strip_prefix(DIRECTORY_PREFIX)
            && !matches!(which, Which::Run(wanted) if wanted != run)
            && sweep_run(&entry.path(), which)
        {
            swept.runs.push(run.to_owned());
        }
    }
    for entry in fs::read_dir(NETNS_DIRECTORY).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_orphan(&name) {
            remove_namespace(&name);
            swept.namespaces.push(name);
        }
    }
    swept
}

/// Removes a run's leftovers if its process is dead; says whether it did.
fn sweep_run(directory: &Path, which: &Which) -> bool {
    let journal = fs::read_to_string(directory.join(JOURNAL)).unwrap_or_default();
    let mut made = Made::read(&journal);
    // A journal without its first line belongs to a run that has only just begun.
    let dead = made.maker().is_some_and(|maker| !maker.is_alive());
    if !dead || (*which == Which::Forgotten && directory.join(KEPT).exists()) {
        return false;
    }
    made.remove();
    fs::remove_dir_all(directory).is_ok()
}

/// Whether a namespace is of a run of ours that has neither directory nor process.
fn is_orphan(name: &str) -> bool {
    let Some((run, _)) = name.strip_prefix('b').and_then(|rest| rest.split_once('-')) else {
        return false;
    };
    let Some((pid, count)) = run.split_once('x') else {
        return false;
    };
    let (Ok(pid), Ok(_)) = (pid.parse::<u32>(), count.parse::<u32>()) else {
        return false;
    };
    let directory = env::temp_dir().join(format!("{DIRECTORY_PREFIX}{run}"));
    Thing::process(pid).is_none() && !directory.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_namespaces_of_dead_runs_are_orphans() {
        let me = std::process::id();
        // No process has this id: the kernel's limit is 2^22.
        assert!(is_orphan("b4194305x0-node"));
        for other in [
            format!("b{me}x0-node"),
            "cni-4194305x0-node".to_owned(),
            "bridge-net".to_owned(),
            "b4194305-node".to_owned(),
            "b4194305xy-node".to_owned(),
        ] {
            assert!(!is_orphan(&other), "{other}");
        }
    }
}
