//! The subcommands `backup`, `restore` and `check` for the data folder of the embedded store.
//!
//! They run as processes of their own. `store::embedded` reads a store that a node has open.

mod check;
mod create;
mod restore;

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

pub use self::{
    check::{CheckArgs, check},
    create::{Backup, backup},
    restore::{Restore, restore},
};
use store::embedded::{self, DATA};

use crate::{
    private_file,
    start::{ADMIN_KEY, CommandError, DEMO, SECRET_KEY},
    terminal::print_error,
};

/// The files of a data folder besides the store. The secret key is copied last, so that a folder
/// with a secret key has all files.
const FILES: [&str; 3] = [ADMIN_KEY, DEMO, SECRET_KEY];

const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// A temporary folder, removed on drop unless it was renamed.
#[derive(Debug)]
struct Partial(PathBuf);

impl Partial {
    fn create(path: PathBuf) -> io::Result<Self> {
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Fails after a rename.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Copies the store and reports progress. Returns the size of the copy in bytes.
fn copy_store(from: &Path, to: &Path) -> Result<u64, CommandError> {
    let (done, is_done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            while is_done.recv_timeout(PROGRESS_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
                match fs::metadata(to.join(DATA)) {
                    Ok(data) => print_error!("{} written so far", size(data.len())),
                    Err(_) => print_error!("still reading the pages"),
                }
            }
        });
        let copied = embedded::copy(from, to).map_err(CommandError::of);
        drop(done);
        copied
    })
}

/// Copies the existing files besides the store, readable by their owner only, and returns their
/// names.
fn copy_files(from: &Path, to: &Path) -> Result<Vec<&'static str>, CommandError> {
    let mut copied = Vec::new();
    for name in FILES {
        let copy = || -> io::Result<()> {
            let bytes = fs::read(from.join(name))?;
            let mut file = private_file::create_new(&to.join(name))?;
            file.write_all(&bytes)?;
            file.sync_all()
        };
        match copy() {
            Ok(()) => copied.push(name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let (from, to) = (from.join(name), to.display());
                return Err(CommandError(format!(
                    "{} cannot be copied to {to} ({error}): check its permissions and the free disk space",
                    from.display()
                )));
            }
        }
    }
    Ok(copied)
}

/// Makes renames within a folder durable.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Returns whether a folder does not exist or is empty.
fn is_vacant(folder: &Path) -> bool {
    match fs::read_dir(folder) {
        Ok(mut names) => names.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Formats a number of bytes.
fn size(bytes: u64) -> String {
    match bytes {
        0..0x40_0000 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        0x40_0000..0x1_0000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}

fn findings(count: u64) -> String {
    if count == 1 {
        "1 finding".to_owned()
    } else {
        format!("{count} findings")
    }
}
