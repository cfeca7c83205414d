//! Messages: sending (several in one commit), editing, deleting, listing.

mod operations;

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use protocol::{
    ChannelId, EventKind, MessageId, Metadata, UserId, bounds,
    entity::{Attachment, ChannelType, Message, MessageKind},
    operation::message::{EditMessage, ListMessages, MessagePage, SendMessage},
};
use serde::{Deserialize, Serialize};
use store::{Append, Body, Commit, Document, Expected, Key, Mark, Range, Stamps, Write};

use crate::{
    ATTEMPTS, Services,
    channel_state::{self, ChannelState},
    check,
    credential::{Actor, Who},
    cursor::REPLY_BYTES,
    document::{IfMatch, check_version, decode, encode},
    error::{Error, Result},
    listing,
    permission::Action,
    random,
    schema::{ENTITY, MESSAGES, ONLY, OWNERS, PARTICIPANTS, REACTIONS},
    users,
};

/// What of a message is stored as its value; the store's stamps and counters are the rest.
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

/// A message as it stands in the store.
pub fn message_of(document: &Document) -> Result<Message> {
    Ok(decode::<Content>(document)?.with(document.stamps, &document.counts))
}

/// Whether a send made the message or found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It was stored now.
    Now,
    /// An earlier send with the same id had stored it.
    Before,
}

/// What an earlier send has read of the sender and the channel. A commit that finds another version
/// reads it again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// The version of the sender's participant document.
    participant: u64,
    /// In a direct channel with both of its users: the version of the document that counts its
    /// owners.
    pair: Option<u64>,
}

impl Facts {
    fn of(state: &ChannelState, owners: Option<&Document>) -> Self {
        Self {
            participant: state.own.as_ref().map_or(0, |place| place.version),
            pair: owners
                .filter(|_| state.channel.kind == ChannelType::Direct)
                .map(|document| document.version),
        }
    }
}

struct Draft {
    /// Where the answer goes.
    index: usize,
    content: Content,
    /// Why the draft cannot be stored, should its id prove to be new.
    fault: Option<Error>,
}

/// Sends one message.
pub async fn send_message(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    body: SendMessage,
) -> Result<(Message, Sent)> {
    let (mut answers, _) = send_messages(services, actor, channel_id, vec![body], None).await;
    answers
        .pop()
        .unwrap_or_else(|| Err(Error::internal("a send was not answered")))
}

/// Sends messages in this order, as one commit where possible. Each has its own answer; the
/// facts are for the next call.
pub async fn send_messages(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    bodies: Vec<SendMessage>,
    facts: Option<Facts>,
) -> (Vec<Result<(Message, Sent)>>, Option<Facts>) {
    let mut answers: Vec<Option<Result<(Message, Sent)>>> = bodies.iter().map(|_| None).collect();
    let mut drafts = VecDeque::new();
    for (index, body) in bodies.into_iter().enumerate() {
        let has_id = body.message_id.is_some();
        match draft(services, actor, channel_id, body) {
            // Without an id of its own it cannot have been sent before.
            (_, Some(fault)) if !has_id => answers[index] = Some(Err(fault)),
            (content, fault) => drafts.push_back(Draft {
                index,
                content,
                fault,
            }),
        }
    }
    let mut facts = facts;
    if let Err(error) = store_drafts(
        services,
        actor,
        channel_id,
        &mut drafts,
        &mut facts,
        &mut answers,
    )
    .await
    {
        for draft in drafts {
            answers[draft.index] = Some(Err(error.clone()));
        }
    }
    let lost = || Err(Error::internal("a send was not answered"));
    (
        answers
            .into_iter()
            .map(|a| a.unwrap_or_else(lost))
            .collect(),
        facts,
    )
}

