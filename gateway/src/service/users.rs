//! Users: making, reading, changing, listing, deleting.

use bytes::Bytes;
use fanout::record::Control;
use protocol::{
    EventKind, Metadata, Patch, UserId,
    model::User,
    params::{PutUser, UpdateUser},
    results::{List, UserBatch, UserBatchItem, Users},
};

use super::{
    ATTEMPTS, Services,
    channels::Made,
    check,
    document::{IfMatch, Versioned, check_version, decode},
    entries::{REPLY_BYTES, parse_key},
    participants::BATCH,
    random,
    scope::{CHANNELS, ENTITY, ONLY, REVOCATION, SEEN, Scope, TOMBSTONE, USERS},
    together,
};
use crate::{
    auth::Actor,
    error::{Error, Result},
    store::{Append, Body, Commit, Document, Expected, Range, Read},
};

/// The most users of one request.
const MOST: usize = 100;

/// A user as it stands in the store.
pub fn user_of(document: &Document) -> Result<User> {
    let mut user: User = decode(document)?;
    user.created_at = document.stamps.created_at;
    Ok(user)
}

impl Services {
    /// Whether an app has this user.
    pub async fn user_exists(&self, scope: &Scope, id: &UserId) -> Result<bool> {
        let snapshot = self
            .snapshot(scope.user(id), vec![(ENTITY, ONLY.into())])
            .await?;
        Ok(snapshot.documents[0].is_some())
    }

    /// That the caller may see what belongs to this user alone: the app's backend, or the user itself.
    pub async fn permit_user(&self, actor: &Actor, user: &UserId) -> Result<()> {
        if actor.user() == Some(user) {
            return Ok(());
        }
        if !self.user_exists(&actor.scope, user).await? {
            return Err(Error::not_found("user"));
        }
        app_only(actor, "a user sees and changes only itself")
    }

    /// Makes a user. App keys only.
    pub async fn create_user(&self, actor: &Actor, body: PutUser) -> Result<Versioned<User>> {
        self.create_user_as(actor, body, random::bits()).await
    }

    /// The same, with the bits of the id given.
    pub async fn create_user_as(
        &self,
        actor: &Actor,
        body: PutUser,
        bits: u64,
    ) -> Result<Versioned<User>> {
        app_only(actor, "users are made by an app key")?;
        let is_chosen = body.id.is_some();
        let id = body.id.clone().unwrap_or_else(|| UserId::from_bits(bits));
        match self
            .make_user(&actor.scope, user_from(id.clone(), body))
            .await?
        {
            Some(user) => Ok(user),
            // Nobody else has these bits: an attempt whose answer was lost made it.
            None if !is_chosen => self.user(actor, &id).await,
            None => Err(Error::conflict("a user with this id exists, or existed")),
        }
    }

    /// Makes a user unless the id is or was in use.
    pub async fn make_user(&self, scope: &Scope, user: User) -> Result<Option<Versioned<User>>> {
        check_user(&user)?;
        // Before the user: a line without a user harms nobody.
        let listed = Commit::default().put(USERS, user.id.shared(), &());
        self.store
            .commit(&scope.index(), listed)
            .await?
            .map_err(|_| Error::busy())?;
        let commit = Commit::default()
            .require(ENTITY, ONLY, Expected::Absent)
            .require(TOMBSTONE, ONLY, Expected::Absent)
            .put(ENTITY, ONLY, &user);
        Ok(self
            .store
            .commit(&scope.user(&user.id), commit)
            .await?
            .ok()
            .map(|outcome| Versioned {
                value: User {
                    created_at: outcome.written[0].stamps.created_at,
                    ..user
                },
                version: outcome.written[0].version,
            }))
    }

    /// Makes up to 100 users, each on its own. Those that exist are replaced.
    pub async fn put_users(&self, actor: &Actor, items: Vec<PutUser>) -> Result<UserBatch> {
        app_only(actor, "batches are for app keys")?;
        if items.len() > BATCH {
            return Err(Error::bad_request(format!(
                "a batch has at most {BATCH} items"
            )));
        }
        let put = |body: PutUser| async move {
            let put = match body.id.clone() {
                Some(id) => self.put_user(actor, &id, body, None).await,
                None => self
                    .create_user(actor, body)
                    .await
                    .map(|user| (user, Made::Now)),
            };
            match put {
                Ok((user, made)) => UserBatchItem {
                    status: if made == Made::Now { 201 } else { 200 },
                    user: Some(user.value),
                    error: None,
                },
                Err(error) => UserBatchItem {
                    status: error.code().status(),
                    user: None,
                    error: Some(error.body),
                },
            }
        };
        Ok(UserBatch {
            items: together::together(items.into_iter().map(put)).await,
        })
    }

