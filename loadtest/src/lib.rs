//! The load test: real clients against running nodes, with every delivery verified and measured.
//!
//! Owned here: scenarios, faults ([`testbed`]), open-loop scheduling, latencies, verification
//! ([`verify`], without I/O) and reports. The protocol and its client are left to `protocol` and
//! `client`. Each run creates a [tenant](tenant::RunTenant) of its own and deletes it afterwards,
//! so it can run beside anything else on the same deployment.

pub mod channel;
pub mod cli;
pub mod disk;
pub mod event;
pub mod fault_kind;
pub mod floor;
pub mod latency;
pub mod member;
pub mod process;
pub mod progress;
pub mod redis_info;
pub mod report;
pub mod run_state;
pub mod scenario;
pub mod schedule;
pub mod script;
pub mod tenant;
pub mod testbed;
pub mod verify;

use std::{fs::File, path::Path};

use anyhow::{Context, Result};

use crate::{cli::Scenario, report::RunVerdict, scenario::RunOutcome};

/// Runs a scenario and writes its report to standard output and to the requested files.
///
/// # Errors
/// Fails if the scenario is invalid or if the test bed cannot be set up.
pub fn run(scenario: &Scenario) -> Result<RunVerdict> {
    scenario.check()?;
    process::raise_open_files_limit(scenario.sockets())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let RunOutcome { report, delivery } = runtime.block_on(scenario::run(scenario))?;
    print!("{}", report::text::format(&report));
    let common = scenario.common();
    common
        .json
        .iter()
        .try_for_each(|path| report::json::write(&report, path))?;
    let write = |path: &Path| File::create(path).and_then(|mut file| delivery.write(&mut file));
    common.hgrm.iter().try_for_each(|path| {
        write(path).with_context(|| format!("cannot write {}", path.display()))
    })?;
    Ok(report.verdict)
}