/// Takes drafts away as they are answered. An error is the answer of all that are left.
async fn store_drafts(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    drafts: &mut VecDeque<Draft>,
    facts: &mut Option<Facts>,
    answers: &mut [Option<Result<(Message, Sent)>>],
) -> Result<()> {
    let partition = actor.scope.channel(channel_id);
    let mut conflicts = 0;
    while conflicts < ATTEMPTS {
        if drafts.is_empty() {
            return Ok(());
        }
        // Faulty drafts are looked up alone: a repeated id answers the first message, whatever
        // else the request says.
        if facts.is_none() || drafts.iter().any(|d| d.fault.is_some()) {
            let ids = drafts.iter().map(|d| (MESSAGES, d.content.id.shared()));
            let keys = ids.chain([(OWNERS, ONLY.into())]).collect();
            let mut state = channel_state::channel_state(services, actor, channel_id, keys).await?;
            state.permit(actor, Action::Send)?;
            let owners = state.documents.pop().flatten();
            *facts = Some(Facts::of(&state, owners.as_ref()));
            if state.documents.iter().any(Option::is_some) {
                services.confirm(&partition).await?;
            }
            answer_known(&state, drafts, answers);
            if !drafts.is_empty() && is_alone(&state) {
                return Err(Error::forbidden(
                    "the other user of this direct channel was deleted",
                ));
            }
            check_senders(services, actor, drafts, answers).await?;
            if drafts.is_empty() {
                return Ok(());
            }
        }
        let count = independent(drafts);
        let known = facts.unwrap_or_default();
        let commit = sending(actor, drafts.range(..count), known);
        match services.store.commit(&partition, commit).await? {
            Ok(outcome) => {
                services.stored_messages.inc_by(count as u64);
                for (draft, written) in drafts.drain(..count).zip(outcome.written) {
                    answers[draft.index] =
                        Some(Ok((draft.content.with(written.stamps, &[]), Sent::Now)));
                }
                if !drafts.is_empty() {
                    *facts = None;
                }
            }
            Err(conflict) => {
                conflicts += 1;
                *facts = None;
                // What drafts answer to is required last. It counts once everything before it
                // holds: a repeated id answers the first message, whatever the request answers
                // to.
                let first = 1
                    + usize::from(actor.user().is_some())
                    + usize::from(known.pair.is_some())
                    + count;
                if conflict.require.iter().any(|r| *r < first) {
                    continue;
                }
                let answers_to =
                    |(i, draft): (usize, &Draft)| draft.content.reply_to_id.as_ref().map(|_| i);
                let replies: Vec<usize> = drafts
                    .range(..count)
                    .enumerate()
                    .filter_map(answers_to)
                    .collect();
                for missing in conflict
                    .require
                    .iter()
                    .filter_map(|r| r.checked_sub(first))
                    .filter_map(|r| replies.get(r))
                    .rev()
                {
                    if let Some(draft) = drafts.remove(*missing) {
                        answers[draft.index] = Some(Err(Error::not_found("message to reply to")));
                    }
                }
            }
        }
    }
    Err(Error::busy())
}

/// With an app key, that the senders exist.
async fn check_senders(
    services: &Services,
    actor: &Actor,
    drafts: &mut VecDeque<Draft>,
    answers: &mut [Option<Result<(Message, Sent)>>],
) -> Result<()> {
    if actor.user().is_some() {
        return Ok(());
    }
    // Looked up before any is answered: where the store is away, all of them are told so.
    let mut missing = HashSet::new();
    for sender in drafts
        .iter()
        .filter_map(|draft| draft.content.sender_id.as_ref())
    {
        if !users::user_exists(services, &actor.scope, sender).await? {
            missing.insert(sender.clone());
        }
    }
    drafts.retain(|draft| {
        let is_there = draft
            .content
            .sender_id
            .as_ref()
            .is_none_or(|sender| !missing.contains(sender));
        if !is_there {
            answers[draft.index] = Some(Err(Error::not_found("user: `sender_id`")));
        }
        is_there
    });
    Ok(())
}

fn draft(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    body: SendMessage,
) -> (Content, Option<Error>) {
    let fault = fault_of(services, actor, &body).err();
    let sender_id = actor.user().cloned().or(body.sender_id);
    let content = Content {
        id: body
            .message_id
            .unwrap_or_else(|| MessageId::from_bits(random::bits())),
        channel_id: channel_id.clone(),
        sender_id,
        kind: body.kind.unwrap_or_default(),
        text: body.text.unwrap_or_default(),
        attachments: body.attachments,
        reply_to_id: body.reply_to_id,
        mention_ids: body.mention_ids,
        metadata: body.metadata,
    };
    (content, fault)
}

