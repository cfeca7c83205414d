//! The bus over Redis pub/sub: `SUBSCRIBE` on a single server and at a Sentinel's master, `SSUBSCRIBE` on a Cluster.
//!
//! Owned here: who is listened to where, and that it stays so through restarts, hangs, failovers and moving slots.
//! Left out: publishing, which the store does.
//!
//! Each part has state that nobody else touches. A link is one subscriber connection. The servers are the links, and the
//! knowledge which of them a topic belongs to. The desk knows the topics, orders each where it belongs, and answers joins.
//! [`RedisBus`] is the handle on all of it.
//! Records go from the link's task straight to the listener; only joins and faults pass the desk.

mod desk;
mod link;
mod servers;
mod wire;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc::UnboundedSender, oneshot},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use super::{Bus, BusError, Listener};
use crate::{Topic, redis::Deployment};
use desk::{Desk, Request};

/// How long a join waits for its confirmations.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(4);

/// The ear of a node on a Redis deployment.
///
/// One connection, or on a Cluster one to each master that has slots. While the deployment cannot be reached, joins fail after
/// [`JOIN_TIMEOUT`] and what is joined stays wanted: when the server is back all of it is joined again, and the listener is
/// told, through [`Listener::missed`], which topics that concerns. A join that fails leaves its topics not joined, but for those that
/// were joined before or that another join waits for. Whoever drops a join before it returns does not know whether it
/// happened, and calls [`leave`](Bus::leave).
#[derive(Debug)]
pub struct RedisBus {
    requests: UnboundedSender<Request>,
    status: Arc<Status>,
    next_join: AtomicU64,
    _desk: AbortOnDropHandle<()>,
}

/// What the desk lets everybody see.
#[derive(Debug, Default)]
struct Status {
    connected: AtomicBool,
    /// The last fault's sentence, for the errors of joins.
    fault: Mutex<Option<String>>,
}

impl RedisBus {
    /// Starts connecting and returns at once, whether or not anything can be reached. Needs a tokio runtime. The bus ends when it is dropped.
    pub fn open(deployment: &Deployment, listener: Arc<dyn Listener>) -> Arc<Self> {
        let status = Arc::<Status>::default();
        let (desk, requests) = Desk::new(deployment.clone(), listener, status.clone());
        Arc::new(Self {
            requests,
            status,
            next_join: AtomicU64::new(0),
            _desk: AbortOnDropHandle::new(tokio::spawn(desk.run())),
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
        let number = self.next_join.fetch_add(1, Ordering::Relaxed);
        let join = Request::Join {
            number,
            topics: topics.to_vec(),
            done,
        };
        self.requests.send(join).map_err(|_| self.unavailable())?;
        let mut give_up = GiveUp {
            requests: &self.requests,
            number,
            armed: true,
        };
        let answer = timeout(JOIN_TIMEOUT, answer).await;
        give_up.armed = answer.is_err();
        match answer {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(self.unavailable()),
        }
    }

    fn leave(&self, topics: &[Topic]) {
        // Without a desk nothing is joined.
        let _ = self.requests.send(Request::Leave(topics.to_vec()));
    }

    fn is_connected(&self) -> bool {
        self.status.connected.load(Ordering::Relaxed)
    }
}

/// Takes a join back that ran out of time or was dropped.
struct GiveUp<'a> {
    requests: &'a UnboundedSender<Request>,
    number: u64,
    armed: bool,
}

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        if self.armed {
            let _ = self.requests.send(Request::GiveUp {
                number: self.number,
            });
        }
    }
}
