//! Tenants of one deployment, each with every kind of entity.

use std::collections::BTreeMap;

use client::Backend;
use serde_json::{Value, json};

use crate::{operations::Kind, story::World};

/// An app's environment, with its credentials.
pub(super) struct Tenant {
    pub(super) name: &'static str,
    pub(super) organization: String,
    pub(super) organization_key: String,
    pub(super) app: String,
    pub(super) environment: &'static str,
    pub(super) app_key: String,
    pub(super) ids: BTreeMap<Kind, String>,
}

impl Tenant {
    /// The world's own app, and three others: another app of the organization, the other
    /// environment of the app, another organization.
    pub(super) async fn all(world: &World) -> (Self, [Self; 3]) {
        let (app, key) = (world.app.as_str(), world.organization_key.as_str());
        let mine = Self::fill(world, "mine", &world.organization, key, app, "live").await;
        let sister = new_app(world, &world.organization, key).await;
        let sister = Self::fill(world, "sister", &world.organization, key, &sister, "live").await;
        let test = Self::fill(world, "test", &world.organization, key, app, "test").await;
        let body = json!({ "name": "Other", "email": "team@other.example" });
        let other: Value = world
            .backend(&world.admin_key)
            .post("/v1/organizations", &body)
            .await
            .unwrap();
        let (organization, key) = (
            text(&other["organization"]["id"]),
            text(&other["key"]["secret"]),
        );
        let app = new_app(world, &organization, &key).await;
        let stranger = Self::fill(world, "stranger", &organization, &key, &app, "live").await;
        (mine, [sister, test, stranger])
    }

    async fn fill(
        world: &World,
        name: &'static str,
        organization: &str,
        key: &str,
        app: &str,
        environment: &'static str,
    ) -> Self {
        let owner = world.backend(key);
        let base = format!("/v1/organizations/{organization}/apps/{app}");
        let app_key: Value = owner
            .post(
                &format!("{base}/keys"),
                &json!({ "environment": environment, "name": name }),
            )
            .await
            .unwrap();
        let body = json!({ "environment": environment, "algorithm": "HS256" });
        let token_key: Value = owner
            .post(&format!("{base}/token-keys"), &body)
            .await
            .unwrap();
        let body = json!({ "name": name });
        let organization_key: Value = owner
            .post(&format!("/v1/organizations/{organization}/keys"), &body)
            .await
            .unwrap();
        let team = world.backend(app_key["secret"].as_str().unwrap());
        // Alice and the hall have the same ids in all tenants; the other user and the room exist
        // only here.
        let (only, room) = (format!("{name}-user-1"), format!("{name}-room-1"));
        for user in ["alice", "carol", &only] {
            let _: Value = team
                .put(
                    &format!("/v1/users/{user}"),
                    &json!({ "bio": secret(name) }),
                )
                .await
                .unwrap();
        }
        for channel in ["hall", &room] {
            let body = json!({
                "id": channel, "type": "open", "description": secret(name), "creator_id": "alice", "participant_ids": ["carol", only],
            });
            let _: Value = team.post("/v1/channels", &body).await.unwrap();
        }
        let body = json!({ "sender_id": "alice", "text": secret(name) });
        let message: Value = team
            .post(&format!("/v1/channels/{room}/messages"), &body)
            .await
            .unwrap();
        let reaction = format!(
            "/v1/channels/{room}/messages/{}/reactions/y?sender_id={only}",
            text(&message["id"])
        );
        let _: Value = team.put(&reaction, &json!({})).await.unwrap();
        let page: Value = team.get("/v1/channels?limit=1").await.unwrap();
        let ids = BTreeMap::from([
            (Kind::Organization, organization.to_owned()),
            (Kind::App, app.to_owned()),
            (Kind::OrganizationKey, text(&organization_key["id"])),
            (Kind::AppKey, text(&app_key["id"])),
            (Kind::TokenKey, text(&token_key["id"])),
            (Kind::User, only),
            (Kind::Channel, room),
            (Kind::Message, text(&message["id"])),
            (Kind::Cursor, text(&page["cursor"])),
        ]);
        Self {
            name,
            organization: organization.to_owned(),
            organization_key: key.to_owned(),
            app: app.to_owned(),
            environment,
            app_key: text(&app_key["secret"]),
            ids,
        }
    }

    pub(super) fn id(&self, kind: Kind) -> String {
        self.ids[&kind].clone()
    }

    /// A text in everything that this tenant writes.
    pub(super) fn secret(&self) -> String {
        secret(self.name)
    }

    pub(super) fn base(&self) -> String {
        format!("/v1/organizations/{}/apps/{}", self.organization, self.app)
    }

    /// Reads all of its own entities.
    pub(super) async fn picture(&self, world: &World) -> BTreeMap<String, Value> {
        let (team, owner) = (
            world.backend(&self.app_key),
            world.backend(&self.organization_key),
        );
        let mut picture = BTreeMap::new();
        for path in [
            format!("/v1/organizations/{}", self.organization),
            format!("/v1/organizations/{}/keys?limit=200", self.organization),
            self.base(),
            format!("{}/keys?limit=200", self.base()),
            format!("{}/token-keys?limit=200", self.base()),
        ] {
            see(&owner, path, &mut picture).await;
        }
        let users = see(&team, "/v1/users?limit=200".to_owned(), &mut picture).await;
        let channels = see(&team, "/v1/channels?limit=200".to_owned(), &mut picture).await;
        for user in ids_of(&users) {
            for what in ["channels", "unread"] {
                see(&team, format!("/v1/users/{user}/{what}"), &mut picture).await;
            }
        }
        for channel in ids_of(&channels) {
            for what in ["participants", "messages"] {
                see(
                    &team,
                    format!("/v1/channels/{channel}/{what}?limit=200"),
                    &mut picture,
                )
                .await;
            }
        }
        picture
    }
}

/// Returns an id that does not exist, of equal length and adjacent in order.
pub(super) fn unused(id: &str) -> String {
    let (head, last) = id.split_at(id.len() - 1);
    format!("{head}{}", if last == "0" { "1" } else { "0" })
}

fn secret(name: &str) -> String {
    format!("what only {name} may read")
}

async fn new_app(world: &World, organization: &str, key: &str) -> String {
    let path = format!("/v1/organizations/{organization}/apps");
    let app: Value = world
        .backend(key)
        .post(&path, &json!({ "name": "Chat" }))
        .await
        .unwrap();
    text(&app["id"])
}

async fn see(who: &Backend, path: String, picture: &mut BTreeMap<String, Value>) -> Value {
    let seen: Value = who.get(&path).await.unwrap();
    assert!(
        seen.get("cursor").is_none() && seen["more"] != true,
        "{path} has more than one page"
    );
    picture.insert(path, seen.clone());
    seen
}

fn ids_of(list: &Value) -> Vec<String> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| text(&item["id"]))
        .collect()
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
