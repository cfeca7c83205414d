//! A resource that is held while subscribers catch up.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

/// Holds a resource, a semaphore permit for example, while subscribers catch up. Clones share it.
///
/// It is released when all subscriptions that were [started with
/// it](super::Joining::start_with_permit) are live, or as soon as one of them waits for its reader
/// or for the log.
#[derive(Clone)]
pub struct CatchUpPermit(Arc<Mutex<Option<Box<dyn Any + Send>>>>);

impl CatchUpPermit {
    /// Holds `resource` until it is released.
    pub fn new(resource: impl Any + Send) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(resource)))))
    }

    pub(super) fn none() -> Self {
        Self(Arc::default())
    }

    pub(super) fn release(&self) {
        let resource = self.0.lock().take();
        drop(resource);
    }
}

impl fmt::Debug for CatchUpPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CatchUpPermit").finish_non_exhaustive()
    }
}
