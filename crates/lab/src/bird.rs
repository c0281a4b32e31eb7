//! Asking a BIRD that runs somewhere in the lab.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::exec::{self, PATIENCE};
use crate::netns::Netns;

/// Asks the BIRD behind a control socket; `line` is split at white space. Returns what `birdc` printed, without its
/// greeting. Error: BIRD does not answer, or does not understand.
pub(crate) fn ask(netns: &Netns, socket: &Path, line: &str) -> Result<String> {
    let mut command = netns.command("birdc");
    command.arg("-s").arg(socket).args(line.split_whitespace());
    let printed = exec::run(&mut command, "", PATIENCE)?
        .ok()
        .with_context(|| format!("BIRD does not answer: {line}"))?
        .stdout;
    // birdc ends with success whatever BIRD says.
    ensure!(
        !printed.contains("syntax error"),
        "BIRD does not understand: {line}\n  {printed}"
    );
    Ok(printed
        .split_once(" ready.\n")
        .map_or(printed.as_str(), |(_, rest)| rest)
        .to_owned())
}

/// The names of protocols in a table of `show protocols` whose session stands.
pub fn established(table: &str) -> Vec<String> {
    table
        .lines()
        .filter(|line| {
            line.trim_end().ends_with("Established") && line.split_whitespace().nth(1) == Some("BGP")
        })
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sessions_that_stand_are_counted() {
        let table = "\
Name       Proto      Table      State  Since         Info
device1    Device     ---        up     21:30:01.010
n1_v4      BGP        ---        up     21:30:04.120  Established   
n2_v4      BGP        ---        start  21:30:01.010  Connect       Socket: No route to host
n3_v4      BGP        ---        start  21:30:01.010  Active        Received: Administrative shutdown
";
        assert_eq!(established(table), ["n1_v4"]);
    }
}
