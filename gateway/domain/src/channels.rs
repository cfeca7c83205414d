//! Channels: reads, changes and deletes one.

pub mod create;
pub mod lists;
mod operations;

use bytes::Bytes;
use protocol::{
    ChannelId, EventKind, Metadata, Patch,
    entity::{Channel, ChannelType},
    operation::channel::UpdateChannel,
};
use serde::{Deserialize, Serialize};
use store::{Append, Commit, Control, EventBody, Expected};

use crate::{
    Services,
    channel_state::{self, ChannelState},
    check,
    credential::Actor,
    document::{IfMatch, PutValue, Versioned, check_version, encode},
    error::Result,
    jobs::{self, Task},
    permission::Action,
    purge::no_participants,
    retry::retry,
    schema::{CHANNELS, ENTITY, ONLY, PUBLIC_CHANNELS, Scope, TOMBSTONE},
};

/// A line in the app's index of channels.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Indexed {
    #[serde(rename = "type")]
    kind: ChannelType,
}

/// Adds a channel to the app's indexes, before the channel is created: a line without a channel is
/// harmless.
async fn list_channel(services: &Services, scope: &Scope, channel: &Channel) -> Result<()> {
    let line = Indexed { kind: channel.kind };
    let mut commit = Commit::default().put_value(CHANNELS, channel.id.shared(), &line);
    if matches!(channel.kind, ChannelType::Open | ChannelType::Broadcast) {
        commit = commit.put_value(PUBLIC_CHANNELS, channel.id.shared(), &line);
    }
    services.commit_or_busy(&scope.index(), commit).await?;
    Ok(())
}

/// Reads a channel.
pub async fn read_channel(
    services: &Services,
    actor: &Actor,
    id: &ChannelId,
) -> Result<Versioned<Channel>> {
    let state = channel_state::read(services, actor, id).await?;
    Ok(Versioned {
        value: state.channel,
        version: state.version,
    })
}

/// Changes some of a channel's fields.
///
/// # Errors
/// `not_found` or `forbidden` if the caller may not change the channel; `precondition_failed` if
/// `if_match` does not hold; `bad_request` or `too_large` if a field is not valid.
pub async fn update_channel(
    services: &Services,
    actor: &Actor,
    id: &ChannelId,
    patch: UpdateChannel,
    if_match: IfMatch,
) -> Result<Versioned<Channel>> {
    change_channel(services, actor, id, if_match, |channel| {
        let patch = patch.clone();
        patch.name.apply(&mut channel.name);
        patch.description.apply(&mut channel.description);
        patch.icon.apply(&mut channel.icon);
        patch.banner.apply(&mut channel.banner);
        match patch.metadata {
            Patch::Set(metadata) => channel.metadata.merge(metadata.0),
            other => other.apply_or_default(&mut channel.metadata),
        }
        Ok(())
    })
    .await
}

async fn change_channel(
    services: &Services,
    actor: &Actor,
    id: &ChannelId,
    if_match: IfMatch,
    change: impl Fn(&mut Channel) -> Result<()>,
) -> Result<Versioned<Channel>> {
    retry(|| async {
        let state = channel_state::read(services, actor, id).await?;
        state.permit(actor, Action::Update)?;
        check_version(if_match, state.version)?;
        let mut channel = state.channel.clone();
        change(&mut channel)?;
        if channel == state.channel {
            services.confirm(&state.partition).await?;
            return Ok(Some(Versioned {
                value: channel,
                version: state.version,
            }));
        }
        check_fields(
            channel.name.as_ref(),
            channel.description.as_ref(),
            &channel.metadata,
        )?;
        check_pictures(
            channel.icon.as_ref(),
            channel.banner.as_ref(),
            Some(&state.channel),
        )?;
        let bare = Channel {
            created_at: 0,
            participant_count: 0,
            ..channel.clone()
        };
        let mut commit = guarded(&state);
        let entity = commit.add_value(ENTITY, ONLY, &bare);
        commit
            .append
            .push(told(EventKind::ChannelUpdated, Control::None, &channel));
        let committed = services.commit(&state.partition, commit).await?;
        Ok(committed.ok().map(|outcome| Versioned {
            value: channel,
            version: outcome.version(entity),
        }))
    })
    .await
}

/// Deletes a channel. Participants receive `channel.deleted`, and its content cannot be read any
/// more. A job clears it.
///
/// # Errors
/// `not_found` or `forbidden` if the caller may not delete the channel; `precondition_failed` if
/// `if_match` does not hold.
pub async fn delete_channel(
    services: &Services,
    actor: &Actor,
    id: &ChannelId,
    if_match: IfMatch,
) -> Result<()> {
    retry(|| async {
        let state = channel_state::read(services, actor, id).await?;
        state.permit(actor, Action::Delete)?;
        check_version(if_match, state.version)?;
        jobs::note_job(
            services,
            &Task::Channel {
                scope: actor.scope.clone(),
                id: id.clone(),
            },
        )
        .await?;
        let mut commit = guarded(&state)
            .delete(ENTITY, ONLY)
            .put_value(TOMBSTONE, ONLY, &state.channel.kind)
            .frees();
        commit.append.push(told(
            EventKind::ChannelDeleted,
            Control::Close,
            &state.channel,
        ));
        commit.increment.push(no_participants());
        Ok(services
            .commit(&state.partition, commit)
            .await?
            .is_ok()
            .then_some(()))
    })
    .await?;
    jobs::wake_jobs(services);
    Ok(())
}

fn guarded(state: &ChannelState) -> Commit {
    state.require_caller(Commit::default().require(ENTITY, ONLY, Expected::Version(state.version)))
}

fn told(kind: EventKind, control: Control, channel: &Channel) -> Append {
    let body: Bytes = encode(channel);
    // A replay reads the channel itself. The log keeps the identity of a deleted one, without its
    // texts.
    let reference = if kind == EventKind::ChannelDeleted {
        encode(&identity(channel))
    } else {
        Bytes::new()
    };
    Append {
        kind: kind as u8,
        reference,
        control,
        body: EventBody::Bytes(body, None),
    }
}

/// Returns the channel without its content.
fn identity(channel: &Channel) -> Channel {
    Channel {
        id: channel.id.clone(),
        kind: channel.kind,
        name: None,
        description: None,
        icon: None,
        banner: None,
        creator_id: None,
        metadata: Metadata::default(),
        created_at: 0,
        participant_count: 0,
    }
}

fn check_fields(
    name: Option<&String>,
    description: Option<&String>,
    metadata: &Metadata,
) -> Result<()> {
    check::line("name", name, check::NAME)?;
    check::lines("description", description, check::TEXT)?;
    Ok(metadata.check()?)
}

/// Checks the URLs of a channel's pictures. `before` is the stored channel.
fn check_pictures(
    icon: Option<&String>,
    banner: Option<&String>,
    before: Option<&Channel>,
) -> Result<()> {
    check::url("icon", icon, before.and_then(|before| before.icon.as_ref()))?;
    check::url(
        "banner",
        banner,
        before.and_then(|before| before.banner.as_ref()),
    )
}
