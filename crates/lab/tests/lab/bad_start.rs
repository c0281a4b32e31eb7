//! What keeps an agent from working: it says why and what to do, and leaves alone what runs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use buoy_lab::bystander::Bystander;
use buoy_lab::dump::Dump;
use buoy_lab::exec::{self, eventually};
use buoy_lab::lab::Lab;
use rusqlite::Connection;

const SOON: Duration = Duration::from_secs(20);

/// An agent that cannot work says why, whether it gives up or tries again, and leaves what runs alone.
fn agent_says(lab: &Lab, words: &[&str]) -> Result<()> {
    let before = Dump::take(lab.node.netns())?;
    log_says(lab, words)?;
    let difference = before.difference(&Dump::take(lab.node.netns())?);
    ensure!(
        difference.is_empty(),
        "an agent that cannot work changed the node:\n{difference}"
    );
    Ok(())
}

/// Starts an agent until its log says these words; it must not claim to be ready.
fn log_says(lab: &Lab, words: &[&str]) -> Result<()> {
    let log = lab.node.log();
    let old = fs::metadata(&log).map_or(0, |found| found.len());
    let agent = lab.node.launch_agent()?;
    let said = eventually(SOON, &format!("the agent says {words:?}"), || {
        let said = fs::read_to_string(&log)?.split_off(usize::try_from(old)?);
        for word in words {
            ensure!(said.contains(word), "no '{word}' in:\n{said}");
        }
        Ok(said)
    })?;
    drop(agent);
    ensure!(
        !said.contains("panicked") && !said.contains("agent: ready"),
        "{said}"
    );
    Ok(())
}

#[test]
fn settings_that_do_not_parse() {
    Lab::start().unwrap().test(|lab| {
        let bystander = Bystander::start(lab)?;
        lab.node.stop_agent()?;
        let file = lab.node.config_file();
        let good = fs::read_to_string(&file)?;
        for (text, word) in [
            ("nodeName: [n1", "agent.yaml"),
            ("nodeNam: n1", "nodeNam"),
            ("floatingIPs: [1, 2]", "agent.yaml"),
            ("\u{1}\u{2}", "agent.yaml"),
        ] {
            fs::write(&file, text)?;
            agent_says(lab, &[word, "write a line for each setting"])?;
        }
        fs::write(&file, good)?;
        for (hold, floating, says) in [
            (
                "soon",
                "auto",
                "floating-ip-hold: not a duration: soon\nwrite it as",
            ),
            ("10m", "perhaps", "floating-ips: perhaps\nwrite auto"),
        ] {
            lab.node.set(|settings| {
                settings.hold = hold.to_owned();
                settings.floating_ips = floating.to_owned();
            });
            agent_says(lab, &[says])?;
        }
        lab.node
            .set(|settings| *settings = buoy_lab::node::Settings::default());
        lab.node.start_agent()?;
        bystander.was_undisturbed(lab)
    });
}

#[test]
fn a_store_of_a_newer_schema() {
    Lab::start().unwrap().test(|lab| {
        let bystander = Bystander::start(lab)?;
        lab.node.stop_agent()?;
        let set = |version: i32| -> Result<i32> {
            let store = Connection::open(lab.node.store().file()?)?;
            let before = store.pragma_query_value(None, "user_version", |row| row.get(0))?;
            store.pragma_update(None, "user_version", version)?;
            Ok(before)
        };
        let ours = set(999)?;
        agent_says(lab, &["buoy.db", "999"])?;
        let finished = lab.node.try_ctl(&["fip", "list"], "")?;
        ensure!(finished.status.code() == Some(1), "{finished:?}");
        ensure!(finished.stderr.contains("999"), "{}", finished.stderr);
        set(ours)?;
        lab.node.start_agent()?;
        bystander.was_undisturbed(lab)
    });
}

#[test]
fn nft_that_is_missing_or_old() {
    let lab = Lab::bare().unwrap();
    lab.test(|lab| {
        let path = lab.node.directory().join("path");
        fs::create_dir_all(&path)?;
        for program in ["nsenter", "ip", "sh"] {
            symlink(found(program)?, path.join(program))?;
        }
        lab.node.set(|settings| settings.path = Some(path.clone()));
        log_says(lab, &["nft", "install"])?;
        rests_between_tries(lab)?;
        write_script(
            &path.join("nft"),
            "[ \"$1\" = --version ] && echo 'nftables v0.8.2 (Joe Btfsplk)'",
        )?;
        log_says(lab, &["0.8.2", "install"])?;
        lab.node.set(|settings| settings.path = None);
        lab.node.start_agent()?;
        lab.node.apply(buoy_lab::lab::POOLS)?;
        Bystander::start(lab)?.was_undisturbed(lab)
    });
}

/// An agent that cannot load its ruleset tries again, and does not keep the machine busy with that.
fn rests_between_tries(lab: &Lab) -> Result<()> {
    let tries = || -> Result<usize> { Ok(fs::read_to_string(lab.node.log())?.matches("WARN").count()) };
    let before = tries()?;
    let agent = lab.node.launch_agent()?;
    eventually(SOON, "it tries again", || {
        ensure!(tries()? >= before + 3, "not yet");
        Ok(())
    })?;
    thread::sleep(Duration::from_secs(1));
    drop(agent);
    let tried = tries()? - before;
    ensure!(tried < 20, "{tried} tries in a second");
    Ok(())
}

/// Has another process write a script: a child that another test forks would hold it open for writing, and the kernel
/// runs no such file.
fn write_script(at: &Path, text: &str) -> Result<()> {
    let mut writer = Command::new("sh");
    writer.args(["-c", "cat > \"$0\" && chmod 755 \"$0\""]).arg(at);
    exec::run(&mut writer, &format!("#!/bin/sh\n{text}\n"), exec::PATIENCE)?
        .ok()
        .map(drop)
}

/// Where a program of this machine is.
fn found(program: &str) -> Result<PathBuf> {
    let directories = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
    directories
        .iter()
        .map(|directory| Path::new(directory).join(program))
        .find(|path| path.exists())
        .ok_or_else(|| anyhow::anyhow!("no program {program}"))
}
