//! The bus of a node that is alone: what it publishes it hears itself, at once and in order.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Bus, BusError, Listener};
use crate::Topic;
use crate::sync::Topics;

/// A bus within the process. Nothing is ever lost on it.
#[derive(Debug)]
pub struct Local {
    joined: Topics<()>,
    listener: Arc<dyn Listener>,
}

impl Local {
    /// A bus that tells `listener` (usually an [`Ear`](super::Ear)) what is published.
    pub fn new(listener: Arc<dyn Listener>) -> Arc<Self> {
        Arc::new(Self {
            joined: Topics::new(),
            listener,
        })
    }

    /// Publishes a record, on the caller's thread. Whoever publishes on one topic from several threads decides their order.
    pub fn publish(&self, topic: &str, record: Bytes) {
        if self.joined.get(topic).is_some() {
            self.listener.record(topic, record);
        }
    }
}

#[async_trait]
impl Bus for Local {
    async fn join(&self, topics: &[Topic]) -> Result<(), BusError> {
        for topic in topics {
            self.joined.get_or_insert_with(topic, Arc::default);
        }
        Ok(())
    }

    fn leave(&self, topics: &[Topic]) {
        for topic in topics {
            self.joined.remove(topic);
        }
    }

    fn is_connected(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Ear, conformance};

    #[derive(Debug, Default)]
    struct Rig(parking_lot::Mutex<Vec<Arc<Local>>>);

    #[async_trait]
    impl conformance::Rig for Rig {
        async fn bus(&self, listener: Arc<dyn Listener>) -> Arc<dyn Bus> {
            let bus = Local::new(listener);
            self.0.lock().push(Arc::clone(&bus));
            bus
        }

        async fn publish(&self, topic: &str, record: Bytes) {
            let buses = self.0.lock().clone();
            buses
                .iter()
                .for_each(|bus| bus.publish(topic, record.clone()));
        }
    }

    #[tokio::test]
    async fn the_local_bus_is_a_bus() {
        conformance::suite(&Rig::default()).await;
    }

    #[tokio::test]
    async fn an_ear_drops_what_comes_before_it_is_attached_and_holds_nobody_alive() {
        let ear = Ear::new();
        let listener = conformance::Recorder::new();
        ear.record("t", Bytes::from_static(b"early"));
        ear.attach(&listener);
        ear.record("t", Bytes::from_static(b"heard"));
        assert_eq!(listener.heard("t"), [Bytes::from_static(b"heard")]);
        drop(listener);
        ear.record("t", Bytes::from_static(b"late"));
        assert!(ear.listener().is_none());
    }
}
