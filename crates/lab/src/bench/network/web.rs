//! A workload that answers with one octet.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};

use super::super::bed::spec;
use super::super::load::Server;
use super::FAMILY;
use crate::node::Node;
use crate::workload::Workload;

/// A workload on a node, attached and serving.
#[derive(Debug)]
pub(super) struct Web {
    /// What it answers.
    pub(super) octet: u8,
    /// Where it runs.
    pub(super) node: Node,
    _server: Server,
    workload: Workload,
}

impl Web {
    /// Attaches one that asks for these addresses, under a name that nobody had before: a move that was asked for once
    /// must not find it again.
    pub(super) fn start(node: &Node, octet: u8, floating: &[IpAddr]) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("web-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let floating: Vec<String> = floating.iter().map(IpAddr::to_string).collect();
        let floating: Vec<&str> = floating.iter().map(String::as_str).collect();
        let mut workload = Workload::prepare(node, spec(FAMILY, &name).floating(&floating))?;
        workload.add()?.ok().with_context(|| format!("ADD of {name}"))?;
        Ok(Self {
            octet,
            node: node.clone(),
            _server: Server::start(workload.netns(), FAMILY, octet)?,
            workload,
        })
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        self.workload.name()
    }

    /// Detaches it while it still serves; returns when that was begun.
    pub(super) fn detach(&self) -> Result<Instant> {
        let begun = Instant::now();
        self.workload.del()?.ok().context("DEL of the owner")?;
        Ok(begun)
    }
}
