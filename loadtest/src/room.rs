//! A channel with stored messages: its members' witness, and how they send.

use std::sync::{Arc, atomic::Ordering};

use anyhow::{Context, Result};
use client::{Backoff, PendingReply, Refusal, RequestError, Session};
use parking_lot::Mutex;
use protocol::{ChannelId, ErrorCode, UserId, params::ListMessages, results::MessageResult};
use tokio::{
    sync::mpsc,
    time::{Duration, sleep},
};

use crate::{
    member::{Member, Witness},
    pace::Clock,
    script::Script,
    stage::{Counters, Stage},
    told::{Message, Name, Told},
    verify::{self, Index, Tally},
};

/// Waits before something is asked again whose reply never came.
const AGAIN: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));

/// Of so many messages one is deleted, where any are.
const DELETED: Index = 16;

/// When messages were due, and who wants to know of their fate.
pub trait Pacing: Send + Sync + 'static {
    /// When a message was due, in microseconds of the run's clock.
    fn due(&self, message: Index) -> u64;
    /// A subscriber has it.
    fn delivered(&self, _message: Index) {}
    /// Nobody will get it.
    fn refused(&self, _message: Index) {}
}

/// A channel of the run.
pub struct Room {
    /// Which.
    pub id: ChannelId,
    check: Mutex<verify::Channel>,
    stage: Arc<Stage>,
    script: Arc<Script>,
    pacing: Arc<dyn Pacing>,
    clock: Clock,
    /// Who comes and goes.
    guest: Option<(UserId, usize)>,
    /// Whether every sixteenth message is deleted again.
    deletes: bool,
}

impl Room {
    /// A channel whose subscribers are these users.
    pub fn new(
        id: ChannelId,
        subscribers: &[UserId],
        stage: &Arc<Stage>,
        script: &Arc<Script>,
        pacing: Arc<dyn Pacing>,
        clock: Clock,
    ) -> Self {
        let check = Mutex::new(verify::Channel::new(
            id.as_str(),
            subscribers.iter().map(UserId::as_str),
        ));
        Self {
            id,
            check,
            stage: stage.clone(),
            script: script.clone(),
            pacing,
            clock,
            guest: None,
            deletes: false,
        }
    }

    /// The same where nodes and store are known to keep this much.
    pub fn on(self, terms: Option<verify::Terms>) -> Self {
        let Self { check, .. } = self;
        let check = match terms {
            Some(terms) => Mutex::new(check.into_inner().on(terms)),
            None => check,
        };
        Self { check, ..self }
    }

    /// The same with a subscriber that comes and goes, its last, and with messages that are deleted again.
    pub fn with_change(mut self, subscribers: &[UserId]) -> Self {
        self.guest = subscribers
            .last()
            .map(|guest| (guest.clone(), subscribers.len() - 1));
        self.deletes = true;
        self
    }

    /// Whether everybody has everything that was acknowledged so far.
    pub fn is_complete(&self) -> bool {
        self.check.lock().is_complete()
    }

    /// What it comes to. Asked once, at the end.
    pub fn finish(&self) -> Tally {
        std::mem::replace(&mut *self.check.lock(), verify::Channel::new("", [""; 0])).finish()
    }

    /// Lists the whole channel, and checks what is in it.
    pub async fn check_list(&self, session: &Session) -> Result<()> {
        let mut shown = Vec::new();
        let mut after = 0;
        loop {
            let which = ListMessages {
                after: Some(after),
                limit: session.connected().limits.get("page").copied(),
                ..Default::default()
            };
            let page = match session.messages(&self.id, &which).await {
                Ok(page) => page,
                Err(RequestError::Refused(error)) if error.code == ErrorCode::RateLimited => {
                    sleep(Duration::from_millis(error.retry_after_ms.unwrap_or(100))).await;
                    continue;
                }
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("Channel {} cannot be listed", self.id));
                }
            };
            let last = page.items.last().map(|message| message.number);
            shown.extend(
                page.items
                    .into_iter()
                    .map(|message| self.script.read(&self.id, &message.into())),
            );
            match last {
                Some(last) if page.more && last > after => after = last,
                _ => break,
            }
        }
        self.check.lock().listed(shown);
        Ok(())
    }

    /// Starts to send, in order, what is put into the answered queue, in the name of this member.
    pub fn sender(self: &Arc<Self>, by: usize, member: Member) -> mpsc::UnboundedSender<Index> {
        let (queue, mut due) = mpsc::unbounded_channel();
        let sender = Sender {
            room: self.clone(),
            by,
            member,
        };
        tokio::spawn(async move {
            while let Some(message) = due.recv().await {
                let first = sender.begin(message).await;
                tokio::spawn(sender.clone().settle(message, first));
            }
        });
        queue
    }
}

impl Witness for Room {
    fn connects(&self, who: usize) {
        self.check.lock().connects(who);
    }

    fn goes_on(&self, who: usize, head: u64) {
        self.check.lock().goes_on(who, head);
    }

    fn removed(&self, who: usize) {
        self.check.lock().removed(who);
    }

    fn told_diverged(&self, who: usize, head: u64) {
        self.check.lock().told_diverged(who, head);
    }

    fn read_changes(
        &self,
        who: usize,
        after: u64,
        head: u64,
        messages: Vec<protocol::model::Message>,
    ) {
        let shown = messages
            .into_iter()
            .map(|message| self.script.read(&self.id, &message.into()));
        self.check.lock().read_changes(who, after, head, shown);
    }

