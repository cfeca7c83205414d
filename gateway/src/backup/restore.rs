//! `chaos restore`: a data folder from a backup.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use store::embedded::{self, DATA, Lock, OpenError};

use super::{Partial, copy_files, copy_store, findings, size, sync, value_check::Chat};
use crate::{
    private_file,
    start::{LOST_AND_FOUND, SECRET_KEY, StartError},
    terminal::say,
};

/// What to bring back where.
#[derive(Debug, Clone, clap::Args)]
pub struct Restore {
    /// The backup
    #[arg(long, value_name = "FOLDER")]
    pub from: PathBuf,
    /// The data folder: one that is not there yet, or empty
    #[arg(
        long,
        value_name = "FOLDER",
        env = "CHAOS_DATA",
        hide_env_values = true,
        default_value = "./chaos-data"
    )]
    pub data: PathBuf,
}

/// What may lie in a folder without being anybody's: locks, what a restore that was interrupted
/// left, the file system's own.
const IGNORED_FILES: [&str; 4] = ["chaos.lock", "lock.mdb", RESTORING, LOST_AND_FOUND];
const RESTORING: &str = ".restoring";

/// Checks the backup, copies it into the folder, syncs it. The folder itself stays, as it may be
/// one that is mounted; until the last step it is one on which no node starts.
///
/// # Errors
/// Fails if the backup is damaged, or if the data folder is in use, not empty or not writable. The
/// data folder then holds no store that it did not hold before.
pub fn restore(Restore { from, data }: &Restore) -> Result<(), StartError> {
    let wrong = |error: io::Error| {
        StartError(format!(
            "{} cannot be restored to ({error}): name a folder that this user may write to with --data",
            data.display()
        ))
    };
    say!("Checking {}", from.display());
    verify(from)?;
    private_file::create_folder(data).map_err(wrong)?;
    let _held = Lock::acquire(data).map_err(StartError::of)?;
    let held = fs::read_dir(data)
        .map_err(wrong)?
        .filter_map(Result::ok)
        .map(|entry| entry.file_name());
    if let Some(name) = held
        .into_iter()
        .find(|name| !IGNORED_FILES.iter().any(|ignored| *name == **ignored))
    {
        return Err(StartError(format!(
            "{} holds {} already, and nothing is overwritten: move it away, or name another folder with --data",
            data.display(),
            name.display()
        )));
    }
    say!("Copying it to {}", data.display());
    let restoring = data.join(RESTORING);
    // What an interrupted one left.
    drop(Partial(restoring.clone()));
    let partial = Partial::make(restoring).map_err(wrong)?;
    let bytes = copy_store(from, &partial.0)?;
    let files = copy_files(from, &partial.0)?;
    sync(&partial.0).map_err(wrong)?;
    // A store without its keys is refused by a node, and so are keys without a store, but for the
    // last of them: it goes last.
    let mut moved: Vec<&str> = Vec::new();
    for name in files
        .iter()
        .copied()
        .filter(|name| *name != SECRET_KEY)
        .chain([DATA])
        .chain(files.iter().copied().filter(|name| *name == SECRET_KEY))
    {
        if let Err(error) = fs::rename(partial.0.join(name), data.join(name)) {
            // Nothing stays of what was not finished.
            moved
                .iter()
                .for_each(|name| drop(fs::remove_file(data.join(name))));
            return Err(wrong(error));
        }
        moved.push(name);
    }
    drop(partial);
    sync(data).map_err(wrong)?;
    say!("{} is restored, {}", data.display(), size(bytes));
    say!("Clients that had more than the backup are told so (\"diverged\"), and read again.");
    say!("What was deleted or revoked since the backup is there again: delete and revoke it anew.");
    Ok(())
}

fn verify(from: &Path) -> Result<(), StartError> {
    let mut first = None;
    let mut count = 0;
    embedded::check(from, &mut Chat::default(), &mut |finding| {
        count += 1;
        first.get_or_insert(finding);
    })
    .map_err(|error| match error {
        OpenError::Damaged { path, damage } => StartError(format!(
            "the backup {} is damaged ({damage}): bring back another one",
            path.display()
        )),
        error => StartError::of(error),
    })?;
    match first {
        None => Ok(()),
        Some(finding) => Err(StartError(format!(
            "the backup {} is not whole ({}; {} in all): bring back another one; `chaos check --data {0}` tells more",
            from.display(),
            finding.what,
            findings(count)
        ))),
    }
}
