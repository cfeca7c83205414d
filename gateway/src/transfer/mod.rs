//! An app on its way from one store to another, as lines of JSON: `chaos export` and
//! `chaos import`.
//!
//! Owned here: which partitions an app consists of, the lines, and the order that makes a move
//! safe. Left out: how an engine gives and takes a partition ([`store::transfer`]).
//!
//! **Out**: everything is read, then everything is looked at again: an app that somebody wrote to
//! meanwhile is no export.
//!
//! **In**: nothing of an app can be reached but by its own partition, and that is given its last
//! piece at the very end, after the footer agreed with all before. Until then there is no such app,
//! and a next attempt takes away what this one left.

mod content;
mod export;
mod ground;
mod import;
mod line;
mod parts;
mod progress;
mod references;
mod walk;

pub use line::Counts;

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter},
    path::Path,
};

use domain::credential::SecretKey;
use export::Exporter;
use ground::Ground;
use import::Importer;
use line::{Reader, Writer};
use progress::Progress;

use crate::{
    config::{Export, Import, StoreSettings},
    private_file::Replacement,
    start::StartError,
};

/// Exports an app to a file or to standard output.
///
/// # Errors
/// Fails if the store cannot be opened, has another secret key or lacks the app, if the app was
/// written to during the export, or if the output cannot be written.
pub async fn export(settings: Export) -> Result<Counts, StartError> {
    let Export { app, to, store } = settings;
    let ground = Ground::to_read(&store).await?;
    let secret = store.secret_key()?;
    let exporter = Exporter {
        store: &*ground.store,
        app: &app,
        secret: &secret,
        progress: Progress::new("exported"),
        settle: ground.settle,
    };
    let done = match &to {
        None => {
            exporter
                .run(Writer::new(BufWriter::new(io::stdout().lock())))
                .await
        }
        Some(path) => to_file(exporter, path).await,
    };
    ground.close().await;
    done
}

/// Imports an app into a store that does not have it.
///
/// # Errors
/// Fails if the input cannot be read or is not a complete export, if the secret keys differ, or if
/// the store cannot be opened or has the app already.
pub async fn import(settings: Import) -> Result<Counts, StartError> {
    let Import { from, store } = settings;
    match &from {
        None => import_from(Reader::new(io::stdin().lock()), &store).await,
        Some(path) => {
            let unread = |error| {
                StartError(format!(
                    "{} cannot be read ({error}): mend its path or its permissions",
                    path.display()
                ))
            };
            import_from(
                Reader::new(BufReader::new(File::open(path).map_err(unread)?)),
                &store,
            )
            .await
        }
    }
}

async fn import_from<R: io::BufRead>(
    mut lines: Reader<R>,
    settings: &StoreSettings,
) -> Result<Counts, StartError> {
    let header = lines.header()?;
    let secret = settings.secret_key()?;
    if SecretKey::new(secret).fingerprint() != header.secret_key {
        return Err(StartError(
            "the export is of a store with another secret key, under which the app's token keys are sealed: give the same one by --secret-key-file".into(),
        ));
    }
    let ground = Ground::to_write(settings, &secret).await?;
    let importer = Importer::new(ground.store.clone(), &header, Progress::new("imported"));
    let done = importer.run(lines).await;
    ground.close().await;
    done
}

/// Writes to a file that takes its name when it is whole, for its owner alone: it holds what
/// everybody wrote. A link is not followed; a pipe or device is written to.
async fn to_file(exporter: Exporter<'_>, path: &Path) -> Result<Counts, StartError> {
    let unwritten = |error: io::Error| {
        StartError(format!(
            "{} cannot be written ({error}): name another file with --to",
            path.display()
        ))
    };
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_symlink() => {
            return Err(StartError(format!(
                "{} is a link: name the file itself with --to, or - for standard output",
                path.display()
            )));
        }
        Ok(there) if !there.is_file() => {
            let file = File::options().write(true).open(path).map_err(unwritten)?;
            return exporter.run(Writer::new(BufWriter::new(file))).await;
        }
        _ => {}
    }
    let mut out = BufWriter::new(Replacement::create(path).map_err(unwritten)?);
    let counts = exporter.run(Writer::new(&mut out)).await?;
    out.into_inner()
        .map_err(io::IntoInnerError::into_error)
        .and_then(Replacement::commit)
        .map_err(unwritten)?;
    Ok(counts)
}
