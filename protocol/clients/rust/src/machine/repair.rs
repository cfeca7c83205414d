//! What is read after a gap, page by page, across any number of connections.

use protocol::{
    ChannelId,
    model::{Gap, Message},
    params::{ListMessages, ListPage},
};

use super::{Ask, Ticket, retry::Retry};

/// What is still to be read of a channel: the newest messages, then what changed, then the participants.
#[derive(Debug)]
pub(super) struct Repair {
    /// All that was had is discarded.
    newest: bool,
    /// Behind this `seq` events were not told.
    changes: Option<u64>,
    /// Where the next page of participants begins.
    cursor: Option<String>,
    under_way: Option<(Ticket, Reading)>,
    pub(super) retry: Retry,
}

/// What a page is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Newest,
    Changes,
    Participants,
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
        let (newest, changes) = match (gap, before) {
            (Gap::Diverged, _) => (true, None),
            (
                _,
                Some(Self {
                    newest, changes, ..
                }),
            ) => (
                newest,
                Some(changes.map_or(seq, |earlier| earlier.min(seq))),
            ),
            (_, None) => (false, Some(seq)),
        };
        Self {
            newest,
            changes,
            cursor: None,
            under_way: None,
            retry: Retry::default(),
        }
    }

    /// The next request.
    pub(super) fn ask(
        &mut self,
        channel_id: &ChannelId,
        limit: Option<u64>,
        ticket: Ticket,
    ) -> Ask {
        let (channel_id, messages) = (
            channel_id.clone(),
            ListMessages {
                limit,
                ..ListMessages::default()
            },
        );
        let (reading, ask) = match self.changes {
            _ if self.newest => (
                Reading::Newest,
                Ask::MessageList {
                    channel_id,
                    which: messages,
                },
            ),
            Some(after) => (
                Reading::Changes,
                Ask::MessageList {
                    channel_id,
                    which: ListMessages {
                        changed_after: Some(after),
                        ..messages
                    },
                },
            ),
            None => (
                Reading::Participants,
                Ask::ParticipantList {
                    channel_id,
                    page: ListPage {
                        cursor: self.cursor.clone(),
                        limit,
                    },
                },
            ),
        };
        self.under_way = Some((ticket, reading));
        ask
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    pub(super) fn is_answered_by(&self, ticket: Ticket) -> bool {
        self.under_way.is_some_and(|(awaited, _)| awaited == ticket)
    }

    /// A page of messages came.
    pub(super) fn messages(&mut self, items: &[Message], more: bool) {
        match (self.answered(), self.changes, items.last()) {
            (Some(Reading::Newest), ..) => self.newest = false,
            (_, Some(after), Some(last)) if more && last.seq > after => {
                self.changes = Some(last.seq)
            }
            _ => self.changes = None,
        }
    }

    /// A page of participants came.
    pub(super) fn participants(&mut self, cursor: Option<String>) -> Progress {
        self.answered();
        self.cursor = cursor;
        if self.cursor.is_some() {
            Progress::Goes
        } else {
            Progress::Done
        }
    }

    fn answered(&mut self) -> Option<Reading> {
        self.retry = Retry::default();
        self.under_way.take().map(|(_, reading)| reading)
    }

    /// The page was refused for now. A cursor may not outlive what it was made from: the list is read anew.
    pub(super) fn failed(&mut self) -> &mut Retry {
        (self.under_way, self.cursor) = (None, None);
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
        Ask::ChannelList(ListPage {
            cursor: self.cursor.clone(),
            limit,
        })
    }

    /// A page came.
    pub(super) fn page(&mut self, cursor: Option<String>) -> Progress {
        let progress = if cursor.is_some() {
            Progress::Goes
        } else {
            Progress::Done
        };
        *self = Self {
            cursor,
            ..Self::default()
        };
        progress
    }

    /// The page was refused for now: the list is read anew.
    pub(super) fn failed(&mut self) -> &mut Retry {
        (self.cursor, self.is_under_way) = (None, false);
        &mut self.retry
    }
}
