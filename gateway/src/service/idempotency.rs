//! Requests with an `Idempotency-Key`: the first one is done, the others are told what it did.
//!
//! What is kept is a partition per key, for a day: the hash of the body, the bits that every id of the request is made of,
//! and the answer once there is one, without secrets that are shown once. A request that died without an answer is done
//! again with the same bits, so that nothing is made twice.

use std::time::Duration;

use protocol::ErrorCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    ATTEMPTS, Services,
    document::decode,
    random,
    scope::{self, ENTITY, ONLY},
};
use crate::{
    auth::{Actor, Principal, Who, hex},
    error::{Error, Result},
    store::{Commit, Expected, Partition},
};

/// How long a key is remembered.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The longest `Idempotency-Key`, in bytes.
const LONGEST: usize = 255;

/// A request that is done at most once.
#[derive(Debug, Clone)]
pub struct Once {
    partition: Partition,
    hash: [u8; 32],
    /// The bits of every id that the request makes.
    pub bits: u64,
}

/// What to do with a request.
#[derive(Debug, Clone)]
pub enum Begun {
    /// It is the first: do it, then [`Services::finish_once`].
    First(Once),
    /// Another began and has not answered (it may still run): do it with the same bits, then likewise.
    Again(Once),
    /// It was done.
    Answer {
        /// The HTTP status.
        status: u16,
        /// The body, without secrets; null if there was none.
        body: Value,
    },
    /// The key was used with another body: `conflict`.
    Mismatch,
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    #[serde(with = "serde_bytes")]
    hash: Vec<u8>,
    bits: u64,
    /// Status and JSON.
    answer: Option<(u16, String)>,
}

impl Services {
    /// Notes a request by its credential, route and key. `route` is method and path as asked, `body` the body's bytes.
    pub async fn begin_once(
        &self,
        principal: &Principal,
        route: &str,
        key: &str,
        body: &[u8],
    ) -> Result<Begun> {
        if key.is_empty() || key.len() > LONGEST {
            return Err(Error::bad_request(format!(
                "`Idempotency-Key` has 1 to {LONGEST} bytes"
            )));
        }
        let name = self.secret.derive(&[
            b"idempotency",
            credential(principal).as_bytes(),
            route.as_bytes(),
            key.as_bytes(),
        ]);
        let hash = self.secret.derive(&[b"body", body]);
        let partition = scope::idempotency(&hex(&name));
        let once = |bits| Once {
            partition: partition.clone(),
            hash,
            bits,
        };
        for _ in 0..ATTEMPTS {
            let bits = random::bits();
            let kept = Kept {
                hash: hash.to_vec(),
                bits,
                answer: None,
            };
            let commit = Commit::default()
                .require(ENTITY, ONLY, Expected::Absent)
                .put(ENTITY, ONLY, &kept);
            let commit = Commit {
                expire: Some(DAY),
                ..commit
            };
            if self.store.commit(&partition, commit).await?.is_ok() {
                return Ok(Begun::First(once(bits)));
            }
            let snapshot = self
                .snapshot(partition.clone(), vec![(ENTITY, ONLY.into())])
                .await?;
            // Absent: it ended in between.
            let Some(document) = &snapshot.documents[0] else {
                continue;
            };
            let kept: Kept = decode(document)?;
            if kept.hash != hash {
                return Ok(Begun::Mismatch);
            }
            return match kept.answer {
                None => Ok(Begun::Again(once(kept.bits))),
                Some((status, body)) => Ok(Begun::Answer {
                    status,
                    body: serde_json::from_str(&body).map_err(Error::internal)?,
                }),
            };
        }
        Err(Error::busy())
    }

    /// Keeps the answer for those who ask again. Answers that may be other ones next time (`rate_limited`, `internal`,
    /// `unavailable`) are not kept. The first answer stays.
    pub async fn finish_once(&self, once: Once, status: u16, body: &Value) -> Result<()> {
        if status >= 500 || status == ErrorCode::RateLimited.status() {
            return Ok(());
        }
        let answer = Some((status, without_secrets(body).to_string()));
        let kept = Kept {
            hash: once.hash.to_vec(),
            bits: once.bits,
            answer,
        };
        let commit = Commit::default()
            .require(ENTITY, ONLY, Expected::Version(1))
            .put(ENTITY, ONLY, &kept);
        // On a conflict another attempt with the same bits was faster, or the day is over.
        let _ = self.store.commit(&once.partition, commit).await?;
        Ok(())
    }
}

/// Whose requests these are. Tokens of one user are one credential: a retry may come with a newer one.
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

/// An answer without what is shown once. Entities of apps have no field of these names; their free data is left alone.
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
