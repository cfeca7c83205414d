//! `chaos backup`: a copy of a data folder, also while a node runs on it.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use super::{Partial, copy_files, copy_store, is_vacant, size, sync};
use crate::{
    start::{SECRET_KEY, StartError},
    terminal::say,
};

/// What to copy where.
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

/// Makes the copy under another name, syncs it, and gives it its name as the last step.
///
/// # Errors
/// Fails if the target exists, or if the data folder cannot be read or the target written. No
/// backup is left then.
pub fn backup(Backup { data, to }: &Backup) -> Result<(), StartError> {
    let wrong = |error: io::Error| {
        StartError(format!(
            "the backup {} cannot be made ({error}): name one in a folder that this user may write to",
            to.display()
        ))
    };
    if !is_vacant(to) {
        return Err(StartError(format!(
            "{} is there already, and nothing is overwritten: name another folder with --to",
            to.display()
        )));
    }
    let (parent, partial) = aside(to).ok_or_else(|| {
        StartError(format!(
            "{} is no name for a folder: name one with --to",
            to.display()
        ))
    })?;
    say!("Copying {} to {}", data.display(), to.display());
    let partial = Partial::make(partial).map_err(wrong)?;
    let bytes = copy_store(data, &partial.0)?;
    let files = copy_files(data, &partial.0)?;
    sync(&partial.0).map_err(wrong)?;
    fs::rename(&partial.0, to).map_err(wrong)?;
    sync(&parent).map_err(wrong)?;
    say!("The store, {} without what was free in it", size(bytes));
    for file in &files {
        say!("{file}, mode 0600");
    }
    if !files.contains(&SECRET_KEY) {
        say!(
            "{SECRET_KEY} is not in the folder: keep the one that the node is given, for without it no token key can be opened"
        );
    }
    say!(
        "{} is complete. It holds every secret of the node: keep it as safe as {}",
        to.display(),
        data.display()
    );
    Ok(())
}

/// The folder that a path is in, and a name there for what is not complete yet.
fn aside(to: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut name = OsString::from(".");
    name.push(to.file_name()?);
    name.push(format!(".{}.partial", std::process::id()));
    let parent = to
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    Some((parent.to_owned(), parent.join(name)))
}
