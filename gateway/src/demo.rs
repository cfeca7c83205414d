//! The demo tenant: an organization, an app, two users and a channel.

use std::path::Path;

use domain::{
    Services, apps, channels,
    credential::{Actor, Principal, Who},
    error::Result,
    keys, organizations, participants, random,
    schema::{self, ENTITY, ONLY, Scope},
    users,
};
use protocol::{
    AppId,
    entity::{ChannelType, Environment, Role},
    operation::{
        app::CreateApp, channel::CreateChannel, credential::CreateAppKey,
        organization::CreateOrganization, participant::AddParticipant, user::PutUser,
    },
};
use serde::{Deserialize, Serialize};

use crate::start::{CommandError, DEMO, Folder};

/// The users of the demo.
pub const USERS: [(&str, &str); 2] = [("alice", "Alice"), ("bob", "Bob")];
/// The channel of the demo.
pub const CHANNEL: &str = "general";

/// The contents of the demo's file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Demo {
    /// The app.
    pub app_id: String,
    /// A key of its test environment.
    pub app_key: String,
}

impl Demo {
    /// Creates the demo, and writes its file into the folder.
    ///
    /// # Errors
    /// Fails if the store does not answer or the file cannot be written.
    pub async fn create(services: &Services, folder: &Folder) -> Result<(), CommandError> {
        let demo = Self::create_tenant(services)
            .await
            .map_err(CommandError::of)?;
        folder.keep(
            DEMO,
            &serde_json::to_string_pretty(&demo).map_err(CommandError::of)?,
        )
    }

    /// Reads the demo's file from a data folder; `None` if there is none that is valid.
    pub fn read(data: &Path) -> Option<Self> {
        Self::read_file(&data.join(DEMO))
    }

    fn read_file(file: &Path) -> Option<Self> {
        serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()
    }

    /// Returns whether the folder has a demo whose app exists.
    ///
    /// # Errors
    /// Fails if the store does not answer.
    pub async fn exists(services: &Services, folder: &Folder) -> Result<bool, CommandError> {
        let app: Option<AppId> =
            Self::read_file(&folder.file(DEMO)).and_then(|demo| demo.app_id.parse().ok());
        let Some(app) = app else { return Ok(false) };
        let found = services
            .snapshot(schema::app(&app), vec![(ENTITY, ONLY.into())])
            .await
            .map_err(CommandError::of)?;
        Ok(found.documents[0].is_some())
    }

    async fn create_tenant(services: &Services) -> Result<Self> {
        let admin = Principal::Admin;
        let body = CreateOrganization {
            name: "Demo".into(),
            email: "demo@example.com".into(),
            banner: None,
        };
        let organization =
            organizations::create_organization(services, &admin, body, random::bits())
                .await?
                .value
                .organization;
        let body = CreateApp {
            name: "Demo".into(),
            settings: Default::default(),
        };
        let app = apps::create_app(services, &admin, &organization.id, body, random::bits())
            .await?
            .value;
        let body = CreateAppKey {
            environment: Environment::Test,
            name: Some("demo".into()),
        };
        let key = keys::create_app_key(
            services,
            &admin,
            &organization.id,
            &app.id,
            body,
            random::bits(),
        )
        .await?;

        let scope = Scope {
            app: app.id.clone(),
            environment: Environment::Test,
        };
        let actor = Actor {
            scope,
            who: Who::App {
                key: key.id.clone(),
            },
        };
        for (id, name) in USERS {
            let body = PutUser {
                id: id.parse().ok(),
                first_name: Some(name.into()),
                ..PutUser::default()
            };
            users::create_user(services, &actor, body).await?;
        }
        let channel = CreateChannel {
            id: CHANNEL.parse().ok(),
            kind: ChannelType::Open,
            name: Some("General".into()),
            description: Some("Where everybody talks".into()),
            icon: None,
            banner: None,
            creator_id: USERS[0].0.parse().ok(),
            participant_ids: Vec::new(),
            metadata: Default::default(),
        };
        let (channel, _) = channels::create::create_channel(services, &actor, channel).await?;
        for (id, _) in &USERS[1..] {
            if let Ok(user_id) = id.parse() {
                let body = AddParticipant {
                    user_id,
                    role: Some(Role::Member),
                };
                participants::add::add_participant(services, &actor, &channel.value.id, body)
                    .await?;
            }
        }
        Ok(Self {
            app_id: app.id.to_string(),
            app_key: key.secret.unwrap_or_default(),
        })
    }
}
