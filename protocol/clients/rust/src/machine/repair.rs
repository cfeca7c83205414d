//! What is read after a gap, page by page, across any number of connections.

use protocol::{
    ChannelId,
    model::{Gap, Message},
    params::{ListMessages, ListPage},
};

use super::{Ask, Ticket, retry::Retry};

/// What is still to be read of a channel.
#[derive(Debug)]
pub(super) struct Repair {
    step: Step,
    under_way: Option<Ticket>,
    pub(super) retry: Retry,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    /// What changed after this `seq`, then the participants.
    Changes(u64),
    /// The newest messages, since all that was had is discarded; then the participants.
    Newest,
    /// The participants, from this cursor on.
    Participants(Option<String>),
}

/// Whether there is more to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Goes,
    Done,
}

impl Repair {
    /// After a gap at this `seq`, on top of what was still to be read.
    pub(super) fn of(gap: Gap, seq: u64, before: Option<Self>) -> Self {
        let step = match (gap, before.map(|repair| repair.step)) {
            (Gap::Diverged, _) | (_, Some(Step::Newest)) => Step::Newest,
            (_, Some(Step::Changes(earlier))) => Step::Changes(earlier.min(seq)),
            (_, Some(Step::Participants(_)) | None) => Step::Changes(seq),
        };
        Self { step, under_way: None, retry: Retry::default() }
    }

    /// The next request.
    pub(super) fn ask(&mut self, channel_id: &ChannelId, limit: Option<u64>, ticket: Ticket) -> Ask {
        self.under_way = Some(ticket);
        let (channel_id, of_messages) = (channel_id.clone(), ListMessages { limit, ..ListMessages::default() });
        match &self.step {
            Step::Changes(after) => Ask::MessageList { channel_id, which: ListMessages { changed_after: Some(*after), ..of_messages } },
            Step::Newest => Ask::MessageList { channel_id, which: of_messages },
            Step::Participants(cursor) => Ask::ParticipantList { channel_id, page: ListPage { cursor: cursor.clone(), limit } },
        }
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    pub(super) fn is_answered_by(&self, ticket: Ticket) -> bool {
        self.under_way == Some(ticket)
    }

    /// A page of messages came.
    pub(super) fn messages(&mut self, items: &[Message], more: bool) {
        self.answered();
        self.step = match (&self.step, items.last()) {
            (Step::Changes(after), Some(last)) if more && last.seq > *after => Step::Changes(last.seq),
            _ => Step::Participants(None),
        };
    }

    /// A page of participants came.
    pub(super) fn participants(&mut self, cursor: Option<String>) -> Progress {
        self.answered();
        match cursor {
            None => Progress::Done,
            Some(cursor) => {
                self.step = Step::Participants(Some(cursor));
                Progress::Goes
            }
        }
    }

    fn answered(&mut self) {
        (self.under_way, self.retry) = (None, Retry::default());
    }

    /// The page was refused for now.
    pub(super) fn failed(&mut self) -> &mut Retry {
        self.under_way = None;
        // A cursor may not outlive what it was made from; the list is read anew.
        if let Step::Participants(cursor) = &mut self.step {
            *cursor = None;
        }
        &mut self.retry
    }

    pub(super) fn disconnected(&mut self) {
        *self.failed() = Retry::default();
    }
}

/// What is still to be read of the user's channels after a gap of the own stream.
#[derive(Debug, Default)]
pub(super) struct Listing {
    cursor: Option<String>,
    pub(super) is_under_way: bool,
    pub(super) retry: Retry,
}

impl Listing {
    pub(super) fn ask(&mut self, limit: Option<u64>) -> Ask {
        self.is_under_way = true;
        Ask::ChannelList(ListPage { cursor: self.cursor.clone(), limit })
    }

    /// A page came.
    pub(super) fn page(&mut self, cursor: Option<String>) -> Progress {
        let progress = if cursor.is_some() { Progress::Goes } else { Progress::Done };
        *self = Self { cursor, ..Self::default() };
        progress
    }

    /// The page was refused for now: the list is read anew.
    pub(super) fn failed(&mut self) -> &mut Retry {
        (self.cursor, self.is_under_way) = (None, false);
        &mut self.retry
    }
}
