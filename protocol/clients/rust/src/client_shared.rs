//! State that the handles of a client share with its task.

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{Session, machine::Machine};

/// State that [`Client`](crate::Client) handles share with the client's task.
#[derive(Debug)]
pub(crate) struct ClientShared {
    pub(crate) machine: Mutex<Machine>,
    pub(crate) session: Mutex<Option<Session>>,
    /// Wakes the task after a handle has changed the machine.
    pub(crate) wake: Notify,
}
