//! `chaos restore`: creates a data folder from a backup.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use store::embedded::{self, DATA, JOURNAL, Lock, OpenError};

use super::{Partial, copy_files, copy_store, findings, size, sync};
use crate::value_check::ChatCheck;
use crate::{
    private_file,
    start::{CommandError, LOST_AND_FOUND, SECRET_KEY},
    terminal::print_line,
};

/// The flags of `chaos restore`.
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

/// Files that may be in an otherwise empty data folder: locks, leftovers of an interrupted restore,
/// and the file system's own.
const IGNORED_FILES: [&str; 4] = ["chaos.lock", "lock.mdb", RESTORING, LOST_AND_FOUND];
const RESTORING: &str = ".restoring";

/// Checks the backup, copies it into the folder and syncs it. The folder itself is kept, since it
/// may be a mount point. No node starts on it until the last step.
///
/// # Errors
/// Fails if the backup is damaged, or if the data folder is in use, not empty or not writable. A
/// failure leaves no store in the data folder.
pub fn restore(Restore { from, data }: &Restore) -> Result<(), CommandError> {
    let unwritable = |error: io::Error| {
        CommandError(format!(
            "cannot restore to {} ({error}): pass a folder that this user can write to with --data",
            data.display()
        ))
    };
    print_line!("Checking {}", from.display());
    verify(from)?;
    private_file::create_folder(data).map_err(unwritable)?;
    let _lock = Lock::acquire(data).map_err(CommandError::of)?;
    let names = fs::read_dir(data)
        .map_err(unwritable)?
        .filter_map(Result::ok)
        .map(|entry| entry.file_name());
    if let Some(name) = names
        .into_iter()
        .find(|name| !IGNORED_FILES.iter().any(|ignored| *name == **ignored))
    {
        return Err(CommandError(format!(
            "{} contains {}, which is not overwritten: move it away, or pass another folder with --data",
            data.display(),
            name.display()
        )));
    }
    print_line!("Copying it to {}", data.display());
    let restoring = data.join(RESTORING);
    // Removes the leftovers of an interrupted restore.
    drop(Partial(restoring.clone()));
    let partial = Partial::create(restoring).map_err(unwritable)?;
    let bytes = copy_store(from, &partial.0)?;
    let files = copy_files(from, &partial.0)?;
    sync(&partial.0).map_err(unwritable)?;
    // A node refuses a store without the secret key. The key is moved last, so that no node starts
    // on an incomplete folder.
    let mut moved: Vec<&str> = Vec::new();
    for name in files
        .iter()
        .copied()
        .filter(|name| *name != SECRET_KEY)
        .chain(
            [JOURNAL, DATA]
                .into_iter()
                .filter(|name| partial.0.join(name).exists()),
        )
        .chain(files.iter().copied().filter(|name| *name == SECRET_KEY))
    {
        if let Err(error) = fs::rename(partial.0.join(name), data.join(name)) {
            moved.iter().for_each(|name| remove(&data.join(name)));
            return Err(unwritable(error));
        }
        moved.push(name);
    }
    drop(partial);
    sync(data).map_err(unwritable)?;
    print_line!("{} is restored, {}", data.display(), size(bytes));
    print_line!("Clients that are ahead of the backup are told \"diverged\" and read again.");
    print_line!("Deletions and revocations since the backup are undone: repeat them.");
    Ok(())
}

/// Removes a file or a folder.
fn remove(path: &Path) {
    // The first error is reported.
    let _ = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
}

fn verify(from: &Path) -> Result<(), CommandError> {
    let mut first = None;
    let mut count = 0;
    embedded::check(from, &mut ChatCheck::default(), &mut |finding| {
        count += 1;
        first.get_or_insert(finding);
    })
    .map_err(|error| match error {
        OpenError::Damaged { path, damage } => CommandError(format!(
            "the backup {} is damaged ({damage}): restore another one",
            path.display()
        )),
        error => CommandError::of(error),
    })?;
    match first {
        None => Ok(()),
        Some(finding) => Err(CommandError(format!(
            "the backup {} is not whole ({}; {} in all): restore another one; `chaos check --data {0}` lists the findings",
            from.display(),
            finding.what,
            findings(count)
        ))),
    }
}
