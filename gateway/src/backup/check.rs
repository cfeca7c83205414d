//! `chaos check`: reports damage of a store.

use std::{path::PathBuf, process::ExitCode};

use store::embedded::{self, OpenError};

use super::{findings, size};
use crate::value_check::ChatCheck;
use crate::{start::CommandError, terminal::print_line};

/// Maximum number of findings that are printed; the others are counted.
const MAX_PRINTED_FINDINGS: u64 = 1_000;

/// The flags of `chaos check`.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckArgs {
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
/// Fails if the store cannot be opened or read.
pub fn check(CheckArgs { data }: &CheckArgs) -> Result<ExitCode, CommandError> {
    let mut count = 0;
    let checked = embedded::check(data, &mut ChatCheck::default(), &mut |finding| {
        count += 1;
        if count <= MAX_PRINTED_FINDINGS {
            print_line!("{}; mending it {}", finding.what, finding.repair);
        }
    });
    let summary = match checked {
        Ok(summary) => summary,
        Err(OpenError::Damaged { path, damage }) => {
            print_line!(
                "{} is not whole ({damage}), and its contents cannot be checked: restore a backup with `chaos restore`",
                path.display()
            );
            return Ok(ExitCode::from(1));
        }
        Err(error) => return Err(CommandError::of(error)),
    };
    if count > MAX_PRINTED_FINDINGS {
        print_line!("… and {} more", count - MAX_PRINTED_FINDINGS);
    }
    if summary.only_pages {
        print_line!(
            "The records were not read: pages are damaged, and reading records from them could crash this process."
        );
    }
    if summary.lost_pages > 0 {
        print_line!(
            "Pages that are neither in use nor free: {}. They take up space, but no data is lost.",
            summary.lost_pages
        );
    }
    let contents = match summary.only_pages {
        true => size(summary.bytes),
        false => format!(
            "{} with {} partitions, {} documents and {} events",
            size(summary.bytes),
            summary.partitions,
            summary.documents,
            summary.events
        ),
    };
    if count == 0 {
        print_line!("{} is whole: {contents}", data.display());
        return Ok(ExitCode::SUCCESS);
    }
    print_line!(
        "{} is not whole: {} in {contents}",
        data.display(),
        findings(count)
    );
    Ok(ExitCode::from(1))
}
