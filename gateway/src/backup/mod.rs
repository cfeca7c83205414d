//! What is done with a data folder besides running a node on it: a copy is made of it and brought
//! back, and it is checked.
//!
//! Each is a subcommand, and a process of its own. Left out: how the store is read beside its node
//! (`store::embedded`).

mod check;
mod create;
mod restore;
mod value_check;

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
    check::{Check, check},
    create::{Backup, backup},
    restore::{Restore, restore},
};
use store::embedded::{self, DATA};

use crate::{
    private_file,
    start::{ADMIN_KEY, DEMO, SECRET_KEY, StartError},
    terminal::complain,
};

/// The files of a data folder besides the store. The secret key comes last, so that a folder that
/// has it has them all.
const FILES: [&str; 3] = [ADMIN_KEY, DEMO, SECRET_KEY];

/// How often a long copy says how far it is.
const PROGRESS: Duration = Duration::from_secs(2);

/// A folder that becomes what it is by its last step, and is removed if that is never taken.
#[derive(Debug)]
struct Partial(PathBuf);

impl Partial {
    fn make(path: PathBuf) -> io::Result<Self> {
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Whoever made it whole has moved it away.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Copies the store, and says on the way how far it is. Returns how many bytes the copy has.
fn copy_store(from: &Path, to: &Path) -> Result<u64, StartError> {
    let (done, waits) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            while waits.recv_timeout(PROGRESS) == Err(mpsc::RecvTimeoutError::Timeout) {
                match fs::metadata(to.join(DATA)) {
                    Ok(data) => complain!("{} written so far", size(data.len())),
                    Err(_) => complain!("its pages are still looked at"),
                }
            }
        });
        let copied = embedded::copy(from, to).map_err(StartError::of);
        drop(done);
        copied
    })
}

/// Copies the files beside the store that are there, readable for their owner alone. Returns their
/// names.
fn copy_files(from: &Path, to: &Path) -> Result<Vec<&'static str>, StartError> {
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
                return Err(StartError(format!(
                    "{} cannot be copied to {to} ({error}): mend its permissions, or make room",
                    from.display()
                )));
            }
        }
    }
    Ok(copied)
}

/// Makes durable which names a folder has.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Whether a folder is not there, or has nothing in it.
fn is_vacant(folder: &Path) -> bool {
    match fs::read_dir(folder) {
        Ok(mut names) => names.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    match bytes {
        0..0x40_0000 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        0x40_0000..0x1_0000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}

/// Findings for people.
fn findings(count: u64) -> String {
    if count == 1 {
        "1 finding".to_owned()
    } else {
        format!("{count} findings")
    }
}
