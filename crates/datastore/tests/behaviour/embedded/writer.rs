//! This test binary again, as another process on the same store.

use std::io::{BufRead, BufReader, Lines, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use buoy_datastore::Datastore;
use buoy_datastore::sqlite::{Options, Sqlite};
use nix::time::{ClockId, clock_gettime};

use crate::races::count_up;
use crate::tools::{create, update};

const JOB: &str = "BUOY_TEST_WRITER_JOB";
const STORE: &str = "BUOY_TEST_WRITER_STORE";

/// Another process that works on a store. Killed, if it still runs, when this is dropped.
pub(crate) struct Writer {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Writer {
    /// Starts a process with one of the jobs below.
    pub(crate) fn start(store: &Path, job: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "embedded::writer::works", "--ignored", "--nocapture"])
            .env(JOB, job)
            .env(STORE, store)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line of the form `> a b` as its words; `None` once the process has ended.
    pub(crate) fn report(&mut self) -> Option<Vec<u64>> {
        loop {
            // A process killed amid a line leaves half of it.
            let line = self.lines.next()?.ok()?;
            if let Some(words) = line.strip_prefix("> ").and_then(|words| words.strip_suffix(" .")) {
                return Some(words.split(' ').map(|word| word.parse().unwrap()).collect());
            }
        }
    }

    /// SIGKILL; when this returns, nothing that it had begun goes on in the kernel.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end. One that waits for the end of its input gets that.
    pub(crate) fn finish(mut self) {
        drop(self.child.stdin.take());
        while self.report().is_some() {}
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says something to the test that started this process.
fn say(words: &[u64]) {
    let words: Vec<String> = words.iter().map(u64::to_string).collect();
    println!("> {} .", words.join(" "));
}

/// Monotonic time in nanoseconds, the same in all processes.
pub(crate) fn nanoseconds() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    u64::try_from(Duration::from(now).as_nanos()).unwrap()
}

#[test]
#[ignore = "a process that other tests start"]
fn works() {
    let (Ok(job), Ok(path)) = (std::env::var(JOB), std::env::var(STORE)) else {
        return;
    };
    let store = Sqlite::open(Path::new(&path), Options::default()).unwrap();
    match job.split_once(' ').unwrap_or((job.as_str(), "")) {
        ("endless", name) => write_without_end(&store, name),
        ("count", times) => {
            count_up(&store, "counter", times.parse().unwrap());
        }
        ("paced", times) => write_now_and_then(&store, times.parse().unwrap()),
        ("lock", "") => hold_a_transaction(&path),
        other => panic!("{other:?}"),
    }
}

/// Writes one record until killed; reports the number and revision of each write that was answered.
fn write_without_end(store: &dyn Datastore, name: &str) {
    let mut at = create(store, name, 0);
    for number in 1.. {
        say(&[number - 1, at.0]);
        at = update(store, name, number, at);
    }
}

/// Reports the revision of each write and when it was answered.
fn write_now_and_then(store: &dyn Datastore, times: u64) {
    for number in 0..times {
        std::thread::sleep(Duration::from_millis(2));
        let revision = create(store, &format!("paced{number}"), number);
        say(&[revision.0, nanoseconds()]);
    }
}

/// Holds the store for itself until its input ends.
fn hold_a_transaction(path: &str) {
    let raw = rusqlite::Connection::open(path).unwrap();
    raw.execute_batch("BEGIN EXCLUSIVE").unwrap();
    say(&[0]);
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    raw.execute_batch("ROLLBACK").unwrap();
}
