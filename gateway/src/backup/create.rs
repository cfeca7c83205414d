//! `chaos backup`: copies a data folder, also while a node uses it.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use super::{Partial, copy_files, copy_store, is_vacant, size, sync};
use crate::{
    start::{CommandError, SECRET_KEY},
    terminal::print_line,
};

/// The flags of `chaos backup`.
#[derive(Debug, Clone, clap::Args)]
pub struct Backup {
    /// The data folder, of a node that runs or not
    #[arg(
        long,
        value_name = "FOLDER",
        env = "CHAOS_DATA",
        hide_env_values = true,
        default_value = "./chaos-data"
    )]
    pub data: PathBuf,
    /// The folder that becomes the backup: a new name in a folder that is there
    #[arg(long, value_name = "FOLDER")]
    pub to: PathBuf,
}

/// Copies to a temporary name, syncs, and renames the copy as the last step.
///
/// # Errors
/// Fails if the target exists, the data folder cannot be read, or the target cannot be written. A
/// failure leaves no target.
pub fn backup(Backup { data, to }: &Backup) -> Result<(), CommandError> {
    let unwritable = |error: io::Error| {
        CommandError(format!(
            "the backup {} cannot be written ({error}): pass one in a folder that this user can write to",
            to.display()
        ))
    };
    if !is_vacant(to) {
        return Err(CommandError(format!(
            "{} exists already and is not overwritten: pass another folder with --to",
            to.display()
        )));
    }
    let (parent, partial) = parent_and_partial(to).ok_or_else(|| {
        CommandError(format!(
            "{} is no name for a folder: pass another one with --to",
            to.display()
        ))
    })?;
    print_line!("Copying {} to {}", data.display(), to.display());
    let partial = Partial::create(partial).map_err(unwritable)?;
    let bytes = copy_store(data, &partial.0)?;
    let files = copy_files(data, &partial.0)?;
    sync(&partial.0).map_err(unwritable)?;
    fs::rename(&partial.0, to).map_err(unwritable)?;
    sync(&parent).map_err(unwritable)?;
    print_line!("The store, {} without its free pages", size(bytes));
    for file in &files {
        print_line!("{file}, mode 0600");
    }
    if !files.contains(&SECRET_KEY) {
        print_line!(
            "{SECRET_KEY} is not in the folder: keep the key that the node is started with, since token keys cannot be decrypted without it"
        );
    }
    print_line!(
        "{} is complete. It holds every secret of the node: keep it as safe as {}",
        to.display(),
        data.display()
    );
    Ok(())
}

/// Returns the folder that contains `to`, and a temporary name for the copy in that folder.
fn parent_and_partial(to: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut name = OsString::from(".");
    name.push(to.file_name()?);
    name.push(format!(".{}.partial", std::process::id()));
    let parent = to
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    Some((parent.to_owned(), parent.join(name)))
}
