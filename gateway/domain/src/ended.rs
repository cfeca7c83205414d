//! The log of ended sessions: how every node hears, within seconds, of what ended elsewhere.
//!
//! Who ends sessions (a revocation, a deletion, a disconnect) appends to the deployment's log;
//! every node's [`Follower`] polls it and tells the node's sessions, in order and each once.
//! Nothing here knows a session.
//!
//! Losing an entry would leave a session alive that must not be: a follower that cannot go on from
//! its position has all sessions ask again ([`Ended::all`]).

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use protocol::{AppId, CloseCode, TokenKeyId, UserId, codec, entity::Environment};
use serde::{Deserialize, Serialize};
use store::{Append, Body, Commit, Continuity, Control, Keep, Position, Stamps};

use crate::{
    Services,
    document::encode,
    error::{Error, Result},
    schema::{self, Scope},
};

/// The kind of these entries in the deployment's log, beyond the protocol's events.
const KIND: u8 = 128;

/// The second up to which a user's tokens are refused, from the stamps of its
/// [`REVOCATION`](schema::REVOCATION): that of the last revoking commit itself, so that no node's
/// clock has a say.
pub fn revoked_second(stamps: &Stamps) -> u64 {
    stamps.edited_at.max(stamps.created_at) / 1000
}

/// How much of the log is kept, whatever clients' channels keep: far more than ends between two
/// looks.
const KEPT: Keep = Keep {
    events: 100_000,
    bytes: 0,
};

/// How often a node looks.
const EVERY: Duration = Duration::from_secs(1);
/// How many entries are read at once.
const PAGE: usize = 200;

/// What ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// Sessions of a user.
    User {
        /// Of which app.
        app: AppId,
        /// In which environment.
        environment: Environment,
        /// Whose.
        user: UserId,
        /// Only those whose token's `iat` is not later than this second; without it, all.
        issued_until: Option<u64>,
        /// 4004 or 1001.
        close: u16,
    },
    /// The sessions that tokens of this key opened (4004).
    TokenKey {
        /// Which.
        id: TokenKeyId,
    },
    /// All sessions of an app (4004).
    App {
        /// Which.
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

    /// The code with which these sessions close.
    pub fn close(&self) -> CloseCode {
        match self {
            Self::User { close, .. } => CloseCode::of(*close).unwrap_or(CloseCode::SessionEnded),
            Self::TokenKey { .. } | Self::App { .. } => CloseCode::SessionEnded,
        }
    }
}

/// What a node does about it.
#[async_trait]
pub trait Ended: Send + Sync {
    /// These sessions end, if they began before `at` (the store's clock, in milliseconds): a client
    /// that was told to come back may be there again.
    async fn ended(&self, what: &Ending, at: u64);

    /// Something was missed: every session has its token looked at again.
    async fn all(&self);
}

/// Tells all nodes, this one included, that sessions end.
pub async fn end_sessions(services: &Services, what: Ending) -> Result<()> {
    services
        .store
        .commit(&schema::deployment(), append(&what, Commit::default()))
        .await?
        .map_err(|_| Error::busy())?;
    services.ended.notify_one();
    Ok(())
}

/// Adds an ending to a commit of the deployment.
pub(super) fn append(what: &Ending, mut commit: Commit) -> Commit {
    commit.append.push(Append {
        kind: KIND,
        reference: encode(what),
        control: Control::None,
        body: Body::Bytes(encode(&()), None),
    });
    commit.keep = Some(KEPT);
    commit.frees()
}

/// Reads the log on behalf of one node.
pub struct Follower {
    services: Services,
    position: Position,
    handler: Arc<dyn Ended>,
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower")
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl Follower {
    /// Begins at the log's head: sessions that are opened later are checked against the documents
    /// themselves.
    pub async fn start(services: Services, handler: Arc<dyn Ended>) -> Result<Self> {
        let snapshot = services.snapshot(schema::deployment(), Vec::new()).await?;
        Ok(Self {
            position: snapshot.head.position(),
            services,
            handler,
        })
    }

    /// Looks every second, and at once after this node ended something, for as long as it is
    /// polled.
    pub async fn run(mut self) {
        loop {
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "the log of ended sessions cannot be read now: sessions that another node ended stay open until it can");
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.services.ended.notified() => {}
            }
        }
    }

    /// Compares the clocks, and tells what is new in the log.
    pub async fn look(&mut self) -> Result<()> {
        // Reading the store's clock may fail where the log can still be read.
        if let Err(error) = self.compare_clocks().await {
            tracing::warn!(%error, "the store's clock cannot be read now");
        }
        self.read_log().await
    }

    async fn read_log(&mut self) -> Result<()> {
        loop {
            let log = self
                .services
                .store
                .log(&schema::deployment(), self.position, PAGE)
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

    /// Takes the middle of asking and hearing as the instant of the answer.
    async fn compare_clocks(&self) -> Result<()> {
        let clock = &self.services.clock;
        let asked = clock.machine_ms();
        let store = self.services.store.now().await?;
        clock.adjust(store, asked + clock.machine_ms().saturating_sub(asked) / 2);
        Ok(())
    }
}
