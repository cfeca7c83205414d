//! Cursors of lists: sealed, bound to the caller and its query, and valid for an hour.
//!
//! A cursor holds the key at which a page ended, which the caller may not be allowed to see. So it
//! is encrypted and authenticated with the deployment's secret key, and opens only for the same
//! caller, list and filters.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use protocol::codec::{from_msgpack, to_msgpack};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Services,
    credential::{Actor, Principal},
    error::{Error, Result},
};

/// Maximum size of the items of a reply, in bytes. The whole reply has at most 256 KiB.
pub const REPLY_BYTES: usize = 240 * 1024;

/// Lifetime of a cursor, in milliseconds.
const LIFETIME_MS: u64 = 3_600_000;

/// Maximum length of a cursor, in bytes. Valid ones have less than 300.
const MAX_LENGTH: usize = 512;

/// The caller, list and filters that a cursor is bound to.
#[derive(Debug, Clone)]
pub struct ListQuery(String);

/// The content of a cursor.
#[derive(Serialize, Deserialize)]
struct Sealed<T> {
    made_at: u64,
    position: T,
}

impl ListQuery {
    /// Returns the query of a list of an app's objects.
    pub fn of_actor(actor: &Actor, list: &str) -> Self {
        Self(format!("{}\0{list}", actor.identity()))
    }

    /// Returns the query of a list of organizations, apps or keys.
    pub fn of_principal(principal: &Principal, list: &str) -> Self {
        Self(format!("{}\0{list}", principal.identity()))
    }

    /// Adds a filter. An absent one differs from an empty one.
    #[must_use]
    pub fn with(mut self, part: Option<&str>) -> Self {
        self.0.push('\0');
        if let Some(part) = part {
            self.0.push('=');
            self.0.push_str(part);
        }
        self
    }
}

/// Returns the cursor of the position at which a page ended.
pub fn seal_cursor<T: Serialize>(services: &Services, query: &ListQuery, position: T) -> String {
    let plain = to_msgpack(&Sealed {
        made_at: services.clock.now_ms(),
        position,
    });
    URL_SAFE_NO_PAD.encode(services.secret.seal_cursor(&query.0, &plain))
}

/// Returns the position in a cursor of this query.
///
/// # Errors
/// `bad_request` if it belongs to another caller or query, was altered, or is older than an hour.
pub fn open_cursor<T: DeserializeOwned>(
    services: &Services,
    query: &ListQuery,
    cursor: &str,
) -> Result<T> {
    let refused =
        || Error::bad_request("`cursor` is not one that this list gave within the last hour");
    if cursor.len() > MAX_LENGTH {
        return Err(refused());
    }
    let sealed = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| refused())?;
    let plain = services
        .secret
        .open_cursor(&query.0, &sealed)
        .map_err(|_| refused())?;
    let Sealed { made_at, position } = from_msgpack(&plain).map_err(|_| refused())?;
    if services.clock.now_ms().saturating_sub(made_at) > LIFETIME_MS {
        return Err(refused());
    }
    Ok(position)
}
