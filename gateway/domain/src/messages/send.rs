//! Sends messages: one commit stores several of a channel.

use std::collections::{HashSet, VecDeque};

use protocol::{
    ChannelId, EventKind, MessageId,
    entity::{Channel, ChannelType, Message, MessageKind},
    operation::message::SendMessage,
};
use store::{Commit, Document, Expected, Mark, RequireSlot};

use super::{Content, check_content, message_of, put_message};
use crate::{
    Services,
    channel_state::{self, ChannelState, Place},
    credential::{Actor, Who},
    error::{Error, Result},
    permission::{self, Action, Relation},
    random,
    retry::ATTEMPTS,
    schema::{ENTITY, MESSAGES, ONLY, OWNERS, PARTICIPANTS},
    users,
};

/// Whether a send stored the message or found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// This send stored it.
    Now,
    /// An earlier send with the same id stored it.
    Before,
}

/// Versions of the sender and the channel that the subscription or an earlier send read. They are
/// read again when a commit finds other versions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// The version of the sender's participant document.
    participant: u64,
    /// In a direct channel with both of its users: the version of the document that counts its
    /// owners.
    pair: Option<u64>,
}

impl Facts {
    /// Returns the facts for a participant's first send; `None` if they do not suffice for it.
    pub(crate) fn of_participant(
        channel: &Channel,
        place: &Place,
        owners: Option<&Document>,
    ) -> Option<Self> {
        let relation = Relation::Participant(place.participant.role);
        permission::permit(Action::Send, channel.kind, relation).ok()?;
        let pair = match channel.kind {
            ChannelType::Direct if channel.participant_count < 2 => return None,
            ChannelType::Direct => Some(owners?.version),
            _ => None,
        };
        Some(Self {
            participant: place.version,
            pair,
        })
    }

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
    /// Index of its answer.
    index: usize,
    content: Content,
    /// The error that answers the draft if its id is new.
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

/// Sends messages in this order, as one commit if possible. Returns an answer for each, and the
/// facts for the next call.
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
            // Without a chosen id it cannot have been sent before.
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

/// Removes drafts as they are answered. An error answers all that remain.
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
        // Faulty drafts are looked up, too: a repeated id returns the first message, regardless of
        // the rest of the request.
        if facts.is_none() || drafts.iter().any(|d| d.fault.is_some()) {
            let ids = drafts.iter().map(|d| (MESSAGES, d.content.id.shared()));
            let keys = ids.chain([(OWNERS, ONLY.into())]).collect();
            let (state, mut known) =
                channel_state::read_and(services, actor, channel_id, keys).await?;
            state.permit(actor, Action::Send)?;
            let owners = known.pop().flatten();
            // Later sends rely on the facts, so they are kept only if this send is permitted.
            *facts = None;
            if known.iter().any(Option::is_some) {
                services.confirm(&partition).await?;
            }
            answer_known(&known, drafts, answers);
            if !is_alone(&state) {
                *facts = Some(Facts::of(&state, owners.as_ref()));
            } else if !drafts.is_empty() {
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
        let (commit, first_reply) =
            sending(actor, drafts.range(..count), facts.unwrap_or_default());
        match services.commit(&partition, commit).await? {
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
                // The messages that drafts reply to are required last, so a conflict on one means
                // that everything before it held. A repeated id returns the first message,
                // regardless of the message that the request replies to.
                if conflict.require.iter().any(|r| *r < first_reply.index()) {
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
                    .filter_map(|r| r.checked_sub(first_reply.index()))
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

/// Checks that the senders exist, for an app key.
async fn check_senders(
    services: &Services,
    actor: &Actor,
    drafts: &mut VecDeque<Draft>,
    answers: &mut [Option<Result<(Message, Sent)>>],
) -> Result<()> {
    if actor.user().is_some() {
        return Ok(());
    }
    // Read before any draft is answered, so that an error of the store answers all of them.
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

/// Answers the drafts whose id is in use, and the faulty ones whose id is new.
fn answer_known(
    documents: &[Option<Document>],
    drafts: &mut VecDeque<Draft>,
    answers: &mut [Option<Result<(Message, Sent)>>],
) {
    let mut left = VecDeque::new();
    for (draft, known) in drafts.drain(..).zip(documents) {
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

/// Returns whether the other user of a direct channel was deleted. Nobody else leaves a direct
/// channel.
fn is_alone(state: &ChannelState) -> bool {
    state.channel.kind == ChannelType::Direct && state.channel.participant_count < 2
}

/// Returns the number of leading drafts that can share a commit: none of them repeats the id of
/// another or replies to it.
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

/// Returns the commit of drafts, and the slot of its first precondition on a message that a draft
/// replies to.
fn sending<'a>(
    actor: &Actor,
    drafts: impl Iterator<Item = &'a Draft> + Clone,
    known: Facts,
) -> (Commit, RequireSlot) {
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
    let first_reply = commit.next_require();
    for draft in drafts.clone() {
        if let Some(reply_to) = &draft.content.reply_to_id {
            commit = commit.require(MESSAGES, reply_to.shared(), Expected::Present);
        }
    }
    for draft in drafts {
        put_message(
            &mut commit,
            draft.content.id.shared(),
            &draft.content,
            Mark::None,
            EventKind::MessageCreated,
        );
    }
    (commit, first_reply)
}
