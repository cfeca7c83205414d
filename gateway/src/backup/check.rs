//! `chaos check`: whether a store is whole, told in sentences.

use std::{path::PathBuf, process::ExitCode};

use store::embedded::{self, OpenError};

use super::{findings, size, value_check::Chat};
use crate::{start::StartError, terminal::say};

/// Findings that are written out; beyond them there is only a count.
const MAX_PRINTED_FINDINGS: u64 = 1_000;

/// What to check.
#[derive(Debug, Clone, clap::Args)]
pub struct Check {
    /// The data folder, of a node that runs or not, or a backup
    #[arg(
        long,
        value_name = "FOLDER",
        env = "CHAOS_DATA",
        hide_env_values = true,
        default_value = "./chaos-data"
    )]
    pub data: PathBuf,
}

/// Prints each finding and the effect of its repair, and changes nothing. Exit code 1 if there are
/// findings.
///
/// # Errors
/// Fails if the store cannot be opened, or is too damaged to be read.
pub fn check(Check { data }: &Check) -> Result<ExitCode, StartError> {
    let mut count = 0;
    let looked = embedded::check(data, &mut Chat::default(), &mut |finding| {
        count += 1;
        if count <= MAX_PRINTED_FINDINGS {
            say!("{}; mending it {}", finding.what, finding.repair);
        }
    })
    .map_err(|error| match error {
        // There is nothing that would tell more than this command.
        OpenError::Damaged { path, damage } => StartError(format!(
            "the folder {} is damaged ({damage}), and what is in it cannot be checked: bring back a backup with `chaos restore`",
            path.display()
        )),
        error => StartError::of(error),
    })?;
    if count > MAX_PRINTED_FINDINGS {
        say!("… and {} more", count - MAX_PRINTED_FINDINGS);
    }
    if looked.only_pages {
        say!(
            "The records were not read: where pages are damaged, reading them could end this process."
        );
    }
    if looked.lost_pages > 0 {
        say!(
            "Pages that are neither in use nor free: {}. Nothing but their room is lost.",
            looked.lost_pages
        );
    }
    let of = match looked.only_pages {
        true => size(looked.bytes),
        false => format!(
            "{} with {} partitions, {} documents and {} events",
            size(looked.bytes),
            looked.partitions,
            looked.documents,
            looked.events
        ),
    };
    if count == 0 {
        say!("{} is whole: {of}", data.display());
        return Ok(ExitCode::SUCCESS);
    }
    say!(
        "{} is not whole: {} in {of}",
        data.display(),
        findings(count)
    );
    Ok(ExitCode::from(1))
}