fn fault_of(services: &Services, actor: &Actor, body: &SendMessage) -> Result<()> {
    match &actor.who {
        Who::App { .. } => {
            if body.sender_id.is_none() && body.kind != Some(MessageKind::System) {
                return Err(Error::bad_request(
                    "`sender_id` is required with an app key, unless `kind` is \"system\"",
                ));
            }
        }
        Who::User { id, .. } => {
            if body.sender_id.as_ref().is_some_and(|sender| sender != id) {
                return Err(Error::forbidden(
                    "only an app key may send in the name of somebody else",
                ));
            }
            if body.kind == Some(MessageKind::System) {
                return Err(Error::forbidden("only an app key may send system messages"));
            }
        }
    }
    let text = body.text.as_deref().unwrap_or_default();
    check_content(
        services,
        text,
        &body.attachments,
        &body.mention_ids,
        &body.metadata,
    )
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

/// Changes a message's text, attachments, mentions or free data.
pub async fn edit_message(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    id: &MessageId,
    patch: EditMessage,
    if_match: IfMatch,
) -> Result<Message> {
    for _ in 0..ATTEMPTS {
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
            return message_of(&document);
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
        let commit = changing(
            &state,
            &document,
            encode(&content),
            EventKind::MessageUpdated,
            mark,
        );
        if let Ok(outcome) = services.store.commit(&state.partition, commit).await? {
            return Ok(content.with(outcome.written[0].stamps, &document.counts));
        }
    }
    Err(Error::busy())
}

/// Deletes a message: what it said is gone, its place stays. Deleting it again changes nothing.
pub async fn delete_message(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    id: &MessageId,
    if_match: IfMatch,
) -> Result<()> {
    for _ in 0..ATTEMPTS {
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
            return services.confirm(&state.partition).await;
        }
        check_version(if_match, document.stamps.seq)?;
        let bare = Content {
            text: String::new(),
            attachments: Vec::new(),
            mention_ids: Vec::new(),
            metadata: Metadata::default(),
            ..content
        };
        let commit = changing(
            &state,
            &document,
            encode(&bare),
            EventKind::MessageDeleted,
            Mark::Deleted,
        )
        .frees();
        if services
            .store
            .commit(&state.partition, commit)
            .await?
            .is_ok()
        {
            return Ok(());
        }
    }
    Err(Error::busy())
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

/// A channel and a message of it, for somebody who may read both.
pub async fn message_state(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    id: &MessageId,
) -> Result<(ChannelState, Document)> {
    let mut state =
        channel_state::channel_state(services, actor, channel_id, vec![(MESSAGES, id.shared())])
            .await?;
    state.permit(actor, Action::Read)?;
    match state.documents.pop().flatten() {
        Some(document) => Ok((state, document)),
        None => Err(Error::not_found("message")),
    }
}

/// Lists messages. A page ends early where it would be longer than a reply may be.
pub async fn list_messages(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    query: ListMessages,
) -> Result<MessagePage> {
    let state = channel_state::channel_state(services, actor, channel_id, Vec::new()).await?;
    state.permit(actor, Action::Read)?;
    let range = match (query.before, query.after, query.changed_after) {
        (None, None, None) => Range::Before(None),
        (Some(number), None, None) => Range::Before(Some(number)),
        (None, Some(number), None) => Range::After(number),
        (None, None, Some(seq)) => Range::Changed(seq),
        _ => {
            return Err(Error::bad_request(
                "give one of `before`, `after` and `changed_after`",
            ));
        }
    };
    let backwards = matches!(range, Range::Before(_));
    let (mut page, _) = services
        .store
        .page(
            &state.partition,
            MESSAGES,
            range,
            listing::page_length(services, query.limit)?,
        )
        .await?;
    // What is stored is shorter than what is told of it: cut by that first, so that no more is
    // decoded than may fit.
    page.more |= keep_what_fits(&mut page.documents, backwards, |document| {
        document.value.len()
    });
    let mut items = page
        .documents
        .iter()
        .map(message_of)
        .collect::<Result<Vec<_>>>()?;
    if let Some(user) = actor.user() {
        add_own_reactions(services, &state, user, &mut items).await?;
    }
    page.more |= keep_what_fits(&mut items, backwards, |item| {
        1 + protocol::codec::longest(item)
    });
    Ok(MessagePage {
        items,
        more: page.more,
    })
}

async fn add_own_reactions(
    services: &Services,
    state: &ChannelState,
    user: &UserId,
    items: &mut [Message],
) -> Result<()> {
    let reacted: Vec<usize> = (0..items.len())
        .filter(|i| !items[*i].reactions.is_empty())
        .collect();
    for item in items.iter_mut() {
        item.own_reactions = Some(Vec::new());
    }
    if reacted.is_empty() {
        return Ok(());
    }
    let keys = reacted
        .iter()
        .map(|i| (REACTIONS, reaction_key(items[*i].number, user)))
        .collect();
    let snapshot = services.snapshot(state.partition.clone(), keys).await?;
    for (index, document) in reacted.into_iter().zip(snapshot.documents) {
        if let Some(document) = document {
            items[index].own_reactions = Some(decode(&document)?);
        }
    }
    Ok(())
}

/// Cuts a page to what a reply may hold, but not to nothing; whether anything was cut. The end that
/// is cut is the far one, so that the next page begins where this one stops.
fn keep_what_fits<T>(page: &mut Vec<T>, backwards: bool, length: impl Fn(&T) -> usize) -> bool {
    let mut bytes = 0;
    let mut fits = |item: &&T| {
        bytes += length(item);
        bytes <= REPLY_BYTES
    };
    let kept = if backwards {
        page.iter().rev().take_while(&mut fits).count()
    } else {
        page.iter().take_while(&mut fits).count()
    };
    let cut = page.len() - kept.max(1).min(page.len());
    if backwards {
        page.drain(..cut);
    } else {
        page.truncate(page.len() - cut);
    }
    cut > 0
}

/// The key of what a user gave to a message.
pub fn reaction_key(number: u64, user: &UserId) -> Key {
    format!("{number}:{user}").into()
}

/// Answers drafts whose id is in use, and those that have a fault and are new.
fn answer_known(
    state: &ChannelState,
    drafts: &mut VecDeque<Draft>,
    answers: &mut [Option<Result<(Message, Sent)>>],
) {
    let mut left = VecDeque::new();
    for (draft, known) in drafts.drain(..).zip(&state.documents) {
        match (known, draft.fault) {
            (Some(document), _) => {
                answers[draft.index] = Some(match message_of(document) {
                    Ok(message) if message.sender_id != draft.content.sender_id => Err(
                        Error::conflict("this message_id is in use by another sender"),
                    ),
                    found => found.map(|message| (message, Sent::Before)),
                });
            }
            (None, Some(fault)) => answers[draft.index] = Some(Err(fault)),
            (None, None) => left.push_back(Draft {
                fault: None,
                ..draft
            }),
        }
    }
    *drafts = left;
}

/// Returns whether the other user of a direct channel was deleted: in no other way does one of them
/// leave it.
fn is_alone(state: &ChannelState) -> bool {
    state.channel.kind == ChannelType::Direct && state.channel.participant_count < 2
}

/// How many of the first drafts can share a commit: none repeats the id of another, or answers it.
fn independent(drafts: &VecDeque<Draft>) -> usize {
    let mut ids = HashSet::new();
    drafts
        .iter()
        .take_while(|d| {
            d.content
                .reply_to_id
                .as_ref()
                .is_none_or(|reply| !ids.contains(reply))
                && ids.insert(&d.content.id)
        })
        .count()
}

fn sending<'a>(
    actor: &Actor,
    drafts: impl Iterator<Item = &'a Draft> + Clone,
    known: Facts,
) -> Commit {
    let mut commit = Commit::default().require(ENTITY, ONLY, Expected::Present);
    if let Some(user) = actor.user() {
        commit = commit.require(
            PARTICIPANTS,
            user.shared(),
            Expected::Version(known.participant),
        );
    }
    if let Some(version) = known.pair {
        commit = commit.require(OWNERS, ONLY, Expected::Version(version));
    }
    for draft in drafts.clone() {
        commit = commit.require(MESSAGES, draft.content.id.shared(), Expected::Absent);
    }
    for draft in drafts.clone() {
        if let Some(reply_to) = &draft.content.reply_to_id {
            commit = commit.require(MESSAGES, reply_to.shared(), Expected::Present);
        }
    }
    for (event, draft) in drafts.enumerate() {
        let key = draft.content.id.shared();
        commit.write.push(Write::Put {
            table: MESSAGES,
            key: key.clone(),
            value: encode(&draft.content),
            mark: Mark::None,
            event: Some(event),
        });
        commit
            .append
            .push(told(EventKind::MessageCreated, &key, event));
    }
    commit
}

fn changing(
    state: &ChannelState,
    document: &Document,
    value: Bytes,
    kind: EventKind,
    mark: Mark,
) -> Commit {
    let key = document.key.clone();
    let mut commit = Commit::default()
        .require(ENTITY, ONLY, Expected::Present)
        .require(
            MESSAGES,
            key.clone(),
            Expected::Changed(document.stamps.seq),
        );
    if let Some(place) = &state.own {
        commit = commit.require(
            PARTICIPANTS,
            place.participant.user_id.shared(),
            Expected::Version(place.version),
        );
    }
    commit.write.push(Write::Put {
        table: MESSAGES,
        key: key.clone(),
        value,
        mark,
        event: Some(0),
    });
    commit.append.push(told(kind, &key, 0));
    commit
}

fn told(kind: EventKind, key: &Key, write: usize) -> Append {
    Append {
        kind: kind as u8,
        reference: Bytes::copy_from_slice(key.as_bytes()),
        control: store::Control::None,
        body: Body::Written(write),
    }
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
