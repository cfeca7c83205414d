//! The bus over Redis pub/sub: `SUBSCRIBE` on a single server and at a Sentinel's master,
//! `SSUBSCRIBE` on a Cluster.
//!
//! Owned here: subscriptions, which survive restarts, hangs, failovers and moving slots. Left out:
//! publishing, which the store does, and connections ([`chaos_redis`]).
//!
//! A [`Link`](link::Link) is one subscriber connection. [`Servers`](servers::Servers) holds the
//! links and knows the server of each topic. The [`SubscriptionRegistry`] assigns topics to links
//! and completes joins. [`RedisBus`] is the handle to the registry. Records go directly from a
//! link's task to the listener.

mod link;
mod registry;
mod servers;
mod status;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use chaos_redis::{Deployment, Names};
use tokio::{
    sync::{mpsc::UnboundedSender, oneshot},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use super::{Bus, BusError, Listener};
use crate::Topic;
use registry::{RegistryRequest, SubscriptionRegistry};
use status::Status;

/// Maximum time that a join waits for its confirmations.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(4);

/// A node's bus on a Redis deployment.
///
/// Holds one connection, or on a Cluster one to each master that has slots. While the deployment
/// cannot be reached, joins fail after [`JOIN_TIMEOUT`], and joined topics stay joined: when the
/// server is back they are subscribed to again, and [`Listener::missed`] is called with them. A
/// join that fails leaves its topics not joined, except those that were joined before or that
/// another join waits for. After dropping a join before it returns, call [`leave`](Bus::leave): it
/// may have succeeded.
#[derive(Debug)]
pub struct RedisBus {
    requests: UnboundedSender<RegistryRequest>,
    status: Arc<Status>,
    next_join: AtomicU64,
    _registry: AbortOnDropHandle<()>,
}

impl RedisBus {
    /// Starts connecting and returns at once. Needs a tokio runtime. The bus ends when it is
    /// dropped.
    pub fn open(deployment: &Deployment, names: Names, listener: Arc<dyn Listener>) -> Arc<Self> {
        let status = Arc::<Status>::default();
        let (registry, requests) =
            SubscriptionRegistry::new(deployment.clone(), names, listener, status.clone());
        let registry = AbortOnDropHandle::new(tokio::spawn(registry.run()));
        Arc::new(Self {
            requests,
            status,
            next_join: AtomicU64::new(0),
            _registry: registry,
        })
    }

    fn unavailable(&self) -> BusError {
        let fault = self.status.fault.lock().clone();
        BusError(
            fault.unwrap_or_else(|| "Redis has not confirmed the subscription in time".to_owned()),
        )
    }
}

#[async_trait]
impl Bus for RedisBus {
    async fn join(&self, topics: &[Topic]) -> Result<(), BusError> {
        if topics.is_empty() {
            return Ok(());
        }
        let (done, answer) = oneshot::channel();
        let join = self.next_join.fetch_add(1, Ordering::Relaxed);
        self.requests
            .send(RegistryRequest::Join {
                join,
                topics: topics.to_vec(),
                done,
            })
            .map_err(|_| self.unavailable())?;
        let mut guard = CancelOnDrop {
            requests: &self.requests,
            join,
            is_armed: true,
        };
        let answer = timeout(JOIN_TIMEOUT, answer).await;
        guard.is_armed = answer.is_err();
        match answer {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(self.unavailable()),
        }
    }

    fn leave(&self, topics: &[Topic]) {
        // Without a registry nothing is joined.
        let _ = self.requests.send(RegistryRequest::Leave(topics.to_vec()));
    }

    fn is_connected(&self) -> bool {
        self.status.is_connected.load(Ordering::Relaxed)
            && !self.status.is_forbidden.load(Ordering::Relaxed)
    }

    fn is_partly_connected(&self) -> bool {
        self.status.is_partly_connected.load(Ordering::Relaxed)
            && !self.status.is_forbidden.load(Ordering::Relaxed)
    }
}

/// Cancels a join that timed out or was dropped.
struct CancelOnDrop<'a> {
    requests: &'a UnboundedSender<RegistryRequest>,
    join: u64,
    is_armed: bool,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if self.is_armed {
            let _ = self
                .requests
                .send(RegistryRequest::CancelJoin { join: self.join });
        }
    }
}