    /// Makes a user under this id, or replaces the fields of the one that is there. App keys only.
    pub async fn put_user(
        &self,
        actor: &Actor,
        id: &UserId,
        body: PutUser,
        if_match: IfMatch,
    ) -> Result<(Versioned<User>, Made)> {
        app_only(actor, "users are made by an app key")?;
        if body.id.as_ref().is_some_and(|other| other != id) {
            return Err(Error::bad_request("`id` is not the one in the path"));
        }
        for _ in 0..ATTEMPTS {
            let replaced = self.change_user(actor, id, if_match, |user| {
                *user = User {
                    created_at: user.created_at,
                    ..user_from(id.clone(), body.clone())
                };
            });
            match replaced.await {
                Ok(user) => return Ok((user, Made::Before)),
                Err(error) if error.code() != protocol::ErrorCode::NotFound => return Err(error),
                Err(_) => check_version(if_match, 0)?,
            }
            if let Some(user) = self
                .make_user(&actor.scope, user_from(id.clone(), body.clone()))
                .await?
            {
                return Ok((user, Made::Now));
            }
            let gone = self
                .snapshot(actor.scope.user(id), vec![(TOMBSTONE, ONLY.into())])
                .await?;
            if gone.documents[0].is_some() {
                return Err(Error::conflict(
                    "this id belonged to a deleted user and is never given again",
                ));
            }
        }
        Err(Error::busy())
    }

    /// Reads a user.
    pub async fn user(&self, actor: &Actor, id: &UserId) -> Result<Versioned<User>> {
        let snapshot = self
            .snapshot(actor.scope.user(id), vec![(ENTITY, ONLY.into())])
            .await?;
        match &snapshot.documents[0] {
            Some(document) => Ok(Versioned {
                value: user_of(document)?,
                version: document.version,
            }),
            None => Err(Error::not_found("user")),
        }
    }

    /// Reads up to 100 users; those that do not exist are left out.
    pub async fn users(&self, actor: &Actor, ids: &[UserId]) -> Result<Users> {
        if ids.len() > MOST {
            return Err(Error::bad_request(format!("at most {MOST} users at once")));
        }
        let mut items = self.read_users(&actor.scope, ids).await?;
        let mut bytes = 0;
        let fit = items.iter().take_while(|user| {
            bytes += 1 + protocol::codec::longest(user);
            bytes <= REPLY_BYTES
        });
        let (fit, all) = (fit.count(), items.len());
        items.truncate(fit);
        Ok(Users {
            items,
            more: fit < all,
        })
    }

    /// Whether one of these is no user of the app.
    pub(super) async fn missing_user(&self, scope: &Scope, ids: &[UserId]) -> Result<bool> {
        Ok(self.read_users(scope, ids).await?.len() < ids.len())
    }

