//! The CNI's environment variables.
//!
//! Source: CNI specification, section 2 "Execution Protocol", "Parameters"; which variable each command needs, and the
//! messages, follow the reference library.

use std::ffi::OsString;

use buoy_cni_spec::{CniError, ErrorCode, ident};

/// A command of the CNI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Attach a container.
    Add,
    /// Detach a container.
    Del,
    /// Is a container attached as it should be?
    Check,
    /// Detach all containers but these.
    Gc,
    /// Could ADD be served?
    Status,
    /// Which versions are supported?
    Version,
}

/// The environment of one call; a variable that the command does not need may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CniEnv {
    /// `CNI_COMMAND`.
    pub(crate) command: Command,
    /// `CNI_CONTAINERID`.
    pub(crate) container_id: String,
    /// `CNI_NETNS`.
    pub(crate) netns: String,
    /// `CNI_IFNAME`.
    pub(crate) ifname: String,
    /// `CNI_ARGS`.
    pub(crate) args: String,
    /// `CNI_PATH`.
    pub(crate) path: String,
}

impl Command {
    /// The command as `CNI_COMMAND` says it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// Whether the command is about one container.
    pub(crate) const fn has_container(self) -> bool {
        matches!(self, Self::Add | Self::Del | Self::Check)
    }

    const fn needs_netns(self) -> bool {
        matches!(self, Self::Add | Self::Check)
    }

    fn parse(text: &str) -> Result<Self, CniError> {
        let all = [
            Self::Add,
            Self::Del,
            Self::Check,
            Self::Gc,
            Self::Status,
            Self::Version,
        ];
        all.into_iter()
            .find(|command| command.as_str() == text)
            .ok_or_else(|| {
                CniError::new(
                    ErrorCode::INVALID_ENVIRONMENT,
                    format!("unknown CNI_COMMAND: {text}"),
                )
                .with_hint("known commands: ADD, DEL, CHECK, GC, STATUS, VERSION")
            })
    }
}

impl CniEnv {
    /// Reads the variables; `None` without `CNI_COMMAND`, when it is not a runtime that calls. Error: code 4.
    pub(crate) fn read(get: impl Fn(&str) -> Option<OsString>) -> Result<Option<Self>, CniError> {
        let text = |key: &str| {
            get(key).unwrap_or_default().into_string().map_err(|_| {
                CniError::new(
                    ErrorCode::INVALID_ENVIRONMENT,
                    format!("environment variable is not UTF-8: {key}"),
                )
            })
        };
        let command = text("CNI_COMMAND")?;
        if command.is_empty() {
            return Ok(None);
        }
        let env = Self {
            command: Command::parse(&command)?,
            container_id: text("CNI_CONTAINERID")?,
            netns: text("CNI_NETNS")?,
            ifname: text("CNI_IFNAME")?,
            args: text("CNI_ARGS")?,
            path: text("CNI_PATH")?,
        };
        env.check_present()?;
        Ok(Some(env))
    }

    /// Checks the names that the runtime gave. Error: code 4.
    pub(crate) fn check_names(&self) -> Result<(), CniError> {
        if !self.command.has_container() {
            return Ok(());
        }
        ident::check_container_id(&self.container_id)?;
        ident::check_ifname(&self.ifname)
    }

    fn check_present(&self) -> Result<(), CniError> {
        let needed = [
            (
                "CNI_CONTAINERID",
                &self.container_id,
                self.command.has_container(),
            ),
            ("CNI_NETNS", &self.netns, self.command.needs_netns()),
            ("CNI_IFNAME", &self.ifname, self.command.has_container()),
            ("CNI_PATH", &self.path, self.command != Command::Version),
        ];
        let missing: Vec<_> = needed
            .iter()
            .filter(|(_, value, needed)| *needed && value.is_empty())
            .map(|(key, ..)| *key)
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let msg = format!("required env variables [{}] missing", missing.join(","));
        Err(
            CniError::new(ErrorCode::INVALID_ENVIRONMENT, msg).with_hint(format!(
                "{} needs them; they are set by the container runtime",
                self.command.as_str()
            )),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<CniEnv>, CniError> {
        CniEnv::read(|key| {
            variables
                .iter()
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value.into())
        })
    }

    #[test]
    fn each_command_needs_its_variables() {
        let missing = |command| match read(&[("CNI_COMMAND", command)]) {
            Ok(_) => String::new(),
            Err(error) => {
                assert_eq!(error.code, ErrorCode::INVALID_ENVIRONMENT);
                error.msg
            }
        };
        let all = "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing";
        assert_eq!((missing("ADD").as_str(), missing("CHECK").as_str()), (all, all));
        assert_eq!(
            missing("DEL"),
            "required env variables [CNI_CONTAINERID,CNI_IFNAME,CNI_PATH] missing"
        );
        assert_eq!(missing("GC"), "required env variables [CNI_PATH] missing");
        assert_eq!(missing("STATUS"), "required env variables [CNI_PATH] missing");
        assert_eq!(missing("VERSION"), "");
        assert_eq!(missing("add"), "unknown CNI_COMMAND: add");
    }

    #[test]
    fn no_command_is_no_call() {
        assert_eq!(read(&[("CNI_PATH", "/opt/cni/bin")]), Ok(None));
    }

    #[test]
    fn names_are_checked_where_there_is_a_container() {
        let env = |command, id, ifname| {
            let variables = [
                ("CNI_COMMAND", command),
                ("CNI_CONTAINERID", id),
                ("CNI_IFNAME", ifname),
                ("CNI_PATH", "/p"),
            ];
            read(&variables).unwrap().unwrap()
        };
        assert_eq!(env("DEL", "c1", "eth0").check_names(), Ok(()));
        assert_eq!(
            env("DEL", "../c1", "eth0").check_names().unwrap_err().msg,
            "invalid characters in containerID"
        );
        assert!(
            env("DEL", "c1", "a:b")
                .check_names()
                .unwrap_err()
                .msg
                .starts_with("interface name contains")
        );
        assert_eq!(env("GC", "../c1", "a:b").check_names(), Ok(()));
    }
}
