//! Messages: the stored form, and reading, editing and deleting one.

pub mod lists;
mod operations;
pub mod send;

use bytes::Bytes;
use protocol::{
    ChannelId, EventKind, MessageId, Metadata, UserId, bounds,
    entity::{Attachment, Message, MessageKind},
    operation::message::EditMessage,
};
use serde::{Deserialize, Serialize};
use store::{
    Append, Commit, Control, Document, DocumentKey, EventBody, Expected, Mark, Stamps, Write,
    WriteSlot,
};

use crate::{
    Services,
    channel_state::{self, ChannelState},
    check,
    credential::Actor,
    document::{IfMatch, check_version, decode, encode},
    error::{Error, Result},
    permission::Action,
    retry::retry,
    schema::{ENTITY, MESSAGES, ONLY},
};

/// The stored value of a message. The store's stamps and counters hold the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Content {
    id: MessageId,
    channel_id: ChannelId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sender_id: Option<UserId>,
    kind: MessageKind,
    text: String,
    attachments: Vec<Attachment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply_to_id: Option<MessageId>,
    mention_ids: Vec<UserId>,
    metadata: Metadata,
}

impl Content {
    fn with(self, stamps: Stamps, counts: &[(String, u64)]) -> Message {
        Message {
            id: self.id,
            channel_id: self.channel_id,
            number: stamps.number,
            seq: stamps.seq,
            sender_id: self.sender_id,
            kind: self.kind,
            text: self.text,
            attachments: self.attachments,
            reply_to_id: self.reply_to_id,
            mention_ids: self.mention_ids,
            reactions: counts.iter().cloned().collect(),
            own_reactions: None,
            metadata: self.metadata,
            created_at: stamps.created_at,
            edited_at: (stamps.edited_at != 0).then_some(stamps.edited_at),
            deleted_at: (stamps.deleted_at != 0).then_some(stamps.deleted_at),
        }
    }
}

/// Decodes a stored message.
pub fn message_of(document: &Document) -> Result<Message> {
    Ok(decode::<Content>(document)?.with(document.stamps, &document.counts))
}

fn check_content(
    services: &Services,
    text: &str,
    attachments: &[Attachment],
    mentions: &[UserId],
    metadata: &Metadata,
) -> Result<()> {
    if text.is_empty() && attachments.is_empty() {
        return Err(Error::bad_request("a message has a text or an attachment"));
    }
    let most = services.limits.text_bytes;
    if most != 0 && text.len() as u64 > most {
        return Err(Error::too_large(format!(
            "`text` is longer than {most} bytes"
        )));
    }
    if attachments.len() > bounds::ATTACHMENTS {
        return Err(Error::too_large(format!(
            "a message has at most {} attachments",
            bounds::ATTACHMENTS
        )));
    }
    if mentions.len() > bounds::MENTIONS {
        return Err(Error::too_large(format!(
            "a message mentions at most {} users",
            bounds::MENTIONS
        )));
    }
    attachments.iter().try_for_each(check_attachment)?;
    Ok(metadata.check()?)
}

/// Changes a message's text, attachments, mentions or metadata.
///
/// # Errors
/// `not_found` if the channel or message does not exist, is hidden from the caller, or the message
/// was deleted; `forbidden` if the caller may not edit it; `precondition_failed` if `if_match` does
/// not hold; `bad_request` or `too_large` if the new content is not valid.
pub async fn edit_message(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    id: &MessageId,
    patch: EditMessage,
    if_match: IfMatch,
) -> Result<Message> {
    retry(|| async {
        let (state, document) = message_state(services, actor, channel_id, id).await?;
        let mut content: Content = decode(&document)?;
        let own = actor.user().is_some() && content.sender_id.as_ref() == actor.user();
        state.permit(
            actor,
            if own {
                Action::EditOwn
            } else {
                Action::EditOthers
            },
        )?;
        if document.stamps.deleted_at != 0 {
            return Err(Error::not_found("message"));
        }
        check_version(if_match, document.stamps.seq)?;
        let before = content.clone();
        let patch = patch.clone();
        patch.text.apply_or_default(&mut content.text);
        patch.attachments.apply_or_default(&mut content.attachments);
        patch.mention_ids.apply_or_default(&mut content.mention_ids);
        match patch.metadata {
            protocol::Patch::Set(metadata) => content.metadata.merge(metadata.0),
            other => other.apply_or_default(&mut content.metadata),
        }
        if content == before {
            services.confirm(&state.partition).await?;
            return message_of(&document).map(Some);
        }
        check_content(
            services,
            &content.text,
            &content.attachments,
            &content.mention_ids,
            &content.metadata,
        )?;
        let is_metadata_alone = Content {
            metadata: before.metadata.clone(),
            ..content.clone()
        } == before;
        let mark = if is_metadata_alone {
            Mark::None
        } else {
            Mark::Edited
        };
        let mut commit = guarded(&state, &document);
        let message = put_message(
            &mut commit,
            document.key.clone(),
            &content,
            mark,
            EventKind::MessageUpdated,
        );
        let committed = services.commit(&state.partition, commit).await?;
        Ok(committed
            .ok()
            .map(|outcome| content.with(outcome.stamps(message), &document.counts)))
    })
    .await
}

