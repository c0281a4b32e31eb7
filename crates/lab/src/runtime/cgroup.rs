//! A control group of the run in every hierarchy of the machine, version 1, 2 or both.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::run::Run;

/// Where hierarchies are mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// Makes the groups of a machine of the run. Returns a line for each hierarchy: its name below the root, file system type, mount options, group.
pub(super) fn make(run: &Run, name: &str) -> Result<String> {
    let membership = fs::read_to_string("/proc/self/cgroup").context("cannot read our control groups")?;
    let mut lines = String::new();
    for hierarchy in membership
        .lines()
        .filter_map(|line| Hierarchy::parse(line, Path::new(ROOT)))
    {
        let group = hierarchy.parent().join(format!("buoy-lab-{}-{name}", run.id()));
        run.made_cgroup(&group);
        fs::create_dir_all(&group).with_context(|| format!("cannot make {}", group.display()))?;
        if hierarchy.is_alone() {
            hand_on_controllers(hierarchy.parent());
            fs::create_dir_all(group.join("init"))?;
        }
        if hierarchy.name == "cpuset" {
            // A new group of this hierarchy takes no process before it has these.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                fs::write(group.join(file), fs::read(hierarchy.own.join(file))?)?;
            }
        }
        lines += &format!(
            "{} {} {} {}\n",
            hierarchy.name,
            hierarchy.kind,
            hierarchy.options,
            group.display()
        );
    }
    Ok(lines)
}

/// Lets the groups below have the controllers that a kubelet asks for, where they are there to be had: they may not be.
fn hand_on_controllers(group: &Path) {
    for controller in ["cpuset", "cpu", "io", "memory", "pids"] {
        let _ = fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// A hierarchy as `/proc/self/cgroup` shows it.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    name: String,
    kind: &'static str,
    options: String,
    /// The group that this process is in.
    own: PathBuf,
    /// Where it is mounted.
    root: PathBuf,
}

impl Hierarchy {
    /// Whether it is the only one: version 2.
    fn is_alone(&self) -> bool {
        self.name == "."
    }

    /// The group below which new ones are made. Version 2 hands nothing on from a group that has processes, as our own does;
    /// only the root may.
    fn parent(&self) -> &Path {
        if self.is_alone() { &self.root } else { &self.own }
    }

    /// Reads `number:controllers:path` (cgroups(7)).
    fn parse(line: &str, root: &Path) -> Option<Self> {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
        let (name, kind, options) = match (controllers, controllers.strip_prefix("name=")) {
            ("", _) if root.join("unified").is_dir() => ("unified", "cgroup2", "rw".to_owned()),
            ("", _) => (".", "cgroup2", "rw".to_owned()),
            (named, Some(name)) => (name, "cgroup", format!("none,{named}")),
            (controllers, None) => (controllers, "cgroup", controllers.to_owned()),
        };
        Some(Self {
            name: name.to_owned(),
            kind,
            options,
            own: root.join(name).join(path),
            root: root.join(name),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str, root: &Path) -> (String, &'static str, String, PathBuf) {
        let hierarchy = Hierarchy::parse(line, root).unwrap();
        (hierarchy.name, hierarchy.kind, hierarchy.options, hierarchy.own)
    }

    #[test]
    fn every_kind_of_hierarchy_is_understood() {
        let root = Path::new("/no/such/directory");
        assert_eq!(
            parsed("3:cpu,cpuacct:/a/b", root),
            (
                "cpu,cpuacct".into(),
                "cgroup",
                "cpu,cpuacct".into(),
                root.join("cpu,cpuacct/a/b")
            )
        );
        assert_eq!(
            parsed("9:name=systemd:/", root),
            (
                "systemd".into(),
                "cgroup",
                "none,name=systemd".into(),
                root.join("systemd/")
            )
        );
        assert_eq!(
            parsed("0::/user.slice", root),
            (".".into(), "cgroup2", "rw".into(), root.join("./user.slice"))
        );
        assert_eq!(Hierarchy::parse("nonsense", root), None);
    }
}
