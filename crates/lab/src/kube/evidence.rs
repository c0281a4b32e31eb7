//! What somebody needs who wants to know why something failed.

use super::Cluster;
use crate::exec::tail;
use crate::lab::{how_to_look, shown};
use crate::netns::Netns;
use crate::run::keep_everything;

/// Questions to the API, in the words of kubectl.
const QUESTIONS: [&str; 3] = [
    "get nodes -o wide",
    "get pods,deployments,statefulsets,daemonsets,services -A -o wide",
    "get events -A --sort-by=.lastTimestamp",
];

/// Lines of each log that are shown.
const LINES: usize = 15;

impl Cluster {
    /// State, logs, and how to step in.
    pub fn evidence(&self) -> String {
        let mut text = String::new();
        for question in QUESTIONS {
            text += &shown(
                &format!("kubectl {question}"),
                self.kubectl(&format!("--request-timeout=10s {question}")),
            );
        }
        text += &shown("sessions of the router", self.router.birdc("show protocols"));
        text += &shown(
            "routes of the router",
            self.router.netns().exec("ip route show").map(|f| f.stdout),
        );
        let control = self
            .control
            .components()
            .map(|component| component.log().to_owned());
        let nodes = self.nodes().iter().flat_map(|node| node.logs());
        for log in control.into_iter().chain(nodes) {
            let name = log.strip_prefix(self.run().base()).unwrap_or(&log);
            text += &shown(&format!("end of {}", name.display()), Ok(tail(&log, LINES)));
        }
        let others = [
            self.control.netns(),
            self.router.netns(),
            &self.client,
            &self.switch,
        ];
        let namespaces: Vec<&Netns> = self
            .nodes()
            .iter()
            .map(|node| node.netns())
            .chain(others)
            .collect();
        text += &how_to_look(self.run(), &namespaces);
        if keep_everything() {
            text += &self.how_to_enter();
        }
        text
    }

    /// How a person asks the API, and steps into a whole node.
    fn how_to_enter(&self) -> String {
        let mut text = match self.kubectl_command() {
            Ok(command) => {
                let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
                let words: Vec<String> = words.collect();
                format!(
                    "kubectl: KUBECONFIG={} nsenter {} …\n",
                    self.kubeconfig().display(),
                    words.join(" ")
                )
            }
            Err(error) => format!("kubectl: {error:#}\n"),
        };
        for node in self.nodes() {
            text += &format!("node {}: {}\n", node.name(), node.how_to_enter());
        }
        text
    }
}