    async fn read_users(&self, scope: &Scope, ids: &[UserId]) -> Result<Vec<User>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let read = |id| Read {
            partition: scope.user(id),
            documents: vec![(ENTITY, ONLY.into())],
            newest: None,
        };
        let snapshots = self.store.read(ids.iter().map(read).collect()).await?;
        snapshots
            .iter()
            .filter_map(|s| s.documents[0].as_ref())
            .map(user_of)
            .collect()
    }

    /// Changes some of a user's fields.
    pub async fn update_user(
        &self,
        actor: &Actor,
        id: &UserId,
        patch: UpdateUser,
        if_match: IfMatch,
    ) -> Result<Versioned<User>> {
        self.permit_user(actor, id).await?;
        if patch.bot.is_some() {
            app_only(actor, "only an app key says who is a bot")?;
        }
        self.change_user(actor, id, if_match, |user| {
            let patch = patch.clone();
            patch.username.apply(&mut user.username);
            patch.first_name.apply(&mut user.first_name);
            patch.last_name.apply(&mut user.last_name);
            patch.avatar.apply(&mut user.avatar);
            patch.bio.apply(&mut user.bio);
            user.bot = patch.bot.unwrap_or(user.bot);
            match patch.metadata {
                Patch::Set(metadata) => user.metadata.merge(metadata.0),
                other => other.apply_or_default(&mut user.metadata),
            }
        })
        .await
    }

    async fn change_user(
        &self,
        actor: &Actor,
        id: &UserId,
        if_match: IfMatch,
        change: impl Fn(&mut User),
    ) -> Result<Versioned<User>> {
        for _ in 0..ATTEMPTS {
            let Versioned {
                value: mut user,
                version,
            } = self.user(actor, id).await?;
            check_version(if_match, version)?;
            change(&mut user);
            check_user(&user)?;
            let bare = User {
                created_at: 0,
                ..user.clone()
            };
            let mut commit = Commit::default()
                .require(ENTITY, ONLY, Expected::Version(version))
                .put(ENTITY, ONLY, &bare);
            commit.append.push(Append {
                kind: EventKind::UserUpdated as u8,
                reference: Bytes::new(),
                control: Control::None,
                body: Body::Written(0),
            });
            if let Ok(outcome) = self.store.commit(&actor.scope.user(id), commit).await? {
                return Ok(Versioned {
                    value: user,
                    version: outcome.written[0].version,
                });
            }
        }
        Err(Error::busy())
    }

    /// Lists an app's users by id. App keys only.
    pub async fn list_users(
        &self,
        actor: &Actor,
        cursor: Option<String>,
        limit: Option<u64>,
    ) -> Result<List<User>> {
        app_only(actor, "users are listed by an app key")?;
        let limit = self.page_length(limit)?;
        let mut after = cursor
            .map(|c| c.parse::<UserId>().map(|id| id.shared()))
            .transpose();
        let mut items: Vec<User> = Vec::new();
        loop {
            let range = Range::Keys {
                after: after
                    .clone()
                    .map_err(|_| Error::bad_request("`cursor` is not one that a list gave"))?,
            };
            let (page, _) = self
                .store
                .page(&actor.scope.index(), USERS, range, limit)
                .await?;
            let ids: Vec<UserId> = page
                .documents
                .iter()
                .map(|d| parse_key(&d.key))
                .collect::<Result<_>>()?;
            for user in self.read_users(&actor.scope, &ids).await? {
                if items.len() == limit {
                    let cursor = items.last().map(|u| u.id.to_string());
                    return Ok(List { items, cursor });
                }
                items.push(user);
            }
            match ids.last() {
                Some(last) if page.more => after = Ok(Some(last.shared())),
                _ => {
                    return Ok(List {
                        items,
                        cursor: None,
                    });
                }
            }
        }
    }

    /// Deletes a user: it is refused from then on and its id never given again; then it is taken out of its channels.
    /// What it wrote stays.
    pub async fn delete_user(&self, actor: &Actor, id: &UserId, if_match: IfMatch) -> Result<()> {
        app_only(actor, "users are deleted by an app key")?;
        let partition = actor.scope.user(id);
        for _ in 0..ATTEMPTS {
            let Versioned { version, .. } = self.user(actor, id).await?;
            check_version(if_match, version)?;
            self.enqueue_clearing(&partition).await?;
            let commit = Commit::default()
                .require(ENTITY, ONLY, Expected::Version(version))
                .delete(ENTITY, ONLY)
                .put(TOMBSTONE, ONLY, &true);
            if self.store.commit(&partition, commit).await?.is_ok() {
                self.end_sessions_of_deleted(&actor.scope, id).await?;
                return self.clear_user(&actor.scope, id).await;
            }
        }
        Err(Error::busy())
    }

    /// Takes a deleted user out of its channels. Can be stopped and begun again at any point.
    pub async fn clear_user(&self, scope: &Scope, id: &UserId) -> Result<()> {
        let partition = scope.user(id);
        let snapshot = self
            .snapshot(partition.clone(), vec![(TOMBSTONE, ONLY.into())])
            .await?;
        if snapshot.documents[0].is_some() {
            for channel in self.channel_ids_of(scope, id).await? {
                self.expel(scope, &channel, id).await?;
            }
            for table in [CHANNELS, REVOCATION, SEEN] {
                while !self
                    .store
                    .purge(&partition, table, None, MOST)
                    .await?
                    .unwrap_or(true)
                {}
            }
            let unlisted = Commit::default().delete(USERS, id.shared());
            self.store.commit(&scope.index(), unlisted).await?.ok();
        }
        self.dequeue_clearing(&partition).await
    }
}

/// That the caller is the app's backend.
pub fn app_only(actor: &Actor, otherwise: &str) -> Result<()> {
    if actor.user().is_some() {
        Err(Error::forbidden(otherwise))
    } else {
        Ok(())
    }
}

fn user_from(id: UserId, body: PutUser) -> User {
    User {
        id,
        username: body.username,
        first_name: body.first_name,
        last_name: body.last_name,
        avatar: body.avatar,
        bio: body.bio,
        bot: body.bot,
        metadata: body.metadata,
        created_at: 0,
    }
}

fn check_user(user: &User) -> Result<()> {
    check::length("username", user.username.as_ref(), check::NAME)?;
    check::length("first_name", user.first_name.as_ref(), check::NAME)?;
    check::length("last_name", user.last_name.as_ref(), check::NAME)?;
    check::length("avatar", user.avatar.as_ref(), check::TEXT)?;
    check::length("bio", user.bio.as_ref(), check::TEXT)?;
    check_metadata(&user.metadata)
}

fn check_metadata(metadata: &Metadata) -> Result<()> {
    Ok(metadata.check()?)
}
