//! Waiting until replicas have what a master was told.
//!
//! `WAIT` speaks of what its own connection wrote, and blocks it. So beside each command connection there is another to the same
//! server, opened with it and given up with it: a command was sent while both were open, hence to the same process. There a
//! tiny write follows the commands that are to be waited for, and `WAIT` after it; all who ask while one is under way share the next.

use std::time::Duration;

use redis::{RedisResult, Value, aio::MultiplexedConnection};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// How many replicas are to have a write, and how long that is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replicas {
    /// How many; at least one.
    pub count: u32,
    /// How long, once the master is asked.
    pub timeout: Duration,
}

/// Replicas may lack what was written: it is kept by the master, and may be lost with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unconfirmed(String);

/// Knows whether replicas have what a server has answered before.
#[derive(Debug, Clone)]
pub struct Witness(mpsc::Sender<Ask>);

#[derive(Debug)]
struct Ask {
    marker: String,
    answer: oneshot::Sender<Result<(), Unconfirmed>>,
}

/// How much later than `WAIT` itself promises its answer may come.
const GRACE: Duration = Duration::from_millis(500);
/// How many may ask at once; beyond it they wait to ask.
const ASKS: usize = 1024;
/// How long the tiny write stays, in milliseconds.
const MARKER_MS: u32 = 1000;

impl Witness {
    /// Begins on this connection. The work ends when nobody can ask any more, or with the connection.
    pub(super) fn begin(
        connection: MultiplexedConnection,
        replicas: Replicas,
    ) -> (Self, impl Future<Output = ()>) {
        let (asks, asked) = mpsc::channel(ASKS);
        (Self(asks), work(connection, replicas, asked))
    }

    /// Waits until enough replicas have everything that the server answered before this was called. `marker` is a key that the
    /// server keeps (on a Cluster, one of its slots), and that nothing else uses: it is written, and gone after a second.
    ///
    /// # Errors
    /// They did not say so in time, or the server did not.
    pub async fn confirm(&self, marker: String) -> Result<(), Unconfirmed> {
        let (answer, answered) = oneshot::channel();
        let lost =
            || Unconfirmed("the connection on which replicas are waited for is lost".to_owned());
        self.0
            .send(Ask { marker, answer })
            .await
            .map_err(|_| lost())?;
        answered.await.unwrap_or_else(|_| Err(lost()))
    }
}

async fn work(
    mut connection: MultiplexedConnection,
    replicas: Replicas,
    mut asked: mpsc::Receiver<Ask>,
) {
    let mut batch = Vec::new();
    // A marker that the server took before.
    let mut proven: Option<String> = None;
    while asked.recv_many(&mut batch, ASKS).await > 0 {
        while let Some(own) = batch.first().map(|ask| ask.marker.clone()) {
            // One marker stands for all: on one server, its place behind their writes is what counts. That of a slot that is
            // just leaving is refused there; then another slot's does.
            let mut answer = Ok(Err(Waited::Refused(String::new())));
            for marker in [Some(own.clone()), proven.clone()].into_iter().flatten() {
                answer = wait(&mut connection, &marker, replicas).await;
                if !matches!(answer, Ok(Err(Waited::Refused(_)))) {
                    proven = Some(marker);
                    break;
                }
            }
            let is_over = answer.is_err();
            let verdict = answer.unwrap_or_else(|error| {
                Err(Waited::InVain(format!(
                    "the replicas could not be waited for: {error}"
                )))
            });
            let (why, concerned): (_, Vec<Ask>) = match verdict {
                Ok(()) => (None, std::mem::take(&mut batch)),
                Err(Waited::InVain(why)) => (Some(why), std::mem::take(&mut batch)),
                // Of the others it says nothing.
                Err(Waited::Refused(why)) => (
                    Some(why),
                    batch.extract_if(.., |ask| ask.marker == own).collect(),
                ),
            };
            for ask in concerned {
                // Who does not wait any more need not be told.
                let _ = ask
                    .answer
                    .send(why.clone().map_or(Ok(()), |why| Err(Unconfirmed(why))));
            }
            if is_over {
                return;
            }
        }
    }
}

/// Why there is no confirmation.
enum Waited {
    /// The server did not take this marker.
    Refused(String),
    /// The replicas do not have it, or do not say so.
    InVain(String),
}

/// The outer error is the connection's.
async fn wait(
    connection: &mut MultiplexedConnection,
    marker: &str,
    replicas: Replicas,
) -> RedisResult<Result<(), Waited>> {
    let Replicas {
        count,
        timeout: patience,
    } = replicas;
    let millis = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
    let mut commands = redis::pipe();
    // A server to which the marker's slot is still moving takes it only so; on others it changes nothing, if they know it.
    commands.cmd("ASKING");
    commands
        .cmd("SET")
        .arg(marker)
        .arg("")
        .arg("PX")
        .arg(MARKER_MS)
        .cmd("WAIT")
        .arg(count)
        .arg(millis);
    let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, "Redis did not answer in time");
    let answers = timeout(
        patience + GRACE,
        connection.send_packed_commands(&commands, 0, 3),
    )
    .await
    .map_err(|_| late())??;
    let said = |error: &redis::ServerError| {
        format!(
            "Redis answered {} {}",
            error.code(),
            error.details().unwrap_or_default()
        )
    };
    Ok(match answers.as_slice() {
        [_, Value::ServerError(error), _] => Err(Waited::Refused(said(error))),
        [_, _, Value::ServerError(error)] => Err(Waited::InVain(said(error))),
        [_, _, Value::Int(have)] if *have >= i64::from(count) => Ok(()),
        [_, _, Value::Int(have)] => Err(Waited::InVain(format!(
            "{have} of the {count} replicas had it within {millis} ms"
        ))),
        other => Err(Waited::InVain(format!("Redis answered {other:?}"))),
    })
}
