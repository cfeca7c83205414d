//! Requests with an `Idempotency-Key`: the first one is performed, and repeats receive its answer.
//!
//! A key has a partition for a day. It holds the hash of the body, the bits from which every id of
//! the request is made, a claim while the request is performed, and then the answer, without
//! secrets that are shown once. Repeats that arrive during the claim wait for the answer. The
//! answer of a request that created an entity is not kept: a repeat reads the current entity, which
//! lacks content that was deleted or edited since. A refused request changed nothing, so its answer
//! is not kept and a repeat is a new request. A request that failed without an answer is performed
//! again with the same bits, so that it finds the entities that it created before.

use std::time::Duration;

use protocol::ErrorCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{Commit, Expected, Partition, StoreError};
use tokio::time::{Instant, sleep};

use crate::{
    Services,
    credential::{Actor, Principal, Who, hex},
    document::{PutValue, decode},
    error::{Error, Result},
    random,
    schema::{self, ENTITY, ONLY},
};

/// Lifetime of an `Idempotency-Key`.
const KEY_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Maximum length of an `Idempotency-Key`, in bytes.
const MAX_KEY_BYTES: usize = 255;
/// Duration of a claim in milliseconds, longer than any request takes. A node that died leaves its
/// claim.
const CLAIM_MS: u64 = 15_000;
/// Maximum time that a repeat waits for the answer of the first request.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// Initial and maximum interval at which a repeat looks for the answer.
const INITIAL_POLL: Duration = Duration::from_millis(10);
const MAX_POLL: Duration = Duration::from_millis(200);

/// The claim of a request: no other node performs it.
#[derive(Debug, Clone)]
pub struct Once {
    partition: Partition,
    hash: [u8; 32],
    /// The bits of every id that the request makes.
    pub bits: u64,
    /// Version of the document with the claim.
    version: u64,
}

/// The state of an idempotency key.
#[derive(Debug, Clone)]
pub enum Begun {
    /// Nothing: perform it, then [`finish_once`].
    First(Once),
    /// The claim of a request that ended without an answer: perform it with the same bits, then
    /// call [`finish_once`].
    Again(Once),
    /// The answer of an earlier request.
    Answer {
        /// The bits of every id that the request made.
        bits: u64,
        /// The answer.
        answer: Answer,
    },
    /// The key was used with another body: `conflict`.
    Mismatch,
    /// The store has no room for a claim. Operations that free room are performed without one.
    Full(Error),
}

/// The answer of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The tag of the entity that was answered.
    pub etag: Option<String>,
    /// The body, without secrets; null if there was none or it is not kept.
    pub body: Value,
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    #[serde(with = "serde_bytes")]
    hash: Vec<u8>,
    bits: u64,
    /// When it was claimed, by the store's clock in milliseconds; 0 without a claim.
    claimed_at: u64,
    /// Status and JSON.
    answer: Option<(u16, String)>,
    /// The tag of the answer.
    #[serde(default)]
    etag: Option<String>,
}

