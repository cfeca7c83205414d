//! The harness: real clients against running nodes, every delivery verified, measured beside a floor.
//!
//! Owned here: scenarios, faults ([`arena`]), open-loop pacing, latencies, verification ([`verify`] is pure), reports. Left out: what the wire
//! is, and how a client speaks it. A run makes a tenant of its own and deletes it afterwards, so that it can be made beside
//! anything else on the same deployment.

pub mod arena;
pub mod cli;
pub mod floor;
pub mod member;
pub mod pace;
pub mod process;
pub mod progress;
pub mod record;
pub mod report;
pub mod room;
pub mod scenario;
pub mod script;
pub mod stage;
pub mod tenant;
pub mod told;
pub mod verify;

use std::{fs::File, path::Path};

use anyhow::{Context, Result};

use crate::{cli::Scenario, report::Verdict, scenario::Outcome};

/// Runs a scenario, tells what it found on standard output and in the files that were asked for, and answers whether the
/// promises were kept. An error is a sentence that says why the run could not be made.
pub fn run(scenario: &Scenario) -> Result<Verdict> {
    scenario.check()?;
    process::make_room_for(scenario.sockets())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("The runtime cannot be started")?;
    let Outcome { report, delivery } = runtime.block_on(scenario::run(scenario))?;
    print!("{}", report::text::of(&report));
    let common = scenario.common();
    common
        .json
        .iter()
        .try_for_each(|path| report::json::write(&report, path))?;
    let write = |path: &Path| File::create(path).and_then(|mut file| delivery.write(&mut file));
    common.hgrm.iter().try_for_each(|path| {
        write(path).with_context(|| format!("{} cannot be written", path.display()))
    })?;
    Ok(report.verdict)
}