/// Deletes the content of a message. Its number and id stay. Does nothing if it was deleted before.
///
/// # Errors
/// `not_found` if the channel or message does not exist or is hidden from the caller; `forbidden`
/// if the caller may not delete it; `precondition_failed` if `if_match` does not hold.
pub async fn delete_message(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    id: &MessageId,
    if_match: IfMatch,
) -> Result<()> {
    retry(|| async {
        let (state, document) = message_state(services, actor, channel_id, id).await?;
        let content: Content = decode(&document)?;
        let own = actor.user().is_some() && content.sender_id.as_ref() == actor.user();
        state.permit(
            actor,
            if own {
                Action::DeleteOwn
            } else {
                Action::DeleteOthers
            },
        )?;
        if document.stamps.deleted_at != 0 {
            return services.confirm(&state.partition).await.map(Some);
        }
        check_version(if_match, document.stamps.seq)?;
        let bare = Content {
            text: String::new(),
            attachments: Vec::new(),
            mention_ids: Vec::new(),
            metadata: Metadata::default(),
            ..content
        };
        let mut commit = guarded(&state, &document).frees();
        put_message(
            &mut commit,
            document.key.clone(),
            &bare,
            Mark::Deleted,
            EventKind::MessageDeleted,
        );
        Ok(services
            .commit(&state.partition, commit)
            .await?
            .is_ok()
            .then_some(()))
    })
    .await
}

/// Reads one message.
pub async fn read_message(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    id: &MessageId,
) -> Result<Message> {
    let (_, document) = message_state(services, actor, channel_id, id).await?;
    message_of(&document)
}

/// Reads a channel and a message of it.
///
/// # Errors
/// `not_found` or `forbidden` if the caller may not read the channel; `not_found` if there is no
/// such message.
pub async fn message_state(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    id: &MessageId,
) -> Result<(ChannelState, Document)> {
    let (state, [document]) =
        channel_state::read_with(services, actor, channel_id, [(MESSAGES, id.shared())]).await?;
    state.permit(actor, Action::Read)?;
    let document = document.ok_or_else(|| Error::not_found("message"))?;
    Ok((state, document))
}

/// Returns the key of a user's reactions to a message.
pub fn reaction_key(number: u64, user: &UserId) -> DocumentKey {
    format!("{number}:{user}").into()
}

/// Begins a commit that changes a message. Requires that the caller and the message have not
/// changed since they were read.
fn guarded(state: &ChannelState, document: &Document) -> Commit {
    let commit = Commit::default()
        .require(ENTITY, ONLY, Expected::Present)
        .require(
            MESSAGES,
            document.key.clone(),
            Expected::Changed(document.stamps.seq),
        );
    state.require_caller(commit)
}

/// Adds the put of a message, and the event that is its last change.
fn put_message(
    commit: &mut Commit,
    key: DocumentKey,
    content: &Content,
    mark: Mark,
    kind: EventKind,
) -> WriteSlot {
    let event = commit.add_event(Append {
        kind: kind as u8,
        reference: Bytes::copy_from_slice(key.as_bytes()),
        control: Control::None,
        body: EventBody::Written(commit.next_write()),
    });
    commit.add_write(Write::Put {
        table: MESSAGES,
        key,
        value: encode(content),
        mark,
        event: Some(event),
    })
}

fn check_attachment(attachment: &Attachment) -> Result<()> {
    check::required_line(
        "attachments.type",
        &attachment.kind,
        bounds::ATTACHMENT_TYPE_CHARS,
    )?;
    match (&attachment.upload_id, &attachment.url) {
        (None, None) => return Err(Error::bad_request("an attachment needs a `url`")),
        (Some(_), Some(_)) => {
            return Err(Error::bad_request(
                "an attachment has a `url` or an `upload_id`, not both",
            ));
        }
        (Some(_), None) => return Err(Error::not_found("upload")),
        (None, Some(_)) => check::url("attachments.url", attachment.url.as_ref(), None::<&str>)?,
    }
    check::line("attachments.name", attachment.name.as_ref(), check::NAME)?;
    check::line("attachments.mime", attachment.mime.as_ref(), check::NAME)?;
    Ok(attachment.metadata.check()?)
}
