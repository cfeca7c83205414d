//! Users: creating, reading, changing and deleting one.

pub mod lists;
mod operations;

use bytes::Bytes;
use protocol::{
    EventKind, Metadata, Patch, UserId,
    bounds::BATCH_ITEMS,
    entity::User,
    operation::{
        batch::Item,
        user::{PutUser, UpdateUser, UserBatch, UserBatchItem},
    },
};
use store::{Append, Commit, Control, Document, EventBody, Expected};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::{
    Services,
    channels::create::Made,
    check, clearing, commit,
    credential::Actor,
    document::{IfMatch, PutValue, Versioned, check_version, decode},
    error::{Error, Result},
    jobs::{self, Task},
    random,
    retry::retry,
    schema::{ENTITY, MADE_BY, ONLY, Scope, TOMBSTONE, USERS},
    strict, together,
};

/// Decodes a stored user.
pub fn user_of(document: &Document) -> Result<User> {
    let mut user: User = decode(document)?;
    user.created_at = document.stamps.created_at;
    Ok(user)
}

/// Returns whether an app has this user.
pub async fn user_exists(services: &Services, scope: &Scope, id: &UserId) -> Result<bool> {
    Ok(services.entity(scope.user(id)).await?.is_some())
}

/// Returns those of the users that exist.
pub async fn existing_users(
    services: &Services,
    scope: &Scope,
    ids: Vec<UserId>,
) -> Result<Vec<UserId>> {
    let found = services
        .entities(ids.iter().map(|id| scope.user(id)))
        .await?;
    Ok(ids
        .into_iter()
        .zip(found)
        .filter_map(|(id, user)| user.is_some().then_some(id))
        .collect())
}

/// Checks that the caller may see what belongs to this user alone.
///
/// # Errors
/// `not_found` if the user does not exist; `forbidden` unless the caller is the app's backend or
/// the user itself.
pub async fn permit_user(services: &Services, actor: &Actor, user: &UserId) -> Result<()> {
    if actor.user() == Some(user) {
        return Ok(());
    }
    if !user_exists(services, &actor.scope, user).await? {
        return Err(Error::not_found("user"));
    }
    actor.require_backend("a user sees and changes only itself")
}

/// Creates a user. App keys only.
///
/// # Errors
/// `forbidden` for a user; `bad_request` or `too_large` if a field is not valid; `conflict` if the
/// chosen id is or was in use.
pub async fn create_user(
    services: &Services,
    actor: &Actor,
    body: PutUser,
) -> Result<Versioned<User>> {
    create_user_as(services, actor, body, random::bits()).await
}

/// Creates a user with the id that `bits` make, unless the body gives one.
pub async fn create_user_as(
    services: &Services,
    actor: &Actor,
    body: PutUser,
    bits: u64,
) -> Result<Versioned<User>> {
    actor.require_backend("users are made by an app key")?;
    let is_chosen = body.id.is_some();
    let id = body.id.clone().unwrap_or_else(|| UserId::from_bits(bits));
    if let Some(user) = make_user(
        services,
        &actor.scope,
        user_from(id.clone(), body),
        is_chosen.then_some(bits),
    )
    .await?
    {
        return Ok(user);
    }
    // An earlier attempt of this request may have created it: no other request has these bits.
    let made_by = services
        .document(actor.scope.user(&id), MADE_BY, ONLY)
        .await?;
    let made_by: Option<u64> = made_by.as_ref().map(decode).transpose()?;
    match is_chosen && made_by != Some(bits) {
        true => Err(Error::conflict("a user with this id exists, or existed")),
        false => read_user(services, actor, &id).await,
    }
}

