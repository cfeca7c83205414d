//! An app on its way from one store to another, as lines of JSON: `chaos export` and `chaos import`.
//!
//! Owned here: which partitions an app consists of, the lines, and the order that makes a move safe. Left out: how an engine
//! gives and takes a partition ([`crate::store::transfer`]).
//!
//! **Out**: everything is read, then everything is looked at again: an app that somebody wrote to meanwhile is no export.
//!
//! **In**: nothing of an app can be reached but by its own partition, and that is given its last piece at the very end, after
//! the footer agreed with all before. Until then there is no such app, and a next attempt takes away what this one left.

mod content;
mod export;
mod ground;
mod import;
mod line;
mod parts;
mod progress;
mod walk;

pub use line::Counts;

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::{
    auth::{self, SecretKey},
    config::{Export, Import, StoreSettings},
    start::StartError,
};
use export::Exporter;
use ground::Ground;
use import::Importer;
use line::{Reader, Writer};
use progress::Progress;

/// Writes an app.
///
/// # Errors
/// A sentence for the operator.
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

/// Reads an app into a store that does not have it.
///
/// # Errors
/// A sentence for the operator.
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
    if fingerprint(&secret) != header.secret_key {
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

/// Writes beside the file and renames at the end, so that there is a whole one under its name, or the one that was there.
async fn to_file(exporter: Exporter<'_>, path: &Path) -> Result<Counts, StartError> {
    let unwritten = |error: io::Error| {
        StartError(format!(
            "{} cannot be written ({error}): name another file with --to",
            path.display()
        ))
    };
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        let file = File::options().write(true).open(path).map_err(unwritten)?;
        return exporter.run(Writer::new(BufWriter::new(file))).await;
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    // It holds what everybody wrote: it is for its owner alone.
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)
        .map_err(unwritten)?;
    let mut out = BufWriter::new(file);
    let done = exporter.run(Writer::new(&mut out)).await;
    let kept = done.and_then(|counts| {
        out.flush()
            .and_then(|()| out.get_ref().sync_all())
            .and_then(|()| fs::rename(&partial, path))
            .map_err(unwritten)?;
        Ok(counts)
    });
    if kept.is_err() {
        // What is left of it is no export.
        let _ = fs::remove_file(&partial);
    }
    kept
}

/// What tells a secret key from others without telling it.
fn fingerprint(secret: &[u8; 32]) -> String {
    auth::hex(&SecretKey::new(*secret).derive(&[b"fingerprint"])[..16])
}
