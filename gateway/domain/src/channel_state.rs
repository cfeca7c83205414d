//! A channel with the caller's place in it and the head of its log, read at one instant.

use protocol::{
    ChannelId, UserId,
    entity::{Channel, Participant},
};
use store::{Commit, Document, DocumentKey, Expected, Partition, PartitionHead, Snapshot, Table};

use crate::{
    Services,
    credential::{Actor, Who},
    document::decode,
    error::{Error, Result},
    permission::{self, Action, Relation},
    schema::{ENTITY, ONLY, PARTICIPANT_COUNT, PARTICIPANTS},
};

/// A channel and the caller's place in it.
#[derive(Debug, Clone)]
pub struct ChannelState {
    /// The channel's partition.
    pub partition: Partition,
    /// The channel.
    pub channel: Channel,
    /// The version of its document.
    pub version: u64,
    /// The head of its log.
    pub head: PartitionHead,
    /// The caller's place, if the caller is a user and has one.
    pub own: Option<Place>,
}

/// A participant with the version of its document.
#[derive(Debug, Clone)]
pub struct Place {
    /// The participant.
    pub participant: Participant,
    /// Version of its document. A removal and a change of the role change it.
    pub version: u64,
}

impl Place {
    /// Reads a participant's document.
    pub fn of(document: &Document) -> Result<Self> {
        let mut participant: Participant = decode(document)?;
        participant.created_at = document.stamps.created_at;
        Ok(Self {
            participant,
            version: document.version,
        })
    }
}

impl ChannelState {
    /// Returns the caller's relation to the channel.
    pub fn relation(&self, actor: &Actor) -> Relation {
        match (&actor.who, &self.own) {
            (Who::App { .. }, _) => Relation::Backend,
            (Who::User { .. }, Some(place)) => Relation::Participant(place.participant.role),
            (Who::User { .. }, None) => Relation::Outsider,
        }
    }

    /// Requires that the caller still has the role by which the action was permitted.
    pub(super) fn require_caller(&self, commit: Commit) -> Commit {
        match &self.own {
            Some(place) => commit.require(
                PARTICIPANTS,
                place.participant.user_id.shared(),
                Expected::Version(place.version),
            ),
            None => commit,
        }
    }

    /// Fails unless the caller may perform the action in the channel.
    ///
    /// # Errors
    /// `not_found` if the caller may not see the channel, `forbidden` otherwise.
    pub fn permit(&self, actor: &Actor, action: Action) -> Result<()> {
        permission::permit(action, self.channel.kind, self.relation(actor))
    }
}

/// Returns the channel and its version from a snapshot whose first document is the channel's.
pub fn channel_of(snapshot: &Snapshot) -> Result<Option<(Channel, u64)>> {
    let Some(Some(document)) = snapshot.documents.first() else {
        return Ok(None);
    };
    let mut channel: Channel = decode(document)?;
    channel.created_at = document.stamps.created_at;
    channel.participant_count = snapshot.counter(PARTICIPANT_COUNT);
    Ok(Some((channel, document.version)))
}

/// Reads a channel and the caller's place in it.
///
/// # Errors
/// `not_found` if there is no such channel or the caller may not see it.
pub async fn read(services: &Services, actor: &Actor, id: &ChannelId) -> Result<ChannelState> {
    let (state, _) = read_and(services, actor, id, Vec::new()).await?;
    Ok(state)
}

/// Reads a channel, the caller's place in it, and more documents of it at the same instant.
///
/// # Errors
/// Those of [`read`].
pub(super) async fn read_with<const N: usize>(
    services: &Services,
    actor: &Actor,
    id: &ChannelId,
    more: [(Table, DocumentKey); N],
) -> Result<(ChannelState, [Option<Document>; N])> {
    let (state, documents) = read_and(services, actor, id, more.into()).await?;
    let documents = documents
        .try_into()
        .map_err(|_| Error::internal("a read answered another number of documents"))?;
    Ok((state, documents))
}

/// The same as [`read_with`], for a number of documents that is known at run time.
pub(super) async fn read_and(
    services: &Services,
    actor: &Actor,
    id: &ChannelId,
    more: Vec<(Table, DocumentKey)>,
) -> Result<(ChannelState, Vec<Option<Document>>)> {
    let user = actor.user().map_or("", UserId::as_str);
    let mut keys = vec![
        (ENTITY, DocumentKey::from(ONLY)),
        (PARTICIPANTS, DocumentKey::from(user)),
    ];
    let own = keys.len() - 1;
    keys.extend(more);
    let partition = actor.scope.channel(id);
    let mut snapshot = services.snapshot(partition.clone(), keys).await?;
    let Some((channel, version)) = channel_of(&snapshot)? else {
        return Err(Error::not_found("channel"));
    };
    let mut documents = snapshot.documents.split_off(own).into_iter();
    let own = documents.next().flatten();
    let state = ChannelState {
        partition,
        channel,
        version,
        head: snapshot.head,
        own: own.as_ref().map(Place::of).transpose()?,
    };
    state.permit(actor, Action::See)?;
    Ok((state, documents.collect()))
}