    fn starts(&self, who: usize, seq: u64, number: u64) {
        self.check.lock().starts(who, seq, number);
    }

    fn told(&self, who: usize, told: &Told, frame: usize) {
        match (told.event, told.seq, &told.data.message) {
            (Name::MessageCreated, Some(seq), Some(message)) => {
                let mut shown = self.script.read(&self.id, message);
                // A deleted message is told as it is now.
                shown.intact &= if shown.deleted {
                    shown.seq > seq
                } else {
                    shown.seq == seq
                };
                shown.seq = seq;
                if let Some(message) = shown.message {
                    let late = self.clock.now().saturating_sub(self.pacing.due(message));
                    self.stage.delivery.record(who, late);
                }
                self.check.lock().saw(who, shown);
                Counters::count(&self.stage.counters.delivered);
                self.stage
                    .counters
                    .delivered_bytes
                    .fetch_add(frame as u64, Ordering::Relaxed);
                shown
                    .message
                    .into_iter()
                    .for_each(|message| self.pacing.delivered(message));
            }
            (name, Some(seq), _) => {
                let mut check = self.check.lock();
                check.saw_other(who, seq, &format!("{name:?}"));
                if let (Some(participant), Some((guest, place))) =
                    (&told.data.participant, &self.guest)
                    && participant.user_id == *guest
                {
                    match name {
                        Name::ParticipantRemoved => check.removal(*place, seq),
                        Name::ParticipantAdded => check.addition(*place, seq),
                        _ => {}
                    }
                }
            }
            (_, None, _) => {}
        }
    }

    fn told_gap(&self, who: usize, head: u64) {
        self.check.lock().told_gap(who, head);
    }

    fn foreign(&self, who: usize, what: &str) {
        self.check.lock().saw_foreign(who, what);
    }
}

#[derive(Clone)]
struct Sender {
    room: Arc<Room>,
    by: usize,
    member: Member,
}

impl Sender {
    /// Sends a message for the first time. None if there is no session at this moment.
    async fn begin(&self, message: Index) -> Option<Result<PendingReply, RequestError>> {
        let Room {
            check,
            stage,
            script,
            id,
            ..
        } = &*self.room;
        check.lock().sending(message, self.by);
        Counters::count(&stage.counters.sent);
        Counters::count(&stage.counters.pending);
        Some(
            self.member
                .session()?
                .begin_send(id, &script.message(message))
                .await,
        )
    }

    /// Sees a message to its end: acknowledged, refused, or sent again with the same id for as long as the run goes on.
    async fn settle(
        mut self,
        message: Index,
        mut begun: Option<Result<PendingReply, RequestError>>,
    ) {
        let room = self.room.clone();
        let Room {
            check,
            stage,
            script,
            id,
            ..
        } = &*room;
        let mut backoff = AGAIN;
        loop {
            let reply = match begun {
                Some(Ok(pending)) => Some(pending.reply::<MessageResult>().await),
                Some(Err(error)) => Some(Err(error)),
                None => None,
            };
            match reply {
                Some(Ok(MessageResult { message: stored })) => {
                    let late = room.clock.now().saturating_sub(room.pacing.due(message));
                    stage.acknowledgement.record(self.by, late);
                    check
                        .lock()
                        .acknowledged(message, script.read(id, &Message::from(stored)));
                    Counters::count(&stage.counters.acknowledged);
                    if room.deletes && message.is_multiple_of(DELETED) {
                        self.delete(message).await;
                    }
                    break;
                }
                Some(Err(RequestError::Refused(error))) => match Refusal::of(&error) {
                    Refusal::TooFast(_) => {
                        Counters::count(&stage.counters.rate_limited);
                        self.refuse(message);
                        break;
                    }
                    Refusal::Passing(_) => stage.counters.trouble(format!("message.send: {error}")),
                    // Whether it is stored is unknown: the reply is that of a defect.
                    Refusal::Defect => {
                        stage.counters.trouble(format!("message.send: {error}"));
                        room.pacing.refused(message);
                        break;
                    }
                    Refusal::Definite => {
                        stage.counters.trouble(format!("message.send: {error}"));
                        check.lock().denied(message, &error.to_string());
                        room.pacing.refused(message);
                        break;
                    }
                },
                Some(Err(error)) => stage.counters.trouble(format!("message.send: {error}")),
                None => {}
            }
            check.lock().retrying(message);
            sleep(backoff.wait(rand::random())).await;
            let Some(session) = self.member.connected().await else {
                break;
            };
            begun = Some(session.begin_send(id, &script.message(message)).await);
        }
        stage.counters.pending.fetch_sub(1, Ordering::Relaxed);
    }

    /// Deletes a message, however often it takes.
    async fn delete(&mut self, message: Index) {
        let room = self.room.clone();
        let Room {
            check,
            stage,
            script,
            id,
            ..
        } = &*room;
        let Some(message_id) = script.message(message).message_id else {
            return;
        };
        check.lock().deleting(message);
        let mut backoff = AGAIN;
        while let Some(session) = self.member.connected().await {
            match session.delete_message(id, &message_id).await {
                Ok(()) => return check.lock().deleted(message),
                Err(error) => stage.counters.trouble(format!("message.delete: {error}")),
            }
            sleep(backoff.wait(rand::random())).await;
        }
    }

    fn refuse(&self, message: Index) {
        self.room.check.lock().refused(message);
        self.room.pacing.refused(message);
    }
}