/// Creates a user. Returns `None` if the id is or was in use.
pub(super) async fn make_user(
    services: &Services,
    scope: &Scope,
    user: User,
    made_by: Option<u64>,
) -> Result<Option<Versioned<User>>> {
    check_user(&user, None)?;
    // Written before the user: a line without a user is harmless.
    let listed = Commit::default().put_value(USERS, user.id.shared(), &());
    services.commit_or_busy(&scope.index(), listed).await?;
    let mut commit = Commit::default()
        .require(ENTITY, ONLY, Expected::Absent)
        .require(TOMBSTONE, ONLY, Expected::Absent);
    let entity = commit.add_value(ENTITY, ONLY, &user);
    if let Some(bits) = made_by {
        commit = commit.put_value(MADE_BY, ONLY, &bits);
    }
    Ok(services
        .commit(&scope.user(&user.id), commit)
        .await?
        .ok()
        .map(|outcome| Versioned {
            value: User {
                created_at: outcome.stamps(entity).created_at,
                ..user
            },
            version: outcome.version(entity),
        }))
}

/// Creates or replaces up to 100 users, each independently. App keys only.
pub async fn put_users(
    services: &Services,
    actor: &Actor,
    items: Vec<Item<PutUser>>,
) -> Result<UserBatch> {
    actor.require_backend("batches are for app keys")?;
    if items.len() > BATCH_ITEMS {
        return Err(Error::bad_request(format!(
            "a batch has at most {BATCH_ITEMS} items"
        )));
    }
    let turn = &Mutex::new(());
    let put = |item| async move {
        let body: PutUser = strict::read_item(&item)?;
        match &body.id {
            Some(id) => {
                together::retry_alone(turn, || put_user(services, actor, id, body.clone(), None))
                    .await
            }
            None => create_user(services, actor, body)
                .await
                .map(|user| (user, Made::ByThisCall)),
        }
    };
    let answered = |item| async move {
        match put(item).await {
            Ok((user, made)) => UserBatchItem {
                status: if made == Made::ByThisCall { 201 } else { 200 },
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
        items: together::run(items.into_iter().map(answered)).await,
    })
}

/// Creates a user with this id, or replaces the fields of the existing one. App keys only.
pub async fn put_user(
    services: &Services,
    actor: &Actor,
    id: &UserId,
    body: PutUser,
    if_match: IfMatch,
) -> Result<(Versioned<User>, Made)> {
    actor.require_backend("users are made by an app key")?;
    if body.id.as_ref().is_some_and(|other| other != id) {
        return Err(Error::bad_request("`id` is not the one in the path"));
    }
    retry(|| async {
        let replaced = change_user(services, actor, id, if_match, |user| {
            *user = User {
                created_at: user.created_at,
                ..user_from(id.clone(), body.clone())
            };
        });
        match replaced.await {
            Ok(user) => return Ok(Some((user, Made::Earlier))),
            Err(error) if error.code() != protocol::ErrorCode::NotFound => return Err(error),
            Err(_) => check_version(if_match, 0)?,
        }
        if let Some(user) = make_user(
            services,
            &actor.scope,
            user_from(id.clone(), body.clone()),
            None,
        )
        .await?
        {
            return Ok(Some((user, Made::ByThisCall)));
        }
        let tombstone = services
            .document(actor.scope.user(id), TOMBSTONE, ONLY)
            .await?;
        if tombstone.is_some() {
            return Err(Error::conflict(
                "this id belonged to a deleted user and is never given again",
            ));
        }
        Ok(None)
    })
    .await
}

/// Reads a user.
pub async fn read_user(services: &Services, actor: &Actor, id: &UserId) -> Result<Versioned<User>> {
    match services.entity(actor.scope.user(id)).await? {
        Some(document) => Ok(Versioned {
            value: user_of(&document)?,
            version: document.version,
        }),
        None => Err(Error::not_found("user")),
    }
}

/// Changes some of a user's fields.
pub async fn update_user(
    services: &Services,
    actor: &Actor,
    id: &UserId,
    patch: UpdateUser,
    if_match: IfMatch,
) -> Result<Versioned<User>> {
    permit_user(services, actor, id).await?;
    if patch.bot.is_some() {
        actor.require_backend("only an app key says who is a bot")?;
    }
    change_user(services, actor, id, if_match, |user| {
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
    services: &Services,
    actor: &Actor,
    id: &UserId,
    if_match: IfMatch,
    change: impl Fn(&mut User),
) -> Result<Versioned<User>> {
    retry(|| async {
        let Versioned {
            value: before,
            version,
        } = read_user(services, actor, id).await?;
        check_version(if_match, version)?;
        let mut user = before.clone();
        change(&mut user);
        if user == before {
            services.confirm(&actor.scope.user(id)).await?;
            return Ok(Some(Versioned {
                value: user,
                version,
            }));
        }
        check_user(&user, Some(&before))?;
        let bare = User {
            created_at: 0,
            ..user.clone()
        };
        let mut commit = Commit::default().require(ENTITY, ONLY, Expected::Version(version));
        let entity = commit.add_value(ENTITY, ONLY, &bare);
        commit.append.push(Append {
            kind: EventKind::UserUpdated as u8,
            reference: Bytes::new(),
            control: Control::None,
            body: EventBody::Written(entity),
        });
        let committed = services.commit(&actor.scope.user(id), commit).await?;
        Ok(committed.ok().map(|outcome| Versioned {
            value: user,
            version: outcome.version(entity),
        }))
    })
    .await
}

/// Deletes a user. Its tokens are refused, its sessions end, and its id is never used again. A job
/// removes it from its channels. Its messages stay. App keys only.
///
/// # Errors
/// `forbidden` for a user; `not_found` if the user does not exist; `precondition_failed` if
/// `if_match` does not hold.
pub async fn delete_user(
    services: &Services,
    actor: &Actor,
    id: &UserId,
    if_match: IfMatch,
) -> Result<()> {
    actor.require_backend("users are deleted by an app key")?;
    let task = Task::User {
        scope: actor.scope.clone(),
        id: id.clone(),
    };
    retry(|| async {
        let version = match read_user(services, actor, id).await {
            Ok(user) => user.version,
            // An earlier attempt may have stopped after the tombstone.
            Err(error) if error.code() == protocol::ErrorCode::NotFound => {
                jobs::pending_job(services, &task).await?.ok_or(error)?;
                return Ok(Some(()));
            }
            Err(error) => return Err(error),
        };
        check_version(if_match, version)?;
        let partition = actor.scope.user(id);
        let is_deleted = commit::delete_entity(services, &partition, &task, version).await?;
        Ok(is_deleted.then_some(()))
    })
    .await?;
    end_sessions_of_deleted(services, &task, &actor.scope, id).await
}

async fn end_sessions_of_deleted(
    services: &Services,
    task: &Task,
    scope: &Scope,
    id: &UserId,
) -> Result<()> {
    let ended = jobs::end_sessions_of(services, task).await;
    // The first piece is cleared now, so that a user in few channels has left them when this
    // returns.
    if ended.is_ok()
        && let Err(error) = clearing::clear_user(services, scope, id, Instant::now()).await
    {
        tracing::debug!(%error, "a deleted user is left to its job");
    }
    // The job runs whether or not this request succeeded.
    jobs::wake_jobs(services);
    ended
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

/// Checks a user's fields. `before` is the stored user.
fn check_user(user: &User, before: Option<&User>) -> Result<()> {
    check::line("username", user.username.as_ref(), check::NAME)?;
    check::line("first_name", user.first_name.as_ref(), check::NAME)?;
    check::line("last_name", user.last_name.as_ref(), check::NAME)?;
    let avatar_before = before.and_then(|before| before.avatar.as_ref());
    check::url("avatar", user.avatar.as_ref(), avatar_before)?;
    check::lines("bio", user.bio.as_ref(), check::TEXT)?;
    check_metadata(&user.metadata)
}

fn check_metadata(metadata: &Metadata) -> Result<()> {
    Ok(metadata.check()?)
}
