//! The bus of a single node: records reach its own listener, at once and in order.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Bus, BusError, Listener};
use crate::Topic;
use crate::sync::Topics;

/// A bus within the process. It loses nothing.
#[derive(Debug)]
pub struct Local {
    joined: Topics<()>,
    listener: Arc<dyn Listener>,
}

impl Local {
    /// A bus that passes records to `listener`, usually a [`HubListener`](crate::hub::HubListener).
    pub fn new(listener: Arc<dyn Listener>) -> Arc<Self> {
        Arc::new(Self {
            joined: Topics::new(),
            listener,
        })
    }

    /// Publishes a record on the caller's thread. A caller with several threads orders the records
    /// of a topic itself.
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
        self.joined.remove_all(topics);
    }

    fn is_connected(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::conformance;

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
    async fn local_bus_conforms() {
        conformance::suite(&Rig::default()).await;
    }
}
