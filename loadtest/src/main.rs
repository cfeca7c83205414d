//! `chaos-loadtest`: reads what is asked for, runs it, and tells by its exit code whether the promises were kept.

use std::process::ExitCode;

use clap::Parser;
use loadtest::{cli::Cli, report::Verdict};

fn main() -> ExitCode {
    match loadtest::run(&Cli::parse().scenario) {
        Ok(Verdict::Kept) => ExitCode::SUCCESS,
        Ok(Verdict::Broken) => ExitCode::from(1),
        Ok(Verdict::Unproven) => ExitCode::from(2),
        Err(error) => {
            eprintln!("chaos-loadtest: {error:#}");
            ExitCode::from(2)
        }
    }
}
