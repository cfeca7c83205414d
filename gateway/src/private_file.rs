//! Files that only their owner can read: created with mode 0600, also in place of another file, and
//! never through a symbolic link.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Creates a file. Fails if the name exists, also as a symbolic link.
pub fn create_new(path: &Path) -> io::Result<File> {
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Creates a folder and its missing parents.
pub fn create_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// A temporary file that [`Replacement::commit`] renames, replacing a file of that name. Dropping
/// it before removes it.
#[derive(Debug)]
pub struct Replacement {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    is_committed: bool,
}

impl Replacement {
    /// Creates the file under a temporary name in the same folder.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().ok_or(io::ErrorKind::InvalidFilename)?);
        name.push(format!(".{}.partial", std::process::id()));
        let partial = path.with_file_name(name);
        // A leftover of a process with the same id.
        match fs::remove_file(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Self {
            path: path.to_owned(),
            file: create_new(&partial)?,
            partial,
            is_committed: false,
        })
    }

    /// Syncs and renames the file.
    pub fn commit(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.partial, &self.path)?;
        self.is_committed = true;
        Ok(())
    }
}

impl Write for Replacement {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.is_committed {
            // Fails if the folder was removed.
            let _ = fs::remove_file(&self.partial);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn replacement_has_its_own_mode_and_follows_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let (file, target) = (folder.path().join("file"), folder.path().join("target"));
        fs::write(&target, "of somebody else").unwrap();
        symlink(&target, &file).unwrap();
        let mut replacement = Replacement::create(&file).unwrap();
        replacement.write_all(b"secret").unwrap();
        assert!(
            fs::symlink_metadata(&file).unwrap().is_symlink(),
            "nothing is replaced before the commit"
        );
        replacement.commit().unwrap();
        assert_eq!(
            (fs::read_to_string(&file).unwrap().as_str(), mode(&file)),
            ("secret", 0o600)
        );
        assert_eq!(fs::read_to_string(&target).unwrap(), "of somebody else");

        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        drop(Replacement::create(&file).unwrap());
        Replacement::create(&file).unwrap().commit().unwrap();
        assert_eq!(
            (mode(&file), fs::read_dir(folder.path()).unwrap().count()),
            (0o600, 2)
        );
    }

    #[test]
    fn name_of_a_broken_link_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let (file, target) = (folder.path().join("file"), folder.path().join("target"));
        symlink(&target, &file).unwrap();
        assert_eq!(
            create_new(&file).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert!(!target.exists());
    }

    #[test]
    fn folders_are_for_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        create_folder(&inner).unwrap();
        create_folder(&inner).unwrap();
        assert_eq!(mode(&inner), 0o700);
    }
}
