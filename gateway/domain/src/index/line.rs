//! Lines of a user's index of channels.

use protocol::UserId;
use serde::{Deserialize, Serialize};
use store::{Document, Expected};

use crate::{
    credential::Actor,
    document::decode,
    error::{Error, Result},
};

/// Additions by other users leave this part of `channels_per_user` free: a tenth.
const RESERVE_DIVISOR: u64 = 10;

/// The origin of an addition to a channel, which decides the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Additions {
    /// The user itself or the app's backend: up to the limit.
    Own,
    /// Another user: up to nine tenths of the limit.
    ByOthers,
}

impl Additions {
    /// Returns the kind of an addition of `user` by `actor`.
    pub(crate) fn of(actor: &Actor, user: &UserId) -> Self {
        if actor.user().is_none_or(|own| own == user) {
            Self::Own
        } else {
            Self::ByOthers
        }
    }

    /// Returns the maximum number of the user's channels after the addition.
    pub(crate) fn max(self, limit: u64) -> u64 {
        match self {
            Self::Own => limit,
            Self::ByOthers => limit - limit / RESERVE_DIVISOR,
        }
    }

    pub(crate) fn refusal(self, user: &UserId, limit: u64) -> Error {
        let mut error = Error::limit_reached("channels_per_user", limit);
        error.body.message = match self {
            Self::Own => format!(
                "user `{user}` is in {limit} channels, which is its limit `channels_per_user`"
            ),
            Self::ByOthers => format!(
                "user `{user}` is in {} of {limit} channels (`channels_per_user`); what is left is for the user itself and for app keys",
                self.max(limit)
            ),
        };
        error
    }
}

/// The state of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Indexed {
    /// Written before the channel. Whether the user is in the channel is up to the channel.
    Pending,
    /// Written after the channel.
    Confirmed,
}

/// A line of the index that was read.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// State of the line.
    pub is: Indexed,
    /// The version of its document.
    pub version: u64,
    /// When an addition last wrote it, in milliseconds since the Unix epoch.
    pub since: u64,
    /// Whether the current request wrote it first. Nothing else relies on it unless its version
    /// changes.
    pub is_new: bool,
}

impl Line {
    /// Decodes a stored line.
    pub fn of(document: &Document) -> Result<Self> {
        let since = document.stamps.created_at.max(document.stamps.edited_at);
        Ok(Self {
            is: decode(document)?,
            version: document.version,
            since,
            is_new: false,
        })
    }

    pub(crate) fn is_confirmed(self) -> bool {
        self.is == Indexed::Confirmed
    }

    pub(crate) fn expected(line: Option<Self>) -> Expected {
        line.map_or(Expected::Absent, |line| Expected::Version(line.version))
    }
}

/// The state of a user's index before the user is added to a channel.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Coming {
    /// The line is pending.
    Ready(Line),
    /// Another request added the user meanwhile.
    IsIn,
    /// The user does not exist.
    IsNobody,
}
