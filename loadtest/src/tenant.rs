//! The tenant of a run: an organization with an app, users, channels and tokens, created and
//! deleted over HTTP.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use client::{Backend, BackendError};
use protocol::{
    AppId, ChannelId, ErrorCode, OrganizationId, UserId,
    entity::{ChannelType, Environment, Role},
    operation::{
        Operation,
        app::{AppCreate, CreateApp},
        batch::Batch,
        channel::{ChannelCreate, CreateChannel},
        credential::{AppKeyCreate, CreateAppKey},
        organization::{
            CreateOrganization, OrganizationCreate, OrganizationCreated, OrganizationDelete,
        },
        participant::{AddParticipant, ParticipantAdd, ParticipantAddBatch, ParticipantRemove},
        user::{MintToken, PutUser, UserMintToken, UserPutBatch},
    },
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::cli::CommonArgs;

/// Items of a batch request, and initial participants of a channel.
const BATCH_ITEMS: usize = 100;

/// Time between two requests with the app key. A node accepts 1,000 per second and key by default.
const REQUEST_INTERVAL: Duration = Duration::from_micros(1_250);

/// Attempts of a request that is refused with `rate_limited` or `unavailable`.
const MAX_ATTEMPTS: u32 = 20;

/// An organization and app for one run.
#[derive(Debug)]
pub struct RunTenant {
    /// Clients with the admin key, one per node.
    admin_clients: Vec<Backend>,
    /// Clients with the app key, one per node.
    app_clients: Vec<Backend>,
    organization: OrganizationId,
    app: AppId,
    next_request: tokio::sync::Mutex<Instant>,
    token_seconds: u64,
}

impl RunTenant {
    /// Creates a tenant through the first node.
    pub async fn create(common: &CommonArgs) -> Result<Self> {
        let bases = common.http_bases()?;
        let key = common.admin_key()?;
        let admin_clients: Vec<Backend> = bases
            .iter()
            .map(|base| Backend::new(base, &key))
            .collect::<Result<_, _>>()?;
        let admin = &admin_clients[0];
        let body = CreateOrganization {
            name: "chaos-loadtest".into(),
            email: "loadtest@example.org".into(),
            banner: None,
        };
        let OrganizationCreated { organization, .. } = admin
            .call::<OrganizationCreate>((), body)
            .await
            .map_err(|error| with_explanation(error, &bases[0]))?;
        match Self::create_app(
            &admin_clients,
            &bases,
            &organization.id,
            common.token_seconds,
        )
        .await
        {
            Ok(tenant) => Ok(tenant),
            Err(error) => {
                // Only the first error is reported: it says more than one of the cleanup.
                let _ = delete(admin, &organization.id).await;
                Err(error)
            }
        }
    }

    async fn create_app(
        admin_clients: &[Backend],
        bases: &[String],
        organization: &OrganizationId,
        token_seconds: u64,
    ) -> Result<Self> {
        let admin = &admin_clients[0];
        let app = CreateApp {
            name: "chaos-loadtest".into(),
            settings: Default::default(),
        };
        let app = admin.call::<AppCreate>(organization, app).await?;
        let key = CreateAppKey {
            environment: Environment::Test,
            name: None,
        };
        let key = admin
            .call::<AppKeyCreate>((organization, &app.id), key)
            .await?;
        let secret = key
            .secret
            .context("the node returned no secret for the new app key")?;
        let app_clients = bases
            .iter()
            .map(|base| Backend::new(base, &secret))
            .collect::<Result<_, _>>()?;
        let next_request = tokio::sync::Mutex::new(Instant::now());
        Ok(Self {
            admin_clients: admin_clients.to_vec(),
            app_clients,
            organization: organization.clone(),
            app: app.id,
            next_request,
            token_seconds,
        })
    }

    /// The organization's id.
    pub fn organization(&self) -> &OrganizationId {
        &self.organization
    }

    /// The app's id.
    pub fn app(&self) -> &AppId {
        &self.app
    }

    /// Validity of the tenant's tokens, in seconds.
    pub fn token_seconds(&self) -> u64 {
        self.token_seconds
    }

    /// Creates users with these ids.
    pub async fn create_users(&self, ids: &[UserId]) -> Result<()> {
        for ids in ids.chunks(BATCH_ITEMS) {
            let users: Vec<_> = ids
                .iter()
                .map(|id| PutUser {
                    id: Some(id.clone()),
                    ..PutUser::default()
                })
                .collect();
            let answer = self
                .call::<UserPutBatch>((), &Batch::of(&users))
                .await
                .context("cannot create the users")?;
            ensure!(
                answer.items.len() == ids.len(),
                "the node returned {1} of {0} users",
                ids.len(),
                answer.items.len()
            );
            for (id, item) in ids.iter().zip(answer.items) {
                ensure!(
                    item.error.is_none(),
                    "cannot create user {id}: {}",
                    item.error.map(|e| e.to_string()).unwrap_or_default()
                );
            }
        }
        Ok(())
    }

    /// Creates a group channel with these participants, all of whom may send.
    pub async fn create_channel(&self, id: &ChannelId, participants: &[UserId]) -> Result<()> {
        let (first, rest) = participants.split_at(participants.len().min(BATCH_ITEMS));
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
        self.call::<ChannelCreate>((), &channel)
            .await
            .with_context(|| format!("cannot create channel {id}"))?;
        for users in rest.chunks(BATCH_ITEMS) {
            let participant = |user_id: &UserId| AddParticipant {
                user_id: user_id.clone(),
                role: Some(Role::Member),
            };
            let participants: Vec<_> = users.iter().map(participant).collect();
            let batch = Batch::of(&participants);
            let answer = self
                .call::<ParticipantAddBatch>(id, &batch)
                .await
                .with_context(|| format!("cannot add participants to channel {id}"))?;
            for (user, item) in users.iter().zip(answer.items) {
                ensure!(
                    item.error.is_none(),
                    "cannot add {user} to channel {id}: {}",
                    item.error.map(|e| e.to_string()).unwrap_or_default()
                );
            }
        }
        Ok(())
    }

    /// Adds a user to a channel through a node. Adding a participant again changes nothing.
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
        self.app_clients[node % self.app_clients.len()]
            .call::<ParticipantAdd>(channel, body)
            .await
            .map(drop)
    }

    /// Removes a user from a channel through a node.
    pub async fn remove_participant(
        &self,
        node: usize,
        channel: &ChannelId,
        user_id: &UserId,
    ) -> Result<(), BackendError> {
        self.app_clients[node % self.app_clients.len()]
            .call::<ParticipantRemove>((channel, user_id), ())
            .await
            .map(drop)
    }

    /// Mints a token for a user through a node.
    pub async fn token(&self, node: usize, user: &UserId) -> Result<String, BackendError> {
        let body = MintToken {
            expires_in: Some(self.token_seconds),
        };
        Ok(self
            .call_node::<UserMintToken>(node, user, &body)
            .await?
            .token)
    }

    /// Deletes the organization and all it owns, through the first node that can be reached.
    pub async fn delete(&self) -> Result<(), BackendError> {
        let (first, others) = self
            .admin_clients
            .split_first()
            .expect("a run has at least one node");
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

    /// Calls an operation through the first node.
    async fn call<O: Operation>(
        &self,
        path: impl Into<O::Path>,
        input: &O::Input,
    ) -> Result<O::Output, BackendError> {
        self.call_node::<O>(0, path, input).await
    }

    async fn call_node<O: Operation>(
        &self,
        node: usize,
        path: impl Into<O::Path>,
        input: &O::Input,
    ) -> Result<O::Output, BackendError> {
        let path = path.into();
        let mut attempt = 1;
        loop {
            self.wait_for_rate().await;
            let error = match self.app_clients[node % self.app_clients.len()]
                .call::<O>(path.clone(), input)
                .await
            {
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
            if attempt == MAX_ATTEMPTS {
                return Err(error);
            }
            attempt += 1;
            sleep(Duration::from_millis(wait)).await;
        }
    }

    /// Waits until the rate of the app key allows another request.
    async fn wait_for_rate(&self) {
        let mut next_request = self.next_request.lock().await;
        let at = (*next_request).max(Instant::now());
        *next_request = at + REQUEST_INTERVAL;
        drop(next_request);
        sleep_until(at).await;
    }
}

async fn delete(admin: &Backend, organization: &OrganizationId) -> Result<(), BackendError> {
    admin
        .call::<OrganizationDelete>(organization, ())
        .await
        .map(drop)
}

/// Explains why the first request of the run failed.
fn with_explanation(error: BackendError, base: &str) -> anyhow::Error {
    let sentence = match &error {
        BackendError::Unreachable(_) | BackendError::Timeout => {
            format!("no node answers at {base}: is `chaos` running there?")
        }
        BackendError::Refused { error, .. }
            if matches!(
                error.code,
                ErrorCode::Unauthenticated | ErrorCode::Forbidden
            ) =>
        {
            format!(
                "the node at {base} refuses the admin key: is it the one in the node's data folder?"
            )
        }
        BackendError::Unreadable { .. } => format!("the server at {base} is not a CHAOS node"),
        _ => format!("cannot create an organization at {base}"),
    };
    anyhow::Error::new(error).context(sentence)
}
