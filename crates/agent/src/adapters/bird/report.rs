//! How the daemon is, read from what it says.

use super::control::{Control, Line, Mute};

/// The one line of `show status` that means that nothing new is announced yet.
const RECOVERING: &str = "Graceful restart recovery in progress";

/// Whether the daemon does its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Yes.
    Ready,
    /// It was restarted, and waits for its peers before it announces anything new.
    Recovering,
    /// No, for this reason.
    Away(String),
}

/// How the daemon is, and its sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) condition: Condition,
    /// What it says of its version.
    pub(crate) version: Option<String>,
    /// In its own order.
    pub(crate) sessions: Vec<Session>,
}

/// A BGP session as the daemon shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Session {
    /// Its name in the configuration.
    pub(crate) symbol: String,
    pub(crate) neighbor: String,
    pub(crate) state: String,
    pub(crate) since: String,
    /// State of BGP, and what went wrong last.
    pub(crate) info: String,
    /// Updates that our filter took no routes from, since the session began.
    pub(crate) filtered: u64,
}

impl Session {
    /// Whether routes are exchanged over it.
    pub(crate) fn is_established(&self) -> bool {
        self.info.starts_with("Established")
    }
}

impl Report {
    /// No daemon that answers.
    pub(super) fn away(why: impl Into<String>) -> Self {
        Self {
            condition: Condition::Away(why.into()),
            version: None,
            sessions: Vec::new(),
        }
    }
}

/// Asks the daemon how it is.
pub(super) fn ask(control: &mut Control) -> Result<Report, Mute> {
    let version = version_of(&control.greeting);
    if !version.as_deref().is_some_and(is_supported) {
        let it = version.clone().unwrap_or_else(|| control.greeting.clone());
        return Ok(Report {
            version,
            ..Report::away(unsupported(&it))
        });
    }
    let status = control.ask("show status")?;
    let condition = if status.iter().any(|line| line.text.contains(RECOVERING)) {
        Condition::Recovering
    } else {
        Condition::Ready
    };
    let sessions = sessions(&control.ask("show protocols all")?);
    Ok(Report {
        condition,
        version,
        sessions,
    })
}

/// The version in a line such as `BIRD 2.0.12 ready.` or `BIRD version 2.0.12`.
pub(super) fn version_of(line: &str) -> Option<String> {
    let after = line.split_once("BIRD")?.1;
    let mut words = after.split_whitespace().filter(|word| *word != "version");
    let version = words.next()?.trim_start_matches('v').trim_end_matches('.');
    version
        .starts_with(|c: char| c.is_ascii_digit())
        .then(|| version.to_owned())
}

/// Whether this agent can drive that version.
pub(super) fn is_supported(version: &str) -> bool {
    version.split('.').next() == Some("2")
}

/// What is wrong with a version.
pub(super) fn unsupported(version: &str) -> String {
    format!("BIRD is of another major version: {version}\ninstall BIRD 2, or set routing: kernel")
}

/// BGP sessions in an answer to `show protocols all`.
fn sessions(lines: &[Line]) -> Vec<Session> {
    let mut sessions: Vec<Session> = Vec::new();
    let mut within = false;
    for line in lines {
        if line.code == 1002 {
            let session = session(&line.text);
            within = session.is_some();
            sessions.extend(session);
        } else if within && let Some(session) = sessions.last_mut() {
            detail(session, &line.text);
        }
    }
    sessions
}

fn detail(session: &mut Session, line: &str) {
    match line
        .split_once(':')
        .map(|(key, value)| (key.trim(), value.trim()))
    {
        Some(("Neighbor address", address)) => address.clone_into(&mut session.neighbor),
        Some(("Import limit", limit)) if limit.ends_with("[HIT]") => {
            session.info.push_str(": announces more than is taken");
        }
        Some(("Import updates", counts)) => session.filtered = filtered(counts).unwrap_or_default(),
        _ => {}
    }
}

/// Of `received rejected filtered ignored accepted`; what is not counted is `---`.
fn filtered(counts: &str) -> Option<u64> {
    counts.split_whitespace().nth(2)?.parse().ok()
}

/// `name BGP table state since info…`
fn session(line: &str) -> Option<Session> {
    let mut words = line.split_whitespace();
    let (symbol, kind) = (words.next()?, words.next()?);
    let (_table, state, since) = (words.next()?, words.next()?, words.next()?);
    (kind == "BGP").then(|| Session {
        symbol: symbol.to_owned(),
        state: state.to_owned(),
        since: since.to_owned(),
        info: words.collect::<Vec<_>>().join(" "),
        ..Session::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(code: u16, text: &str) -> Line {
        Line {
            code,
            text: text.to_owned(),
        }
    }

    #[test]
    fn sessions_are_read_from_what_the_daemon_shows() {
        let shown = [
            line(2002, "Name       Proto      Table      State  Since         Info"),
            line(
                1002,
                "buoy_device Device    ---        up     2026-11-26T21:00:00  ",
            ),
            line(
                1002,
                "mesh4_n2   BGP        ---        up     2026-11-26T21:00:01  Established   ",
            ),
            line(1006, "  BGP state:          Established"),
            line(1006, "    Neighbor address: 10.0.0.2"),
            line(
                1006,
                "    Route change stats:     received   rejected   filtered    ignored   accepted",
            ),
            line(
                1006,
                "      Import updates:              9          1          5          0          3",
            ),
            line(
                1006,
                "      Import withdraws:            2          0        ---          2          0",
            ),
            line(
                1002,
                "peer_r     BGP        ---        start  2026-11-26T21:00:02  Idle          BGP Error: Bad peer AS",
            ),
            line(1006, "    Neighbor address: fd00::9"),
            line(1006, "    Import limit:   10000 [HIT]"),
            line(
                1006,
                "      Import updates:              0          0        ---          0          0",
            ),
            line(0, ""),
        ];
        let read = sessions(&shown);
        assert_eq!(read.len(), 2);
        assert_eq!(
            (read[0].symbol.as_str(), read[0].neighbor.as_str()),
            ("mesh4_n2", "10.0.0.2")
        );
        assert_eq!(
            (read[0].state.as_str(), read[0].info.as_str()),
            ("up", "Established")
        );
        assert_eq!(
            (read[1].neighbor.as_str(), read[1].info.as_str()),
            (
                "fd00::9",
                "Idle BGP Error: Bad peer AS: announces more than is taken"
            )
        );
        assert_eq!(read[1].since, "2026-11-26T21:00:02");
        assert_eq!((read[0].filtered, read[1].filtered), (5, 0));
    }

    #[test]
    fn garbage_is_no_session() {
        for text in ["", "a", "a BGP", "a BGP t", "BGP BGP BGP BGP", "\u{0} \u{fffd}"] {
            assert_eq!(
                sessions(&[line(1002, text), line(1006, "Neighbor address: x")]),
                []
            );
        }
        assert_eq!(sessions(&[line(1006, "  Neighbor address: 10.0.0.2")]), []);
    }

    #[test]
    fn versions_are_told_apart() {
        assert_eq!(version_of("BIRD 2.0.12 ready.").as_deref(), Some("2.0.12"));
        assert_eq!(version_of("BIRD version 3.0.1").as_deref(), Some("3.0.1"));
        assert_eq!(version_of("BIRD v2.13.1 ready.").as_deref(), Some("2.13.1"));
        assert_eq!(version_of("hello"), None);
        assert_eq!(version_of("BIRD"), None);
        assert!(is_supported("2.0.12") && !is_supported("3.0.1") && !is_supported("20.1"));
    }
}
