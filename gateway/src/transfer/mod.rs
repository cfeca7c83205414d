//! `chaos export` and `chaos import`: moves an app between stores as lines of JSON.
//!
//! This module owns the list of an app's partitions, the line format, and the order of reads and
//! writes that makes a transfer safe. [`store::transfer`] reads and loads single partitions.
//!
//! **Export** reads every partition, then compares every partition's outline with the first
//! reading. It fails if the app was written to in between.
//!
//! **Import** loads the app's own partition last, after the footer was checked. All other
//! partitions are reachable through that one only, so the app does not exist until the import is
//! complete. The next attempt removes the partitions that an interrupted one left. An organization
//! that the store has must be equal in the file; it comes first there, so that a refused import
//! loads nothing.

mod content;
mod export;
mod import;
mod line;
mod load;
mod open_store;
mod partition_check;
mod partition_reader;
mod partitions;
mod progress;
mod references;
mod stored_organization;

pub use line::TransferCounts;

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter},
    path::Path,
};

use domain::credential::SecretKey;
use export::Exporter;
use import::Importer;
use line::{LineReader, LineWriter};
use open_store::OpenStore;
use progress::Progress;

use crate::{
    config::{Export, Import, StoreSettings},
    private_file::Replacement,
    start::CommandError,
};

/// Exports an app to a file or to standard output.
///
/// # Errors
/// Fails if the store cannot be opened, has another secret key or lacks the app, if the app was
/// written to during the export, or if the output cannot be written.
pub async fn export(settings: Export) -> Result<TransferCounts, CommandError> {
    let Export { app, to, store } = settings;
    let open = OpenStore::open_existing(&store).await?;
    let secret = store.secret_key()?;
    let exporter = Exporter {
        store: &*open.store,
        app: &app,
        secret: &secret,
        progress: Progress::new("exported"),
        clock_skew: open.clock_skew,
    };
    let done = match &to {
        None => {
            exporter
                .run(LineWriter::new(BufWriter::new(io::stdout().lock())))
                .await
        }
        Some(path) => to_file(exporter, path).await,
    };
    open.close().await;
    done
}

/// Imports an app into a store that does not have it.
///
/// # Errors
/// Fails if the input cannot be read or is not a complete export, if the secret keys differ, or if
/// the store cannot be opened or has the app already.
pub async fn import(settings: Import) -> Result<TransferCounts, CommandError> {
    let Import { from, store } = settings;
    match &from {
        None => import_from(LineReader::new(io::stdin().lock()), &store).await,
        Some(path) => {
            let unreadable = |error| {
                CommandError(format!(
                    "{} cannot be read ({error}): check its path and its permissions",
                    path.display()
                ))
            };
            import_from(
                LineReader::new(BufReader::new(File::open(path).map_err(unreadable)?)),
                &store,
            )
            .await
        }
    }
}

async fn import_from<R: io::BufRead>(
    mut lines: LineReader<R>,
    settings: &StoreSettings,
) -> Result<TransferCounts, CommandError> {
    let header = lines.header()?;
    let secret = settings.secret_key()?;
    if SecretKey::new(secret).fingerprint() != header.secret_key {
        return Err(CommandError(
            "the export is from a store with another secret key, which encrypts the app's token keys: pass that key with --secret-key-file".into(),
        ));
    }
    let open = OpenStore::open_or_create(settings, &secret).await?;
    let importer = Importer::new(open.store.clone(), &header, Progress::new("imported"));
    let done = importer.run(lines).await;
    open.close().await;
    done
}

/// Exports to a file that only its owner can read, and that appears under its name when it is
/// complete. A pipe or a device is written to directly.
///
/// # Errors
/// Fails if `path` is a symbolic link or cannot be written, or if the export fails.
async fn to_file(exporter: Exporter<'_>, path: &Path) -> Result<TransferCounts, CommandError> {
    let unwritable = |error: io::Error| {
        CommandError(format!(
            "{} cannot be written ({error}): name another file with --to",
            path.display()
        ))
    };
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_symlink() => {
            return Err(CommandError(format!(
                "{} is a link: name the file itself with --to, or - for standard output",
                path.display()
            )));
        }
        Ok(there) if !there.is_file() => {
            let file = File::options().write(true).open(path).map_err(unwritable)?;
            return exporter.run(LineWriter::new(BufWriter::new(file))).await;
        }
        _ => {}
    }
    let mut out = BufWriter::new(Replacement::create(path).map_err(unwritable)?);
    let counts = exporter.run(LineWriter::new(&mut out)).await?;
    out.into_inner()
        .map_err(io::IntoInnerError::into_error)
        .and_then(Replacement::commit)
        .map_err(unwritable)?;
    Ok(counts)
}
