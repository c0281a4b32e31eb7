//! Where facts are read: a namespace, and the control socket of the BIRD in it.

use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result};

use super::facts::{BirdRoute, Kernel, Node, Route, Router};
use super::{bird, kernel};
use crate::cluster::Standing;
use crate::exec::{self, PATIENCE};
use crate::node::Node as LabNode;
use crate::router::Router as LabRouter;

/// A node, or the router.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its name, in the records too.
    pub name: String,
    /// Its namespace.
    pub netns: PathBuf,
    /// Control socket of its BIRD; `None` where it has none.
    pub bird: Option<PathBuf>,
    /// How it stands with it.
    pub standing: Standing,
}

/// `NAME=NETNS[,SOCKET]`
impl FromStr for Place {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, rest) = text
            .split_once('=')
            .with_context(|| format!("not NAME=NETNS[,SOCKET]: {text}"))?;
        let (netns, bird) = match rest.split_once(',') {
            Some((netns, bird)) => (netns, Some(bird.into())),
            None => (rest, None),
        };
        Ok(Self {
            name: name.to_owned(),
            netns: netns.into(),
            bird,
            standing: Standing::Live,
        })
    }
}

impl Place {
    /// A node of a lab. A clean one has no BIRD.
    pub(crate) fn of(node: &LabNode, standing: Standing) -> Self {
        let has_bird = node.routing() == "bird" && standing != Standing::Clean;
        Self {
            name: node.known_as(),
            netns: node.netns().path().to_owned(),
            bird: has_bird.then(|| node.bird_socket()),
            standing,
        }
    }

    /// The router outside.
    pub(crate) fn of_router(router: &LabRouter) -> Self {
        Self {
            name: "router".to_owned(),
            netns: router.netns().path().to_owned(),
            bird: Some(router.socket()),
            standing: Standing::Live,
        }
    }

    /// Reads a node.
    pub(super) fn node(&self) -> Result<Node> {
        let mut found = Kernel {
            routes: self.routes()?,
            ..Kernel::default()
        };
        kernel::addresses(&mut found, &self.run("ip -j address show")?)?;
        kernel::ruleset(&mut found, &self.run("nft -j list ruleset")?)?;
        for family in ["ipv4", "ipv6"] {
            found
                .flows
                .extend(kernel::flows(&self.run(&format!("conntrack -L -f {family}"))?));
        }
        Ok(Node {
            standing: self.standing,
            kernel: found,
            bird: self.bird_routes()?,
        })
    }

    /// Reads the router.
    pub(super) fn router(&self) -> Result<Router> {
        Ok(Router {
            routes: self.routes()?,
            bird: self.bird_routes()?.unwrap_or_default(),
        })
    }

    fn routes(&self) -> Result<Vec<Route>> {
        let mut routes = kernel::routes(&self.run("ip -j -4 route show")?, true)?;
        routes.extend(kernel::routes(&self.run("ip -j -6 route show")?, false)?);
        Ok(routes)
    }

    fn bird_routes(&self) -> Result<Option<Vec<BirdRoute>>> {
        let Some(socket) = &self.bird else {
            return Ok(None);
        };
        let printed = self.run(&format!("birdc -s {} show route", socket.display()))?;
        Ok(Some(bird::routes(&printed)?))
    }

    fn run(&self, line: &str) -> Result<String> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.netns.display())).arg("--");
        command.args(line.split_whitespace());
        let finished = exec::run(&mut command, "", PATIENCE)?.ok();
        Ok(finished.with_context(|| format!("reading {}", self.name))?.stdout)
    }
}
