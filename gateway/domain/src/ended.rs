//! The log of ended sessions. Through it, every node ends its sessions within seconds after a
//! revocation on another node.
//!
//! A revocation, a deletion or a disconnect appends to the deployment's log. The [`Follower`] of
//! every node polls the log and passes each entry on once and in order. This module does not know
//! sessions.
//!
//! A lost entry would leave a session alive that was ended. A follower that cannot go on from its
//! position has the node verify the tokens of all sessions again ([`EndedHandler::all`]).

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use protocol::{AppId, CloseCode, TokenKeyId, UserId, codec, entity::Environment};
use serde::{Deserialize, Serialize};
use store::{Append, Commit, Continuity, Control, EventBody, Keep, Position, Stamps};

use crate::{
    Services,
    document::encode,
    error::Result,
    schema::{self, Scope},
};

/// The kind of these entries in the deployment's log, beyond the protocol's events.
const KIND: u8 = 128;

/// Returns the second up to which a user's tokens are refused, from the stamps of its
/// [`REVOCATION`](schema::REVOCATION): the time of the newest revoking commit by the store's clock.
pub fn revoked_second(stamps: &Stamps) -> u64 {
    stamps.edited_at.max(stamps.created_at) / 1000
}

/// Retention of the log, independent of the limits of channels. Far more entries than are written
/// between two polls.
const KEPT_LOG: Keep = Keep {
    events: 100_000,
    bytes: 0,
};

/// Interval at which a node polls the log.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Entries that are read at once.
const ENTRIES_PER_READ: usize = 200;

/// The sessions that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// Sessions of a user.
    User {
        /// App of the user.
        app: AppId,
        /// Environment of the user.
        environment: Environment,
        /// The user.
        user: UserId,
        /// Only sessions whose token's `iat` is not later than this second; all if absent.
        issued_until: Option<u64>,
        /// Close code: 4004 or 1001.
        close: u16,
    },
    /// Sessions that tokens of this key opened (4004).
    TokenKey {
        /// The token key.
        id: TokenKeyId,
    },
    /// All sessions of an app (4004).
    App {
        /// The app.
        id: AppId,
    },
}

impl Ending {
    /// Sessions of a user.
    pub fn user(scope: &Scope, user: &UserId, issued_until: Option<u64>, close: CloseCode) -> Self {
        let Scope { app, environment } = scope.clone();
        Self::User {
            app,
            environment,
            user: user.clone(),
            issued_until,
            close: close.code(),
        }
    }

    /// Returns the code with which these sessions close.
    pub fn close(&self) -> CloseCode {
        match self {
            Self::User { close, .. } => CloseCode::of(*close).unwrap_or(CloseCode::SessionEnded),
            Self::TokenKey { .. } | Self::App { .. } => CloseCode::SessionEnded,
        }
    }
}

/// A node's reaction to ended sessions.
#[async_trait]
pub trait EndedHandler: Send + Sync {
    /// Ends the sessions that began before `at`, in milliseconds by the store's clock. A client may
    /// have connected again since.
    async fn ended(&self, what: &Ending, at: u64);

    /// Verifies the tokens of all sessions again, because entries may have been missed.
    async fn all(&self);
}

/// Ends sessions on all nodes.
pub async fn end_sessions(services: &Services, what: Ending) -> Result<()> {
    services
        .commit_or_busy(&schema::deployment(), append(&what, Commit::default()))
        .await?;
    services.ended.notify_one();
    Ok(())
}

/// Appends an ending to a commit of the deployment.
pub(super) fn append(what: &Ending, mut commit: Commit) -> Commit {
    commit.append.push(Append {
        kind: KIND,
        reference: encode(what),
        control: Control::None,
        body: EventBody::Bytes(encode(&()), None),
    });
    commit.keep = Some(KEPT_LOG);
    commit.frees()
}

/// Reads the log on behalf of one node.
pub struct Follower {
    services: Services,
    position: Position,
    handler: Arc<dyn EndedHandler>,
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower")
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl Follower {
    /// Starts at the log's head. Sessions opened later are checked against the stored revocations.
    pub async fn start(services: Services, handler: Arc<dyn EndedHandler>) -> Result<Self> {
        let snapshot = services.snapshot(schema::deployment(), Vec::new()).await?;
        Ok(Self {
            position: snapshot.head.position(),
            services,
            handler,
        })
    }

    /// Polls the log every second, and at once after this node ended sessions.
    pub async fn run(mut self) {
        loop {
            if let Err(error) = self.poll().await {
                tracing::warn!(%error, "cannot read the log of ended sessions, will retry: sessions that another node ended stay open meanwhile");
            }
            tokio::select! {
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                () = self.services.ended.notified() => {}
            }
        }
    }

    /// Compares the clocks and passes on the new entries of the log.
    pub async fn poll(&mut self) -> Result<()> {
        // Reading the store's clock may fail where the log can still be read.
        if let Err(error) = self.compare_clocks().await {
            tracing::warn!(%error, "cannot read the store's clock, will retry");
        }
        self.read_log().await
    }

    async fn read_log(&mut self) -> Result<()> {
        loop {
            let log = self
                .services
                .store
                .log(&schema::deployment(), self.position, ENTRIES_PER_READ)
                .await?;
            if log.continuity != Continuity::Continuous {
                tracing::warn!(continuity = ?log.continuity, "entries of ended sessions were missed: all sessions are checked");
                self.handler.all().await;
                self.position = log.head.position();
                return Ok(());
            }
            for entry in &log.entries {
                self.position = entry.position;
                if entry.kind != KIND {
                    continue;
                }
                match codec::from_msgpack::<Ending>(&entry.reference) {
                    Ok(what) => self.handler.ended(&what, entry.position.at).await,
                    Err(error) => {
                        tracing::error!(%error, "an entry of ended sessions cannot be read: all sessions are checked");
                        self.handler.all().await;
                    }
                }
            }
            if self.position.seq >= log.head.seq || log.entries.is_empty() {
                return Ok(());
            }
        }
    }

    /// Estimates the store's clock. The answer is taken to be from the middle between question and
    /// receipt.
    async fn compare_clocks(&self) -> Result<()> {
        let clock = &self.services.clock;
        let asked = clock.machine_ms();
        let store = self.services.store.now().await?;
        clock.adjust(store, asked + clock.machine_ms().saturating_sub(asked) / 2);
        Ok(())
    }
}
