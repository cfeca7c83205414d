//! Why reads and writes of the trees fail.

use std::{io, time::Instant};

use fanout::LogRateLimit;
use heed::MdbError;

use super::layout::Unreadable;
use crate::StoreError;

/// The reason why a read or a write failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The storage failed, and with it the whole transaction.
    #[error(transparent)]
    Storage(#[from] heed::Error),
    /// A record cannot be decoded.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// A record is not as it was written.
    #[error("the value of key {key} in tree {tree} is not as it was written")]
    Damaged {
        /// Name of the tree.
        tree: &'static str,
        /// The key, escaped.
        key: String,
    },
    /// The call violates the interface; a defect of the caller.
    #[error("{0}")]
    Malformed(&'static str),
}

impl From<Fault> for heed::Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Storage(error) => error,
            fault => Self::Decoding(fault.into()),
        }
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Unreadable(_) | Fault::Damaged { .. } => {
                log_damage(&fault, &DAMAGES, Instant::now());
                Self::Corrupt(fault.to_string())
            }
            Fault::Storage(error) if has_no_room(&error) => Self::Full(error.to_string()),
            fault => Self::Unavailable(fault.to_string()),
        }
    }
}

/// Limit of log lines about damage: each read of a damaged record finds it again.
static DAMAGES: LogRateLimit = LogRateLimit::new(1);

fn log_damage(fault: &Fault, limit: &LogRateLimit, now: Instant) {
    if let Some(suppressed) = limit.pass(now) {
        tracing::error!(%fault, suppressed, "the store is damaged, `chaos check` tells more");
    }
}

/// Returns whether a write failed because the map is full.
pub(super) fn is_full(error: &heed::Error) -> bool {
    matches!(error, heed::Error::Mdb(MdbError::MapFull))
}

/// Returns whether a write failed because the map, the disk or a quota is full.
pub(super) fn has_no_room(error: &heed::Error) -> bool {
    match error {
        heed::Error::Io(error) => matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ),
        error => is_full(error),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use tracing::{Event, Metadata, Subscriber, span};

    use super::*;

    /// Counts log lines.
    #[derive(Clone, Default)]
    pub(in super::super) struct Lines(pub(in super::super) Arc<AtomicUsize>);

    impl Subscriber for Lines {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, _: &Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    #[test]
    fn damage_that_is_read_again_and_again_is_logged_once_a_second() {
        let lines = Lines::default();
        tracing::subscriber::with_default(lines.clone(), || {
            let (limit, start) = (LogRateLimit::new(1), Instant::now());
            for second in 0..3 {
                for _ in 0..100 {
                    let now = start + Duration::from_secs(second);
                    log_damage(&Fault::Unreadable(Unreadable), &limit, now);
                }
            }
            assert_eq!(lines.0.load(Ordering::Relaxed), 3);
            for _ in 0..1_000 {
                let _ = StoreError::from(Fault::Unreadable(Unreadable));
            }
        });
        assert!(lines.0.load(Ordering::Relaxed) < 1_003);
    }
}
