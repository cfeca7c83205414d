//! The process-wide log: a process has one, so its test has a process of its own.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::process::Command;

use gateway::{config::LogFormat, log};

/// Set in the child process, which logs and panics. The parent reads its output.
const CHILD: &str = "CHAOS_TEST_LOG_CHILD";

#[test]
fn a_panic_is_logged_with_its_place_and_without_its_secrets() {
    if std::env::var_os(CHILD).is_some() {
        log::init(LogFormat::Json, "info").unwrap();
        tracing::info!("begins");
        let _ = std::thread::spawn(|| panic!("cannot use sk_live_CanaryCanary here")).join();
        return;
    }
    let name = "a_panic_is_logged_with_its_place_and_without_its_secrets";
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let lines = String::from_utf8(child.stderr).unwrap();
    assert!(!lines.contains("Canary"), "{lines}");
    let objects: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(objects[0]["message"], "begins");
    assert_eq!(
        objects[1]["message"],
        "panicked: cannot use sk_live_*** here"
    );
    assert!(
        objects[1]["location"]
            .as_str()
            .unwrap()
            .contains("tests/log.rs:"),
        "{lines}"
    );
}
