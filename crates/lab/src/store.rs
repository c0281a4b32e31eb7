//! The datastore of a lab: a file, or an etcd of three members on the lab's network.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use buoy_datastore::Datastore;

use crate::etcd::Etcd;
use crate::netns::Netns;
use crate::run::Run;

/// Which datastore a lab has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A file that all agents of the machine share.
    #[default]
    Sqlite,
    /// Three members, each in its namespace, reached over the lab's network.
    Etcd,
}

impl Kind {
    /// The one that a variable of the environment names; the default, if it names none. Error: there is no such.
    pub fn of_environment(variable: &str) -> Result<Self> {
        match std::env::var(variable) {
            Ok(name) if !name.is_empty() => name.parse().with_context(|| variable.to_owned()),
            _ => Ok(Self::default()),
        }
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "sqlite" => Ok(Self::Sqlite),
            "etcd" => Ok(Self::Etcd),
            _ => bail!("no such datastore: {name}\n  use sqlite or etcd"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "sqlite",
            Self::Etcd => "etcd",
        })
    }
}

/// Makes a test of each function for each datastore; the functions take a [`Kind`].
#[macro_export]
macro_rules! on_each_store {
    ($($test:ident),+ $(,)?) => {
        mod sqlite {
            $(
                #[test]
                fn $test() {
                    super::$test($crate::store::Kind::Sqlite);
                }
            )+
        }
        mod etcd {
            $(
                #[test]
                fn $test() {
                    super::$test($crate::store::Kind::Etcd);
                }
            )+
        }
    };
}

/// A datastore. Clones are the same one.
#[derive(Clone, Debug)]
pub enum Store {
    /// The embedded store in this file.
    File(PathBuf),
    /// An etcd.
    Etcd(Arc<Etcd>),
    /// Somebody else's, by its URL.
    Elsewhere(String),
}

impl Store {
    /// Makes it: the file's directory, or the members' namespaces, which are then [plugged in](Self::hosts) and
    /// [started](Self::start).
    pub fn make(run: &Run, kind: Kind) -> Result<Self> {
        Ok(match kind {
            Kind::Sqlite => {
                let directory = run.base().join("store");
                fs::create_dir_all(&directory)?;
                Self::File(directory.join("buoy.db"))
            }
            Kind::Etcd => Self::Etcd(Arc::new(Etcd::make(run)?)),
        })
    }

    /// What must be connected to the nodes' segment, and by which addresses.
    pub fn hosts(&self) -> Vec<(&Netns, [&str; 2])> {
        match self {
            Self::Etcd(etcd) => etcd.hosts(),
            Self::File(_) | Self::Elsewhere(_) => Vec::new(),
        }
    }

    /// Starts what has to run, on a network that stands. `switch` is where the hosts are plugged in, the first of them
    /// into port number `first`.
    pub fn start(&self, switch: &Netns, first: usize) -> Result<()> {
        match self {
            Self::Etcd(etcd) => etcd.begin(switch, first),
            Self::File(_) | Self::Elsewhere(_) => Ok(()),
        }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        match self {
            Self::File(file) => format!("sqlite://{}", file.display()),
            Self::Etcd(etcd) => etcd.url(),
            Self::Elsewhere(url) => url.clone(),
        }
    }

    /// The embedded store's file. Error: it is no file.
    pub fn file(&self) -> Result<&Path> {
        match self {
            Self::File(file) => Ok(file),
            _ => Err(anyhow!("this lab's store is no file")),
        }
    }

    /// The etcd. Error: it is none.
    pub fn etcd(&self) -> Result<&Etcd> {
        match self {
            Self::Etcd(etcd) => Ok(etcd),
            _ => Err(anyhow!("this lab's store is no etcd")),
        }
    }

    /// A client of it that needs no agent.
    pub fn open(&self) -> Result<Arc<dyn Datastore>> {
        let url = self.url();
        match self {
            Self::File(_) | Self::Elsewhere(_) => Ok(buoy_datastore::open(&url)?),
            // Its threads stay in the namespace of the one that makes them.
            Self::Etcd(etcd) => etcd.desk().enter(move || Ok(buoy_datastore::open(&url)?)),
        }
    }

    /// Takes the store away, for who begins to use it as for who uses it.
    pub fn go_away(&self) -> Result<()> {
        match self {
            Self::File(file) => {
                let directory = directory(file)?;
                fs::rename(directory, aside(directory))?;
                fs::write(directory, "not a directory").context("cannot put a file in the store's place")
            }
            Self::Etcd(etcd) => {
                etcd.members().iter().for_each(crate::etcd::Member::kill);
                Ok(())
            }
            Self::Elsewhere(url) => bail!("not this lab's to take away: {url}"),
        }
    }

    /// Brings it back as it was.
    pub fn come_back(&self) -> Result<()> {
        match self {
            Self::File(file) => {
                let directory = directory(file)?;
                fs::remove_file(directory)?;
                fs::rename(aside(directory), directory).context("cannot put the store back")
            }
            Self::Etcd(etcd) => etcd.start_all(),
            Self::Elsewhere(url) => bail!("not this lab's to bring back: {url}"),
        }
    }
}

fn directory(file: &Path) -> Result<&Path> {
    file.parent().context("a directory")
}

fn aside(directory: &Path) -> PathBuf {
    directory.with_extension("away")
}
