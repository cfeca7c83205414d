//! Tests of the embedded engine: the conformance suite and its own.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod check;
mod child;
mod conversion;
mod crash;
mod damage;
mod flips;
mod folder;
mod layers;
mod reads;
mod recovery;
mod speed;
mod transfer;

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fanout::{
    Topic,
    bus::{Bus as _, Listener, Local},
};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Embedded, Options, checkpoint::Pieces, writer::CheckpointLimits};
use crate::{
    Keep, Store, Table,
    conformance::{Bench, conformance},
    transfer::Transfer,
};

/// Forwards published records to the receivers of their topic.
#[derive(Debug, Default)]
struct Receivers(Mutex<HashMap<String, Vec<UnboundedSender<Bytes>>>>);

impl Listener for Receivers {
    fn record(&self, topic: &str, record: Bytes) {
        for receiver in self.0.lock().get(topic).into_iter().flatten() {
            let _ = receiver.send(record.clone());
        }
    }

    fn missed(&self, _: Option<&[Topic]>) {}
}

struct EmbeddedBench {
    store: Arc<Embedded>,
    bus: Arc<Local>,
    receivers: Arc<Receivers>,
    offset: Arc<AtomicI64>,
    folder: TempDir,
}

/// Checks the store after each test.
impl Drop for EmbeddedBench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(
                check::findings(&self.store.disk, self.folder.path()),
                Vec::<String>::new()
            );
        }
    }
}

/// Limits with which a few commits cause a checkpoint.
const FREQUENT_CHECKPOINTS: CheckpointLimits = CheckpointLimits {
    bytes: 4 << 10,
    age: Duration::from_secs(300),
    max_bytes: 1 << 20,
    pieces: Pieces::DEFAULT,
};

/// Opens a store with a small map, which has to grow, frequent checkpoints, and a clock with an
/// offset.
fn open(path: &Path, keep: Keep, bus: Arc<Local>, offset: Arc<AtomicI64>) -> Embedded {
    let wall = || {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_millis() as u64
    };
    let clock = Arc::new(move || wall().saturating_add_signed(offset.load(Ordering::Relaxed)));
    Embedded::open_with(
        path,
        Options {
            keep,
            map_size: 64 * 1024,
            limits: FREQUENT_CHECKPOINTS,
            clock,
        },
        bus,
    )
    .unwrap()
}

/// Waits until the trees have all changes. Only after a change that is large enough for a checkpoint.
async fn checkpointed(store: &Embedded) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while store.disk.memory().bytes() > 0 {
        assert!(std::time::Instant::now() < deadline, "a checkpoint ends");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

impl Bench for EmbeddedBench {
    async fn start(keep: Keep) -> Self {
        let folder = TempDir::new().unwrap();
        let receivers = Arc::new(Receivers::default());
        let bus = Local::new(receivers.clone());
        let offset = Arc::new(AtomicI64::new(0));
        let store = Arc::new(open(folder.path(), keep, bus.clone(), offset.clone()));
        Self {
            store,
            bus,
            receivers,
            offset,
            folder,
        }
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    fn transfer(&self) -> Arc<dyn Transfer> {
        self.store.clone()
    }

    async fn listen(&self, topic: &Topic) -> UnboundedReceiver<Bytes> {
        let (sender, receiver) = unbounded_channel();
        self.receivers
            .0
            .lock()
            .entry(topic.to_string())
            .or_default()
            .push(sender);
        self.bus.join(std::slice::from_ref(topic)).await.unwrap();
        receiver
    }

    fn step_clock(&self, millis: i64) {
        self.offset.fetch_add(millis, Ordering::Relaxed);
    }
}

mod conformance_suite {
    use super::*;
    conformance!(EmbeddedBench);
}
