//! The files of a data folder besides the store: the keys, created at the first start and readable
//! by their owner only.

use std::{
    fmt, fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use domain::credential::{self, SecretKind};

use crate::{
    config::{Secret, secret_key},
    private_file::{self, Replacement},
};

/// The file of the admin key.
pub const ADMIN_KEY: &str = "admin-key";
/// The file of the secret key: 32 bytes in hex.
pub const SECRET_KEY: &str = "secret-key";
/// The file of the demo's credentials.
pub const DEMO: &str = "demo.json";
/// A folder that a fresh volume contains.
pub(crate) const LOST_AND_FOUND: &str = "lost+found";

/// A failed start or command: one sentence with the cause and the remedy. The exit code is 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CommandError(pub String);

impl CommandError {
    /// Returns an error with the sentence of another error.
    pub fn of(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// A data folder.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Whether it had no store and no keys.
    pub is_fresh: bool,
}

impl Folder {
    /// Opens a folder, and creates it if it does not exist.
    ///
    /// # Errors
    /// Fails if the folder cannot be created or read.
    pub fn at(path: &Path) -> Result<Self, CommandError> {
        let unusable = |error| {
            CommandError(format!(
                "the data folder {} cannot be used: {error}; make it writable, or name another with --data",
                path.display()
            ))
        };
        private_file::create_folder(path).map_err(unusable)?;
        // The keys are written before the store, so a folder without keys is new.
        let is_nothing = |entry: io::Result<fs::DirEntry>| {
            entry.is_ok_and(|entry| entry.file_name() == LOST_AND_FOUND)
        };
        let is_fresh = !path.join(SECRET_KEY).exists()
            && fs::read_dir(path).map_err(unusable)?.all(is_nothing);
        Ok(Self {
            path: path.to_owned(),
            is_fresh,
        })
    }

    /// Returns the secret key of the folder. Creates it if the folder is fresh.
    ///
    /// # Errors
    /// Fails if the key is missing from a folder with a store, or if the file cannot be read or written,
    /// or is invalid.
    pub fn secret_key(&self) -> Result<[u8; 32], CommandError> {
        let path = self.path.join(SECRET_KEY);
        if self.is_fresh {
            let mut key = [0; 32];
            fill(&mut key)?;
            // Never overwrites: of two concurrent first starts, one uses the key of the other.
            if self.create(SECRET_KEY, &credential::hex(&key))? {
                return Ok(key);
            }
        }
        if !path.exists() {
            return Err(CommandError(format!(
                "{} is missing, and the stored token keys are sealed with it: bring it back from a backup, or name another folder with --data",
                path.display()
            )));
        }
        secret_key(&path).map_err(CommandError)
    }

    /// Returns the admin key of the folder. Creates it if there is none.
    ///
    /// # Errors
    /// Fails if the file cannot be read or written, or is a broken symbolic link.
    pub fn admin_key(&self) -> Result<Secret, CommandError> {
        let path = self.path.join(ADMIN_KEY);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Secret::new(text.trim())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = credential::random(SecretKind::Admin);
                match self.create(ADMIN_KEY, key.expose())? {
                    true => Ok(key),
                    false => Err(CommandError(format!(
                        "{} is a link to nothing: mend or remove it",
                        path.display()
                    ))),
                }
            }
            Err(error) => Err(CommandError(format!(
                "{} cannot be read: {error}",
                path.display()
            ))),
        }
    }

    /// Writes a file that only its owner may read. Replaces an existing one.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn keep(&self, name: &str, text: &str) -> Result<(), CommandError> {
        let path = self.path.join(name);
        let write = || -> io::Result<()> {
            let mut file = Replacement::create(&path)?;
            file.write_all(format!("{text}\n").as_bytes())?;
            file.commit()
        };
        write().map_err(|error| unwritable(&path, &error))
    }

    /// Creates such a file. Returns false if the name is taken.
    fn create(&self, name: &str, text: &str) -> Result<bool, CommandError> {
        let path = self.path.join(name);
        let write = || -> io::Result<()> {
            let mut file = private_file::create_new(&path)?;
            file.write_all(format!("{text}\n").as_bytes())?;
            file.sync_all()
        };
        match write() {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(unwritable(&path, &error)),
        }
    }

    /// Returns the path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

fn unwritable(path: &Path, error: &io::Error) -> CommandError {
    CommandError(format!(
        "{} cannot be written: {error}; make the folder writable",
        path.display()
    ))
}

fn fill(bytes: &mut [u8]) -> Result<(), CommandError> {
    aws_lc_rs::rand::fill(bytes)
        .map_err(|_| CommandError("the system has no random numbers".into()))
}
