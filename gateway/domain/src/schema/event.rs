//! Logged events: the content of each log entry, and the entities that a replay reads for it.

use protocol::EventKind;

/// The entity that an entry of the log refers to. A replay reads the current entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoggedEvent {
    /// The entry holds a message's key. A replay reads the message.
    Message,
    /// The entry holds a [`Reacted`](crate::reactions::Reacted). A replay reads the message for the
    /// count, and for whether it was deleted.
    Reaction,
    /// The entry holds a participant's user id. A replay reads the participant, or, once removed,
    /// the later entry that removed it.
    Participant,
    /// The entry holds the participant's last state. Its subscription ends.
    RemovedParticipant,
    /// A replay reads the channel.
    Channel,
    /// The entry holds the event's data. All subscriptions end.
    DeletedChannel,
    /// The entry holds a channel's id. A replay reads the user's entry of that channel, or returns
    /// a removal if the user is no longer in it.
    AddedChannel,
    /// The entry holds a channel's id.
    RemovedChannel,
    /// A replay reads the user.
    User,
}

/// Returns the log entry's content for an event; `None` if the event is published without being
/// logged.
pub const fn logged_event(kind: EventKind) -> Option<LoggedEvent> {
    Some(match kind {
        EventKind::MessageCreated | EventKind::MessageUpdated | EventKind::MessageDeleted => {
            LoggedEvent::Message
        }
        EventKind::ReactionAdded | EventKind::ReactionRemoved => LoggedEvent::Reaction,
        EventKind::ParticipantAdded | EventKind::ParticipantUpdated => LoggedEvent::Participant,
        EventKind::ParticipantRemoved => LoggedEvent::RemovedParticipant,
        EventKind::ChannelUpdated => LoggedEvent::Channel,
        EventKind::ChannelDeleted => LoggedEvent::DeletedChannel,
        EventKind::ChannelAdded => LoggedEvent::AddedChannel,
        EventKind::ChannelRemoved => LoggedEvent::RemovedChannel,
        EventKind::UserUpdated => LoggedEvent::User,
        EventKind::ReadMarked
        | EventKind::Typing
        | EventKind::PresenceChanged
        | EventKind::ChannelGap
        | EventKind::TokenExpiring
        | EventKind::ServerDraining => return None,
    })
}
