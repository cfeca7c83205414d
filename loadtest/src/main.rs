//! `chaos-loadtest`: parses the command line, runs the scenario and exits with its verdict.

use std::process::ExitCode;

use clap::Parser;
use loadtest::{cli::CommandLine, report::RunVerdict};

fn main() -> ExitCode {
    match loadtest::run(&CommandLine::parse().scenario) {
        Ok(RunVerdict::Kept) => ExitCode::SUCCESS,
        Ok(RunVerdict::Broken) => ExitCode::from(1),
        Ok(RunVerdict::Unproven) => ExitCode::from(2),
        Err(error) => {
            eprintln!("chaos-loadtest: {error:#}");
            ExitCode::from(2)
        }
    }
}
