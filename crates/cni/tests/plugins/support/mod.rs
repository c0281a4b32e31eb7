//! What the tests of the plugins share: a directory with the plugins under their names, a fake agent, namespaces.

pub(crate) mod agent;
pub(crate) mod netns;

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A directory with the plugins, a place for the agent's socket, a spool and IPAM plugins.
pub(crate) struct Site {
    dir: TempDir,
}

/// What a call printed and how it ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

/// One call of a plugin.
pub(crate) struct Call<'a> {
    site: &'a Site,
    plugin: &'a str,
    env: Vec<(String, String)>,
    stdin: Vec<u8>,
    inside: Option<PathBuf>,
}

impl Site {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["calico", "calico-ipam", "buoy-cni"] {
            symlink(env!("CARGO_BIN_EXE_buoy-cni"), dir.path().join(name)).unwrap();
        }
        fs::create_dir(dir.path().join("bin")).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("agent.sock")
    }

    /// Checks that an error's message names the agent's socket.
    pub(crate) fn is_named_by(&self, error: &Value) {
        let msg = error["msg"].as_str().unwrap();
        assert!(msg.contains(self.socket().to_str().unwrap()), "{error}");
    }

    pub(crate) fn spool(&self) -> PathBuf {
        self.path("spool")
    }

    /// The names of the files in the spool.
    pub(crate) fn spooled(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.spool()) else {
            return Vec::new();
        };
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    /// Installs a shell script as a plugin in `CNI_PATH`.
    ///
    /// Another process writes it: what this one has open for writing, a child that another test forks holds open for a
    /// moment too, and the kernel runs no program that is being written.
    pub(crate) fn install(&self, name: &str, script: &str) {
        let mut child = Command::new("sh")
            .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
            .arg(self.path("bin").join(name))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let text = format!("#!/bin/sh\n{script}\n");
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// A configuration whose keys are those of `extra` beside what every configuration needs.
    pub(crate) fn config(&self, version: &str, extra: Value) -> Value {
        let mut config = json!({
            "cniVersion": version, "name": "pods", "type": "calico", "ipam": {"type": "calico-ipam"},
            "buoy": {"socket": self.socket(), "spool": self.spool()},
        });
        for (key, value) in extra.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    }

    /// A call with everything that the command needs but a namespace.
    pub(crate) fn call<'a>(&'a self, plugin: &'a str, command: &str, config: &Value) -> Call<'a> {
        let call = Call {
            site: self,
            plugin,
            env: Vec::new(),
            stdin: Vec::new(),
            inside: None,
        };
        call.env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", "c1")
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", self.path("bin").to_str().unwrap())
            .stdin(config.to_string())
    }
}

impl Call<'_> {
    pub(crate) fn env(mut self, key: &str, value: &str) -> Self {
        self.env.retain(|(name, _)| name != key);
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn netns(self, path: impl AsRef<Path>) -> Self {
        self.env("CNI_NETNS", path.as_ref().to_str().unwrap())
    }

    pub(crate) fn deadline_ms(self, deadline: u64) -> Self {
        self.env("BUOY_CNI_DEADLINE_MS", &deadline.to_string())
    }

    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Runs the plugin itself inside this network namespace.
    pub(crate) fn inside(mut self, netns: impl Into<PathBuf>) -> Self {
        self.inside = Some(netns.into());
        self
    }

    pub(crate) fn run(self) -> Outcome {
        let program = self.site.path(self.plugin);
        let mut command = match &self.inside {
            None => Command::new(program),
            Some(netns) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", netns.display())).arg(program);
                command
            }
        };
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(self.env);
        let began = Instant::now();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A plugin that fails early does not read all of its input.
        let _ = child.stdin.take().unwrap().write_all(&self.stdin);
        let output = child.wait_with_output().unwrap();
        Outcome {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
            took: began.elapsed(),
        }
    }
}

impl Outcome {
    /// The document of a success; `null` where nothing was printed.
    pub(crate) fn success(self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        if self.stdout.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&self.stdout).unwrap()
        }
    }

    /// The document of a failure, whose code must be this one.
    pub(crate) fn failure(self, code: u32) -> Value {
        assert_eq!(self.code, 1, "{self:?}");
        let error: Value = serde_json::from_str(&self.stdout).unwrap();
        assert_eq!(error["code"], code, "{error}");
        assert!(
            error["cniVersion"].is_string() && error["msg"].is_string(),
            "{error}"
        );
        error
    }
}
