//! The memory budget for records that the topics of a hub keep.

use std::sync::Arc;

use crate::sync::atomic::{AtomicUsize, Ordering};

/// Counts the bytes of records that all topics of a hub keep, against a limit.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicUsize::new(0),
        })
    }

    /// Opens an empty account.
    pub(super) fn open(self: &Arc<Self>) -> Account {
        Account {
            budget: Arc::clone(self),
            bytes: 0,
        }
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// The part of a budget that one queue uses. Dropping it returns its bytes.
#[derive(Debug)]
pub(super) struct Account {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Account {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.budget.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn subtract(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn clear(&mut self) {
        self.subtract(self.bytes);
    }

    /// Returns whether all accounts together exceed the limit.
    pub(super) fn is_overdrawn(&self) -> bool {
        self.budget.used.load(Ordering::Relaxed) > self.budget.limit
    }

    /// Opens an empty account of the same budget.
    pub(super) fn open(&self) -> Self {
        self.budget.open()
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.clear();
    }
}
