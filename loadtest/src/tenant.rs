//! The run's own tenant: an organization with an app, users, channels and tokens, made over HTTP and deleted again.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use client::{Backend, BackendError, segment};
use protocol::{
    AppId, ChannelId, ErrorCode, OrganizationId, UserId,
    model::{App, Channel, ChannelType, Environment, Key, Role},
    params::{
        AddParticipant, Batch, CreateApp, CreateAppKey, CreateChannel, CreateOrganization,
        MintToken, PutUser,
    },
    results::{OrganizationCreated, ParticipantBatch, Token, UserBatch},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{Instant, sleep, sleep_until};

use crate::cli::Common;

/// Items of a batch, and participants that a channel is made with, the creator aside.
const BATCH: usize = 100;

/// Between two requests with the app key: a node takes 1,000 per second and key by default.
const INTERVAL: Duration = Duration::from_micros(1_250);

/// How often a request is made again that was refused for its rate, or met a store that was not there.
const ATTEMPTS: u32 = 20;

/// An organization and app of this run alone.
#[derive(Debug)]
pub struct Tenant {
    /// With the admin key, one for each node.
    admins: Vec<Backend>,
    /// With the app key, one for each node.
    nodes: Vec<Backend>,
    organization: OrganizationId,
    app: AppId,
    next: tokio::sync::Mutex<Instant>,
    token_seconds: u64,
}

impl Tenant {
    /// Makes it at the first of the nodes.
    pub async fn make(common: &Common) -> Result<Self> {
        let bases = common.http_bases()?;
        let key = common.admin_key()?;
        let admins: Vec<Backend> = bases
            .iter()
            .map(|base| Backend::new(base, &key))
            .collect::<Result<_, _>>()?;
        let admin = &admins[0];
        let body = CreateOrganization {
            name: "chaos-loadtest".into(),
            email: "loadtest@example.org".into(),
            banner: None,
        };
        let OrganizationCreated { organization, .. } = admin
            .post("/v1/organizations", &body)
            .await
            .map_err(|error| explain(error, &bases[0]))?;
        match Self::fill(&admins, &bases, &organization.id, common.token_seconds).await {
            Ok(tenant) => Ok(tenant),
            Err(error) => {
                // The first error says more than one of the clearing up would.
                let _ = delete(admin, &organization.id).await;
                Err(error)
            }
        }
    }

    async fn fill(
        admins: &[Backend],
        bases: &[String],
        organization: &OrganizationId,
        token_seconds: u64,
    ) -> Result<Self> {
        let admin = &admins[0];
        let apps = format!("/v1/organizations/{organization}/apps");
        let app: App = admin
            .post(
                &apps,
                &CreateApp {
                    name: "chaos-loadtest".into(),
                    settings: Default::default(),
                },
            )
            .await?;
        let key = CreateAppKey {
            environment: Environment::Test,
            name: None,
        };
        let key: Key = admin.post(&format!("{apps}/{}/keys", app.id), &key).await?;
        let secret = key
            .secret
            .context("The node made an app key and does not tell its secret")?;
        let nodes = bases
            .iter()
            .map(|base| Backend::new(base, &secret))
            .collect::<Result<_, _>>()?;
        let next = tokio::sync::Mutex::new(Instant::now());
        Ok(Self {
            admins: admins.to_vec(),
            nodes,
            organization: organization.clone(),
            app: app.id,
            next,
            token_seconds,
        })
    }

    /// Which organization it is.
    pub fn organization(&self) -> &OrganizationId {
        &self.organization
    }

    /// Which app it is.
    pub fn app(&self) -> &AppId {
        &self.app
    }

    /// How long its tokens are valid.
    pub fn token_seconds(&self) -> u64 {
        self.token_seconds
    }

    /// Makes users with these ids.
    pub async fn make_users(&self, ids: &[UserId]) -> Result<()> {
        for ids in ids.chunks(BATCH) {
            let items = ids
                .iter()
                .map(|id| PutUser {
                    id: Some(id.clone()),
                    ..PutUser::default()
                })
                .collect();
            let answer: UserBatch = self
                .post(0, "/v1/users/batch", &Batch { items })
                .await
                .context("The users cannot be made")?;
            ensure!(
                answer.items.len() == ids.len(),
                "{} users were asked for, {} answered",
                ids.len(),
                answer.items.len()
            );
            for (id, item) in ids.iter().zip(answer.items) {
                ensure!(
                    item.error.is_none(),
                    "User {id} cannot be made: {}",
                    item.error.map(|e| e.to_string()).unwrap_or_default()
                );
            }
        }
        Ok(())
    }

    /// Makes a group with these participants, all of whom may write.
    pub async fn make_channel(&self, id: &ChannelId, participants: &[UserId]) -> Result<()> {
        let (first, rest) = participants.split_at(participants.len().min(BATCH));
        let channel = CreateChannel {
            id: Some(id.clone()),
            kind: ChannelType::Group,
            name: None,
            description: None,
            icon: None,
            banner: None,
            creator_id: None,
            participant_ids: first.to_vec(),
            metadata: Default::default(),
        };
        let _: Channel = self
            .post(0, "/v1/channels", &channel)
            .await
            .with_context(|| format!("Channel {id} cannot be made"))?;
        let path = format!("/v1/channels/{}/participants/batch", segment(id.as_str()));
        for users in rest.chunks(BATCH) {
            let items = users
                .iter()
                .map(|user_id| AddParticipant {
                    user_id: user_id.clone(),
                    role: Some(Role::Member),
                })
                .collect();
            let answer: ParticipantBatch = self
                .post(0, &path, &Batch { items })
                .await
                .with_context(|| format!("Channel {id} cannot be filled"))?;
            for (user, item) in users.iter().zip(answer.items) {
                ensure!(
                    item.error.is_none(),
                    "{user} cannot be added to {id}: {}",
                    item.error.map(|e| e.to_string()).unwrap_or_default()
                );
            }
        }
        Ok(())
    }

    /// Adds a user to a channel, at one of the nodes; one that is in it stays.
    pub async fn add_participant(
        &self,
        node: usize,
        channel: &ChannelId,
        user_id: &UserId,
    ) -> Result<(), BackendError> {
        let body = AddParticipant {
            user_id: user_id.clone(),
            role: Some(Role::Member),
        };
        let path = format!("/v1/channels/{}/participants", segment(channel.as_str()));
        self.nodes[node % self.nodes.len()]
            .post::<serde::de::IgnoredAny>(&path, &body)
            .await
            .map(drop)
    }

    /// Removes a user from a channel, at one of the nodes.
    pub async fn remove_participant(
        &self,
        node: usize,
        channel: &ChannelId,
        user_id: &UserId,
    ) -> Result<(), BackendError> {
        let path = format!(
            "/v1/channels/{}/participants/{}",
            segment(channel.as_str()),
            segment(user_id.as_str())
        );
        self.nodes[node % self.nodes.len()].delete(&path).await
    }

    /// A token for this user, minted by one of the nodes.
    pub async fn token(&self, node: usize, user: &UserId) -> Result<String, BackendError> {
        let body = MintToken {
            expires_in: Some(self.token_seconds),
        };
        let token: Token = self
            .post(
                node,
                &format!("/v1/users/{}/tokens", segment(user.as_str())),
                &body,
            )
            .await?;
        Ok(token.token)
    }

    /// Deletes everything, at the first node that is still there.
    pub async fn delete(&self) -> Result<(), BackendError> {
        let (first, others) = self.admins.split_first().expect("a run has a node");
        let mut outcome = delete(first, &self.organization).await;
        for admin in others {
            if !matches!(
                outcome,
                Err(BackendError::Unreachable(_) | BackendError::Timeout)
            ) {
                break;
            }
            outcome = delete(admin, &self.organization).await;
        }
        outcome
    }

    async fn post<T: DeserializeOwned>(
        &self,
        node: usize,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, BackendError> {
        let mut attempt = 1;
        loop {
            self.turn().await;
            let error = match self.nodes[node % self.nodes.len()].post(path, body).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let wait = match error.refusal() {
                Some(refusal)
                    if matches!(
                        refusal.code,
                        ErrorCode::RateLimited | ErrorCode::Unavailable
                    ) =>
                {
                    refusal.retry_after_ms.unwrap_or(250)
                }
                _ => return Err(error),
            };
            if attempt == ATTEMPTS {
                return Err(error);
            }
            attempt += 1;
            sleep(Duration::from_millis(wait)).await;
        }
    }

    /// Waits until the key may be used again.
    async fn turn(&self) {
        let mut next = self.next.lock().await;
        let at = (*next).max(Instant::now());
        *next = at + INTERVAL;
        drop(next);
        sleep_until(at).await;
    }
}

async fn delete(admin: &Backend, organization: &OrganizationId) -> Result<(), BackendError> {
    admin
        .delete(&format!("/v1/organizations/{organization}"))
        .await
}

/// What went wrong with the very first request, in a sentence.
fn explain(error: BackendError, base: &str) -> anyhow::Error {
    let sentence = match &error {
        BackendError::Unreachable(_) | BackendError::Timeout => {
            format!("No node answers at {base}: is `chaos` running there?")
        }
        BackendError::Refused { error, .. }
            if matches!(
                error.code,
                ErrorCode::Unauthenticated | ErrorCode::Forbidden
            ) =>
        {
            format!(
                "The node at {base} does not take the admin key: is it that of this node's data folder?"
            )
        }
        BackendError::Unreadable { .. } => format!("What answers at {base} is no CHAOS node"),
        _ => format!("The node at {base} makes no organization"),
    };
    anyhow::Error::new(error).context(sentence)
}