/// Claims a request by its credential, route and key, or waits for the answer of the request
/// that holds the claim. `route` is method and path as asked, `body` the body's bytes.
pub async fn begin_once(
    services: &Services,
    principal: &Principal,
    route: &str,
    key: &str,
    body: &[u8],
) -> Result<Begun> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(Error::bad_request(format!(
            "`Idempotency-Key` has 1 to {MAX_KEY_BYTES} bytes"
        )));
    }
    let name = services.secret.derive(&[
        b"idempotency",
        credential(principal).as_bytes(),
        route.as_bytes(),
        key.as_bytes(),
    ]);
    let hash = services.secret.derive(&[b"body", body]);
    let partition = schema::idempotency(&hex(&name));
    let once = |bits, version| Once {
        partition: partition.clone(),
        hash,
        bits,
        version,
    };
    let (until, mut pause) = (Instant::now() + MAX_WAIT, INITIAL_POLL);
    loop {
        let document = services.entity(partition.clone()).await?;
        let now = services.clock.now_ms();
        let kept: Option<Kept> = document.as_ref().map(decode).transpose()?;
        let bits = kept.as_ref().map_or_else(random::bits, |kept| kept.bits);
        let is_free = match &kept {
            Some(kept) if kept.hash != hash => return Ok(Begun::Mismatch),
            Some(Kept {
                answer: Some((status, body)),
                etag,
                bits,
                ..
            }) => {
                let body = serde_json::from_str(body).map_err(Error::internal)?;
                return Ok(Begun::Answer {
                    bits: *bits,
                    answer: Answer {
                        status: *status,
                        etag: etag.clone(),
                        body,
                    },
                });
            }
            Some(kept) => kept.claimed_at + CLAIM_MS <= now,
            None => true,
        };
        if is_free {
            let claim = Kept {
                hash: hash.to_vec(),
                bits,
                claimed_at: now,
                answer: None,
                etag: None,
            };
            let is = Expected::unchanged(document.as_ref());
            let mut commit = Commit::default().require(ENTITY, ONLY, is);
            let claim = commit.add_value(ENTITY, ONLY, &claim);
            commit.expire = kept.is_none().then_some(KEY_LIFETIME);
            // Conflicts if another request claimed the key first, or its lifetime is over.
            let claimed = match services.store.commit(&partition, commit).await {
                Err(error @ StoreError::Full(_)) => return Ok(Begun::Full(error.into())),
                claimed => claimed?,
            };
            if let Ok(outcome) = claimed {
                let once = once(bits, outcome.version(claim));
                return Ok(if kept.is_none() {
                    Begun::First(once)
                } else {
                    Begun::Again(once)
                });
            }
        }
        if Instant::now() >= until {
            let sentence = "the first request with this Idempotency-Key is still under way; sending again is safe";
            return Err(Error::new(ErrorCode::Unavailable, sentence).retry_after(1000));
        }
        sleep(pause).await;
        pause = (pause * 2).min(MAX_POLL);
    }
}

/// Keeps the answer for repeats.
pub async fn finish_once(services: &Services, once: Once, answer: Answer) -> Result<()> {
    note_once(services, once, Some(answer)).await
}

/// Forgets a request that was refused, so that a repeat is a new request.
pub async fn forget_once(services: &Services, once: Once) -> Result<()> {
    let forgotten = Commit::default()
        .require(ENTITY, ONLY, Expected::Version(once.version))
        .delete(ENTITY, ONLY)
        .frees();
    // On a conflict another attempt took it over, or the day is over.
    let _ = services
        .commit(
            &once.partition,
            Commit {
                expire: Some(Duration::ZERO),
                ..forgotten
            },
        )
        .await?;
    Ok(())
}

/// Releases the claim of a request that failed or was cancelled, so that a repeat performs it.
pub async fn release_once(services: &Services, once: Once) -> Result<()> {
    note_once(services, once, None).await
}

async fn note_once(services: &Services, once: Once, answer: Option<Answer>) -> Result<()> {
    let etag = answer.as_ref().and_then(|answer| answer.etag.clone());
    let answer = answer.map(|answer| (answer.status, without_secrets(&answer.body).to_string()));
    let kept = Kept {
        hash: once.hash.to_vec(),
        bits: once.bits,
        claimed_at: 0,
        answer,
        etag,
    };
    // Allowed in a full store: the claim must not outlive its request.
    let commit = Commit::default()
        .require(ENTITY, ONLY, Expected::Version(once.version))
        .put_value(ENTITY, ONLY, &kept)
        .frees();
    // On a conflict another attempt with the same bits took it over, or the day is over.
    let _ = services.commit(&once.partition, commit).await?;
    Ok(())
}

/// Returns the name of the caller. All tokens of a user are one caller, because a repeat may come
/// with a newer token.
fn credential(principal: &Principal) -> String {
    match principal {
        Principal::Admin => "admin".to_owned(),
        Principal::Organization { key, .. }
        | Principal::Actor(Actor {
            who: Who::App { key },
            ..
        }) => key.to_string(),
        Principal::Actor(Actor {
            scope,
            who: Who::User { id, .. },
        }) => scope.user(id).name().to_owned(),
    }
}

/// Returns an answer without the secrets that are shown once. Entities have no fields of these
/// names, and free data is not touched.
fn without_secrets(body: &Value) -> Value {
    let mut body = body.clone();
    if let Some(fields) = body.as_object_mut() {
        fields.remove("secret");
        fields.remove("token");
        if let Some(key) = fields.get_mut("key").and_then(Value::as_object_mut) {
            key.remove("secret");
        }
    }
    body
}
