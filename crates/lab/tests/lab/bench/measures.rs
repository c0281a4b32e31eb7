//! Runs parts of the bench, as a person does.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::fs;
use std::process::Command;
use std::time::Duration;

use buoy_lab::binaries::Binaries;
use buoy_lab::exec;
use buoy_lab::run::Run;
use serde_json::Value;

/// Measures some parts and looks for rows that must be there.
pub(crate) fn measures(parts: &str, rows: &[&str]) {
    let run = Run::begin().unwrap();
    let out = run.base().join("results.json");
    let mut command = Command::new(Binaries::find().unwrap().lab);
    command
        .args(["bench", "--quick", "--only", parts, "--out"])
        .arg(&out);
    let finished = exec::run(&mut command, "", Duration::from_secs(400))
        .unwrap()
        .ok()
        .unwrap();
    assert!(finished.stdout.contains("targets met"), "{}", finished.stdout);
    let list: Vec<Value> = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
    for name in rows {
        let row = list.iter().find(|row| row["name"] == *name);
        let row = row.unwrap_or_else(|| panic!("no row {name}:\n{}", finished.stdout));
        assert!(row["n"].as_u64().unwrap() > 0, "{row}");
        for key in ["p50", "p99"] {
            assert!(row[key].as_f64().unwrap() >= 0.0, "{row}");
        }
        assert!(row["unit"].is_string(), "{row}");
        if let Some(ratio) = row["ratio"].as_f64() {
            assert!(ratio > 0.0, "{row}");
        }
    }
}
