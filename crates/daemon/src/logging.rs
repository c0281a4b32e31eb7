//! What is logged, and how.

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// Libraries that tell every frame they send.
const TALKATIVE: [&str; 7] = ["h2", "hyper", "hyper_util", "kube", "rustls", "tonic", "tower"];

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl LogFormat {
    /// As the setting `log-format` says.
    pub fn of_setting(text: &str) -> Result<Self> {
        <Self as ValueEnum>::from_str(text, true)
            .map_err(|_| anyhow!("log-format: text or json, not {text:?}"))
    }
}

/// Sends log lines to standard error: those that a filter lets pass.
pub fn log_to_stderr(log: &str, format: LogFormat) -> Result<()> {
    let filter = EnvFilter::try_new(directives(log)).with_context(|| format!("log: {log}"))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => subscriber.with_ansi(false).init(),
        LogFormat::Json => subscriber.json().init(),
    }
    Ok(())
}

/// The setting, and what talkative libraries say no more than `info`: where everything is logged in more detail, and to
/// whom the setting does not name them.
fn directives(log: &str) -> String {
    let mut general = log
        .split(',')
        .filter_map(|one| one.trim().parse::<LevelFilter>().ok());
    let is_detailed = general.next_back().is_some_and(|level| level > LevelFilter::INFO);
    if !is_detailed {
        return log.to_owned();
    }
    let quiet = TALKATIVE.map(|library| format!("{library}=info"));
    // The last word on a target counts.
    format!("{},{log}", quiet.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_quiet_where_all_is_told() {
        for log in ["debug", "trace", "buoy_agent=trace,DEBUG"] {
            assert_eq!(
                directives(log),
                format!(
                    "{},{log}",
                    "h2=info,hyper=info,hyper_util=info,kube=info,rustls=info,tonic=info,tower=info"
                )
            );
            assert!(EnvFilter::try_new(directives(log)).is_ok());
        }
        let named = EnvFilter::try_new(directives("debug,h2=trace"))
            .unwrap()
            .to_string();
        assert!(
            named.contains("h2=trace") && !named.contains("h2=info"),
            "{named}"
        );
    }

    #[test]
    fn a_setting_that_is_not_detailed_stands_as_it_is() {
        for log in [
            "info",
            "warn",
            "error",
            "off",
            "warn,buoy_agent=debug",
            "",
            "nonsense=7",
        ] {
            assert_eq!(directives(log), log);
        }
    }
}
