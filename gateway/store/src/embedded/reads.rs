//! The threads of reads: small ones run on the caller's thread, large ones on blocking threads, a
//! few at a time.
//!
//! A look-up takes a microsecond or two while its page is in memory, so a small read takes less
//! time than handing it to another thread. A large one (hundreds of channels, a long page, a piece
//! of a walk) would block the other tasks of the runtime's worker.

use std::sync::Arc;

use fanout::fair::{FairPermits, Party};
use tokio::time::timeout;

use super::{Clock, disk::Disk, fault::Fault, view::View};
use crate::{DEADLINE, MAX_WAITING_READS, StoreError, turn};

/// Maximum look-ups of a read on the caller's thread: some tens of microseconds.
const INLINE_LOOKUPS: usize = 32;

/// The reading side of the store.
pub(super) struct Reads {
    disk: Arc<Disk>,
    clock: Clock,
    /// Permits of large reads, in turns between tenants and their users. Half of the cores are left
    /// for small reads.
    pub(super) large: Arc<FairPermits>,
    pub(super) at_once: usize,
}

impl Reads {
    pub(super) fn new(disk: Arc<Disk>, clock: Clock) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let at_once = (cores / 2).max(1);
        Self {
            disk,
            clock,
            large: FairPermits::with_queue(at_once, MAX_WAITING_READS),
            at_once,
        }
    }

    /// Waits for the large reads in progress, also those whose callers stopped waiting.
    pub(super) async fn finish(&self) {
        // Each read ends by itself. Does not wait for a disk that hangs.
        let all = async {
            let mut permits = Vec::with_capacity(self.at_once);
            while permits.len() < self.at_once {
                permits.push(self.large.acquire(Party::default()).await);
            }
        };
        let _ = timeout(DEADLINE, all).await;
    }

    /// Reads at one instant. `lookups` is the maximum number of documents or entries that the read
    /// looks up.
    pub(super) async fn view<T: Send + 'static>(
        &self,
        lookups: usize,
        read: impl FnOnce(View<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (disk, now) = (self.disk.clone(), (self.clock)());
        let read = move || disk.read(|trees| read(View::new(trees, now)));
        if lookups <= INLINE_LOOKUPS {
            return Ok(read()?);
        }
        let large = async {
            let permit = turn(&self.large).await?;
            // The thread holds the permit: the read continues if its caller stops waiting.
            tokio::task::spawn_blocking(move || {
                let done = read();
                drop(permit);
                done
            })
            .await
            .map_err(|error| StoreError::Unavailable(format!("a read ended in a panic: {error}")))
        };
        match timeout(DEADLINE, large).await {
            Ok(read) => Ok(read??),
            Err(_) => Err(StoreError::Unavailable(
                "the disk does not answer a read".to_owned(),
            )),
        }
    }
}
