//! Waiting until replicas have received the writes of a master.
//!
//! `WAIT` concerns the writes of its own connection, and blocks it. Therefore each command
//! connection has a second connection to the same server, which is opened and closed together with
//! it: a command was sent while both were open, hence to the same process. On the second connection
//! a marker is written after the commands, followed by `WAIT`. Callers that arrive during a `WAIT`
//! share the next one.

use std::time::Duration;

use redis::{RedisResult, Value, aio::MultiplexedConnection};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// The replicas that must have a write, and the time to wait for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replicas {
    /// Number of replicas, at least one.
    pub count: u32,
    /// Maximum duration of `WAIT`.
    pub timeout: Duration,
}

/// Replicas may lack a write. The master has it, and it may be lost with the master.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unconfirmed(String);

/// Waits until replicas have the writes that a server has acknowledged.
#[derive(Debug, Clone)]
pub struct ReplicaAck(mpsc::Sender<AckRequest>);

#[derive(Debug)]
struct AckRequest {
    marker: String,
    answer: oneshot::Sender<Result<(), Unconfirmed>>,
}

/// Time for the reply of `WAIT` beyond its own timeout.
const REPLY_MARGIN: Duration = Duration::from_millis(500);
/// Maximum number of pending requests. Further callers wait.
const MAX_PENDING_REQUESTS: usize = 1024;
/// Expiry of the marker, in milliseconds.
const MARKER_EXPIRY_MS: u32 = 1000;

impl ReplicaAck {
    /// Returns a handle and the future that serves it on this connection. The future ends with the
    /// last handle or the connection.
    pub(crate) fn new(
        connection: MultiplexedConnection,
        replicas: Replicas,
    ) -> (Self, impl Future<Output = ()>) {
        let (requests, receiver) = mpsc::channel(MAX_PENDING_REQUESTS);
        (Self(requests), serve(connection, replicas, receiver))
    }

    /// Waits until enough replicas have all writes that the server acknowledged before this call.
    /// `marker` is an otherwise unused key of the server (on a Cluster, in one of its slots). It is
    /// written and expires after a second.
    ///
    /// # Errors
    /// The replicas or the server did not confirm in time.
    pub async fn confirm(&self, marker: String) -> Result<(), Unconfirmed> {
        let (answer, answered) = oneshot::channel();
        let lost = || Unconfirmed("the connection that waits for replicas is lost".to_owned());
        self.0
            .send(AckRequest { marker, answer })
            .await
            .map_err(|_| lost())?;
        answered.await.unwrap_or_else(|_| Err(lost()))
    }
}

async fn serve(
    mut connection: MultiplexedConnection,
    replicas: Replicas,
    mut requests: mpsc::Receiver<AckRequest>,
) {
    let mut batch = Vec::new();
    // A marker that the server accepted before.
    let mut accepted: Option<String> = None;
    while requests.recv_many(&mut batch, MAX_PENDING_REQUESTS).await > 0 {
        while let Some(own) = batch.first().map(|ask| ask.marker.clone()) {
            // One marker serves all requests: what counts is that it follows their writes on the
            // same server. A marker in a slot that is moving away is refused; then the marker of
            // another slot is used.
            let mut answer = Ok(Err(WaitError::MarkerRefused(String::new())));
            for marker in [Some(own.clone()), accepted.clone()].into_iter().flatten() {
                answer = wait(&mut connection, &marker, replicas).await;
                if !matches!(answer, Ok(Err(WaitError::MarkerRefused(_)))) {
                    accepted = Some(marker);
                    break;
                }
            }
            let is_connection_lost = answer.is_err();
            let outcome = answer.unwrap_or_else(|error| {
                Err(WaitError::Unreplicated(format!(
                    "cannot wait for replicas: {error}"
                )))
            });
            let (why, concerned): (_, Vec<AckRequest>) = match outcome {
                Ok(()) => (None, std::mem::take(&mut batch)),
                Err(WaitError::Unreplicated(why)) => (Some(why), std::mem::take(&mut batch)),
                // The markers of the other requests may be accepted.
                Err(WaitError::MarkerRefused(why)) => (
                    Some(why),
                    batch.extract_if(.., |ask| ask.marker == own).collect(),
                ),
            };
            for ask in concerned {
                // The caller may have been dropped.
                let _ = ask
                    .answer
                    .send(why.clone().map_or(Ok(()), |why| Err(Unconfirmed(why))));
            }
            if is_connection_lost {
                return;
            }
        }
    }
}

/// Why replicas did not confirm.
enum WaitError {
    /// The server refused this marker.
    MarkerRefused(String),
    /// The replicas did not confirm the write.
    Unreplicated(String),
}

/// Writes a marker and waits for replicas. The outer error is that of the connection.
async fn wait(
    connection: &mut MultiplexedConnection,
    marker: &str,
    replicas: Replicas,
) -> RedisResult<Result<(), WaitError>> {
    let Replicas {
        count,
        timeout: wait_timeout,
    } = replicas;
    let millis = u64::try_from(wait_timeout.as_millis()).unwrap_or(u64::MAX);
    let mut commands = redis::pipe();
    // A server that imports the marker's slot accepts the marker only after ASKING. Elsewhere
    // ASKING has no effect.
    commands.cmd("ASKING");
    commands
        .cmd("SET")
        .arg(marker)
        .arg("")
        .arg("PX")
        .arg(MARKER_EXPIRY_MS)
        .cmd("WAIT")
        .arg(count)
        .arg(millis);
    let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, "Redis did not answer in time");
    let answers = timeout(
        wait_timeout + REPLY_MARGIN,
        connection.send_packed_commands(&commands, 0, 3),
    )
    .await
    .map_err(|_| late())??;
    let reply = |error: &redis::ServerError| {
        format!(
            "Redis answered {} {}",
            error.code(),
            error.details().unwrap_or_default()
        )
    };
    Ok(match answers.as_slice() {
        [_, Value::ServerError(error), _] => Err(WaitError::MarkerRefused(reply(error))),
        [_, _, Value::ServerError(error)] => Err(WaitError::Unreplicated(reply(error))),
        [_, _, Value::Int(have)] if *have >= i64::from(count) => Ok(()),
        [_, _, Value::Int(have)] => Err(WaitError::Unreplicated(format!(
            "{have} of the {count} replicas had it within {millis} ms"
        ))),
        other => Err(WaitError::Unreplicated(format!("Redis answered {other:?}"))),
    })
}
