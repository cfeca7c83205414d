//! Recovery after a gap: reads the missed entities, page by page, across any number of connections.

use std::collections::BTreeSet;

use protocol::{
    ChannelId,
    entity::{Entry, Gap, Message},
    operation::{message::ListMessages, page::ListPage},
};

use super::{ClientRequest, RequestId, retry::RetryTimer};

/// The reads of a channel that are still to be done: the newest messages, then the changes, then
/// the participants.
#[derive(Debug)]
pub(super) struct GapRecovery {
    /// Whether to read the newest messages, since the history was discarded.
    newest: bool,
    /// Read the messages that changed after this `seq`.
    changes: Option<u64>,
    /// Cursor of the next page of participants.
    cursor: Option<String>,
    in_flight: Option<(RequestId, PageKind)>,
    pub(super) retry: RetryTimer,
}

/// The content of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PageKind {
    NewestMessages,
    ChangedMessages,
    Participants,
}

/// Whether more pages follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadProgress {
    More,
    Done,
}

impl GapRecovery {
    /// Creates the recovery from a gap after this `seq`, and includes the remaining reads of an
    /// earlier recovery.
    pub(super) fn after(gap: Gap, seq: u64, before: Option<Self>) -> Self {
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
            in_flight: None,
            retry: RetryTimer::default(),
        }
    }

    /// Returns the next request.
    pub(super) fn request(
        &mut self,
        channel_id: &ChannelId,
        limit: Option<u64>,
        request_id: RequestId,
    ) -> ClientRequest {
        let (channel_id, messages) = (
            channel_id.clone(),
            ListMessages {
                limit,
                ..ListMessages::default()
            },
        );
        let (kind, request) = match self.changes {
            _ if self.newest => (
                PageKind::NewestMessages,
                ClientRequest::MessageList {
                    channel_id,
                    which: messages,
                },
            ),
            Some(after) => (
                PageKind::ChangedMessages,
                ClientRequest::MessageList {
                    channel_id,
                    which: ListMessages {
                        changed_after: Some(after),
                        ..messages
                    },
                },
            ),
            None => (
                PageKind::Participants,
                ClientRequest::ParticipantList {
                    channel_id,
                    page: ListPage {
                        cursor: self.cursor.clone(),
                        limit,
                    },
                },
            ),
        };
        self.in_flight = Some((request_id, kind));
        request
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    pub(super) fn is_answered_by(&self, request_id: RequestId) -> bool {
        self.in_flight
            .is_some_and(|(awaited, _)| awaited == request_id)
    }

    /// Handles a page of messages.
    pub(super) fn messages(&mut self, items: &[Message], more: bool) {
        match (self.answered(), self.changes, items.last()) {
            (Some(PageKind::NewestMessages), ..) => self.newest = false,
            (_, Some(after), Some(last)) if more && last.seq > after => {
                self.changes = Some(last.seq)
            }
            _ => self.changes = None,
        }
    }

    /// Handles a page of participants.
    pub(super) fn participants(&mut self, cursor: Option<String>) -> ReadProgress {
        self.answered();
        self.cursor = cursor;
        if self.cursor.is_some() {
            ReadProgress::More
        } else {
            ReadProgress::Done
        }
    }

    fn answered(&mut self) -> Option<PageKind> {
        self.retry = RetryTimer::default();
        self.in_flight.take().map(|(_, kind)| kind)
    }

    /// Handles a temporary error. The list of participants starts over: a cursor may expire.
    pub(super) fn retry_later(&mut self) -> &mut RetryTimer {
        (self.in_flight, self.cursor) = (None, None);
        &mut self.retry
    }

    pub(super) fn disconnected(&mut self) {
        *self.retry_later() = RetryTimer::default();
    }
}

/// The user's channels that are still to be read: all of them after a gap in the user's own stream,
/// or the unknown ones.
#[derive(Debug, Default)]
pub(super) struct ChannelListRecovery {
    /// The channels of which only positions are known. `None` after a gap: the whole list is read.
    unknown: Option<BTreeSet<ChannelId>>,
    cursor: Option<String>,
    pub(super) is_in_flight: bool,
    pub(super) retry: RetryTimer,
}

impl ChannelListRecovery {
    /// Adds channels of which only positions are known to the channels that are still to be read.
    pub(super) fn with_unknown(before: Option<Self>, ids: BTreeSet<ChannelId>) -> Self {
        match before {
            None => Self {
                unknown: Some(ids),
                ..Self::default()
            },
            // The list may have passed them already.
            Some(Self {
                unknown: Some(unknown),
                ..
            }) => Self {
                unknown: Some(&unknown | &ids),
                ..Self::default()
            },
            Some(whole) => whole,
        }
    }

    /// Returns whether a gap in the user's own stream requires it.
    pub(super) fn is_after_gap(&self) -> bool {
        self.unknown.is_none()
    }

    pub(super) fn request(&mut self, limit: Option<u64>) -> ClientRequest {
        self.is_in_flight = true;
        ClientRequest::ChannelList(ListPage {
            cursor: self.cursor.clone(),
            limit,
        })
    }

    /// Handles a page of channels.
    pub(super) fn page(&mut self, items: &[Entry], cursor: Option<String>) -> ReadProgress {
        let mut unknown = self.unknown.take();
        if let Some(unknown) = &mut unknown {
            items.iter().for_each(|entry| {
                unknown.remove(&entry.channel_id);
            });
        }
        let is_known = unknown.as_ref().is_some_and(BTreeSet::is_empty);
        let progress = if cursor.is_some() && !is_known {
            ReadProgress::More
        } else {
            ReadProgress::Done
        };
        *self = Self {
            unknown,
            cursor,
            ..Self::default()
        };
        progress
    }

    /// Handles a temporary error. The list starts over.
    pub(super) fn retry_later(&mut self) -> &mut RetryTimer {
        (self.cursor, self.is_in_flight) = (None, false);
        &mut self.retry
    }

    pub(super) fn disconnected(&mut self) {
        *self.retry_later() = RetryTimer::default();
    }
}
