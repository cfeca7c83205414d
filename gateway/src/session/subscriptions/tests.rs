//! Tests of the state machine against a model of the store, the hub and a client, in simulated
//! time. For any order of acts, the client receives every event of its channels once and in order,
//! or a gap.

mod cases;
mod model;

use std::{cell::Cell, collections::VecDeque, convert::identity, rc::Rc};

use self::model::{
    Change, Channel, ClientPosition, Record, StreamNotice, Subscription, drop_all, id, number,
};
use super::*;

const CHANNELS: usize = 3;

#[derive(Debug, Clone)]
enum Act {
    Post(usize),
    Add(usize),
    Remove(usize),
    /// A removal that reaches the channel, and the user's stream later or never.
    RemoveHalf(usize),
    CompleteRemoval(usize),
    /// A failover loses a half removal and everything after it.
    LoseRemoval(usize),
    /// A failover loses a removal, or the user's stream loses an addition.
    AddWithoutNotice(usize),
    /// The session compares its subscriptions with the store.
    Compare,
    /// The user's stream delivers the next notice.
    DeliverNotice,
    /// The channel's subscription receives the next record.
    Deliver(usize),
    Subscribe(usize),
    Unsubscribe(usize),
    /// The change in progress reads the entry.
    Read,
    /// The change in progress succeeds.
    Finish,
    /// The change in progress fails.
    Fail,
    /// The step in progress is postponed.
    Postpone,
    /// The steps that are due begin.
    Work,
    RecoverEnded,
    Open,
    Pass(u64),
}

struct World {
    now: Instant,
    machine: Subscriptions<Subscription>,
    channels: Vec<Rc<Channel>>,
    /// All subscriptions that were started.
    started: Vec<(usize, Subscription)>,
    notices: VecDeque<StreamNotice>,
    changes: VecDeque<Change>,
    client: Vec<ClientPosition>,
    /// Whether the client unsubscribed since the last addition.
    has_left: Vec<bool>,
    is_open: bool,
    /// Whether the next comparison fails.
    fails_comparison: bool,
}

impl World {
    fn new(limit: u64) -> Self {
        Self {
            now: Instant::now(),
            machine: Subscriptions::new(true, limit),
            channels: (0..CHANNELS).map(|_| Rc::default()).collect(),
            started: Vec::new(),
            notices: VecDeque::new(),
            changes: VecDeque::new(),
            client: vec![ClientPosition::Nothing; CHANNELS],
            has_left: vec![false; CHANNELS],
            is_open: false,
            fails_comparison: true,
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Post(n) => self.channels[n].records.borrow_mut().push(Record::Message),
            Act::Add(n) => {
                let channel = &self.channels[n];
                if !channel.is_participant.get() && channel.half_removed.get().is_none() {
                    channel.records.borrow_mut().push(Record::Joined);
                    channel.is_participant.set(true);
                    self.notices
                        .push_back(StreamNotice::Added(n, channel.head()));
                }
            }
            Act::Remove(n) if self.remove(n) => self.notices.push_back(StreamNotice::Removed(n)),
            Act::RemoveHalf(n) if self.remove(n) => {
                let channel = &self.channels[n];
                channel
                    .half_removed
                    .set(Some(channel.records.borrow().len() - 1));
            }
            Act::Remove(_) | Act::RemoveHalf(_) => {}
            Act::CompleteRemoval(n) => {
                if self.channels[n].half_removed.take().is_some() {
                    self.notices.push_back(StreamNotice::Removed(n));
                }
            }
            Act::LoseRemoval(n) => self.lose_removal(n),
            Act::AddWithoutNotice(n) => self.add_without_notice(n),
            Act::Compare => self.machine.compare(self.now),
            Act::DeliverNotice => self.deliver_notice(),
            Act::Deliver(n) => self.deliver(n),
            Act::Subscribe(n) if self.is_open && self.changes.is_empty() => self.subscribe(n),
            Act::Unsubscribe(n) if self.is_open && self.changes.is_empty() => {
                let ended = self.machine.unsubscribe(&[id(n)]);
                drop_all(ended);
                self.has_left[n] = true;
                self.client[n] = ClientPosition::Nothing;
            }
            Act::Subscribe(_) | Act::Unsubscribe(_) => {}
            Act::Read => self.read(),
            Act::Finish => self.finish(),
            Act::Fail => self.fail(),
            Act::Postpone => self.postpone(),
            Act::Work => self.work(),
            Act::RecoverEnded => self.machine.recover_ended(self.now),
            Act::Open => {
                self.is_open = true;
                drop_all(self.machine.opened(self.now));
            }
            Act::Pass(ms) => self.now += Duration::from_millis(ms),
        }
    }

    fn remove(&self, n: usize) -> bool {
        let channel = &self.channels[n];
        let was_in = channel.is_participant.replace(false);
        if was_in {
            channel.records.borrow_mut().push(Record::Removed);
        }
        was_in
    }

    fn lose_removal(&mut self, n: usize) {
        let channel = &self.channels[n];
        let Some(before) = channel.half_removed.take() else {
            return;
        };
        channel.records.borrow_mut().truncate(before);
        channel.epoch.set(channel.epoch.get() + 1);
        channel.is_participant.set(true);
        // The hub finds that the topic has diverged, and sends a gap to the subscribers.
        let head = channel.head();
        for (_, subscription) in self
            .started
            .iter()
            .filter(|(of, s)| *of == n && s.is_live())
        {
            subscription.cursor.set(head);
            self.client[n] = ClientPosition::UpTo(head);
        }
    }

    fn add_without_notice(&mut self, n: usize) {
        let channel = &self.channels[n];
        let is_known = channel.is_participant.get()
            || channel.half_removed.get().is_some()
            || (self.notices.iter())
                .any(|notice| matches!(notice, StreamNotice::Added(of, _) | StreamNotice::Removed(of) if *of == n));
        if !is_known {
            channel.epoch.set(channel.epoch.get() + 1);
            channel.is_participant.set(true);
            self.machine.compare(self.now);
        }
    }

    fn deliver_notice(&mut self) {
        match self.notices.pop_front() {
            Some(StreamNotice::Added(n, position)) => {
                // The client keeps a position that it has from a reply.
                if self.client[n] == ClientPosition::Nothing {
                    self.client[n] = ClientPosition::UpTo(position);
                }
                self.has_left[n] = false;
                self.machine.added(id(n), position, self.now);
            }
            Some(StreamNotice::Removed(n)) => {
                drop_all(self.machine.removed(id(n)));
                self.client[n] = ClientPosition::Nothing;
            }
            None => {}
        }
    }

    fn live(&self, n: usize) -> Option<Subscription> {
        let mut live = self
            .started
            .iter()
            .filter(|(of, subscription)| *of == n && subscription.is_live());
        let first = live.next().map(|(_, subscription)| subscription.clone());
        assert!(live.next().is_none(), "two subscriptions to one channel");
        first
    }

    fn deliver(&mut self, n: usize) {
        let Some(subscription) = self.live(n) else {
            return;
        };
        let Position { seq, at } = subscription.cursor.get();
        let channel = &self.channels[n];
        if at != channel.epoch.get() || seq > channel.head().seq {
            subscription.cursor.set(channel.head());
            self.client[n] = ClientPosition::UpTo(channel.head());
            return;
        }
        let Some(record) = channel.records.borrow().get(seq as usize).copied() else {
            return;
        };
        let position = Position { seq: seq + 1, at };
        subscription.cursor.set(position);
        if record == Record::Removed {
            subscription.is_ended.set(true);
            return;
        }
        match self.client[n] {
            ClientPosition::UpTo(received) if received.at == at => {
                assert_eq!(
                    received.seq + 1,
                    position.seq,
                    "an event is missing or doubled"
                );
            }
            received => panic!("an event at {position:?} but the client is at {received:?}"),
        }
        self.client[n] = ClientPosition::UpTo(position);
    }

    fn subscribe(&mut self, n: usize) {
        let asked = id(n);
        let interrupted = match self.machine.admit(std::iter::once(&asked), self.now)[0] {
            SubscriptionAdmission::New => None,
            SubscriptionAdmission::Restart(position) => Some(position),
            SubscriptionAdmission::OverLimit => return,
        };
        self.machine.begin([&asked]);
        drop_all(self.machine.take([&asked]));
        self.changes.push_back(Change {
            why: None,
            channel: n,
            after: None,
            interrupted,
            entry: None,
        });
    }

    fn work(&mut self) {
        if !self.changes.is_empty() {
            return;
        }
        let Next::Now(steps) = self.machine.next(self.now) else {
            return;
        };
        for step in steps {
            match step {
                SubscriptionStep::Subscribe { id, why, .. } => self.changes.push_back(Change {
                    why: Some(why),
                    channel: number(&id),
                    after: Some(why.position()),
                    interrupted: None,
                    entry: None,
                }),
                SubscriptionStep::Compare { attempts } if self.fails_comparison => {
                    self.fails_comparison = false;
                    let now = self.now;
                    self.machine.retry_comparison(attempts, now, identity);
                }
                SubscriptionStep::Compare { .. } => self.compare(),
                SubscriptionStep::ReportLimit { id, position } => {
                    self.client[number(&id)] = ClientPosition::UpTo(position);
                }
            }
        }
    }

    fn compare(&mut self) {
        // The index also lists half-removed participants.
        let is_listed = |n: &usize| {
            let channel = &self.channels[*n];
            channel.is_participant.get() || channel.half_removed.get().is_some()
        };
        let listed = (0..CHANNELS).filter(is_listed).map(id).collect();
        let (missing, _) = self.machine.missing(listed);
        self.machine.listed(missing, self.now);
    }

    fn read(&mut self) {
        if let Some(change) = self.changes.front_mut() {
            let channel = &self.channels[change.channel];
            let entry = channel.is_participant.get().then(|| channel.head());
            change.entry.get_or_insert(entry);
        }
    }

    fn finish(&mut self) {
        self.read();
        let Some(change) = self.changes.pop_front() else {
            return;
        };
        let n = change.channel;
        let is_found = change.entry.flatten().is_some();
        if change.why.is_none() && self.machine.is_stale(&id(n), is_found) {
            // The reply has an error, and the client asks again.
            self.changes.push_front(change);
            return self.fail();
        }
        let Some(head) = change.entry.flatten() else {
            match change.why {
                Some(why) => {
                    self.machine.not_found_in_channel(&id(n), why, self.now);
                    let channel = &self.channels[n];
                    if !channel.is_participant.get() && channel.half_removed.get().is_none() {
                        self.machine.confirm_removal(&id(n));
                    }
                }
                // A pending addition still starts at its own position.
                None if self.machine.pending.contains_key(&id(n)) => {}
                None => {
                    (self.client[n], self.has_left[n]) = (ClientPosition::Nothing, true);
                }
            }
            return;
        };
        // The log continues at a position of the same epoch.
        let continues_at = change
            .after
            .filter(|after| after.at == head.at && after.seq <= head.seq);
        let may_have_missed = change.why.is_none_or(SubscribeReason::may_have_missed);
        let cursor = match continues_at {
            Some(after) if !may_have_missed => after,
            _ => head,
        };
        let subscription = Subscription {
            cursor: Rc::new(Cell::new(cursor)),
            is_ended: Rc::default(),
            is_dropped: Rc::default(),
        };
        let is_started = Cell::new(false);
        let replaced = self.machine.start(id(n), change.why, || {
            is_started.set(true);
            subscription.clone()
        });
        drop_all(replaced);
        if is_started.get() {
            // A step that may have missed events sends a gap, and a request's reply has the entry.
            // A reply that an addition has overtaken changes nothing.
            let is_newer = match self.client[n] {
                ClientPosition::UpTo(received) => received.at != head.at || received.seq < head.seq,
                ClientPosition::Nothing => true,
            };
            if (change.why.is_none() || cursor == head) && is_newer {
                self.client[n] = ClientPosition::UpTo(head);
            }
            if change.why.is_none() {
                self.has_left[n] = false;
            }
            self.started.push((n, subscription));
        }
    }

    fn fail(&mut self) {
        let Some(change) = self.changes.pop_front() else {
            return;
        };
        let asked = id(change.channel);
        match (change.why, change.interrupted) {
            (Some(why), _) => self.machine.retry(&asked, why, self.now, identity),
            (None, Some(interrupted)) => self
                .machine
                .interrupted(vec![(asked, interrupted)], self.now),
            (None, None) => {}
        }
    }

    fn postpone(&mut self) {
        let is_step = |change: &mut Change| change.why.is_some();
        let Some(change) = self.changes.pop_front_if(is_step) else {
            return;
        };
        if let Some(why) = change.why {
            let due = self.now + Duration::from_secs(2);
            self.machine.postpone(&id(change.channel), why, due);
        }
    }

    /// Lets everything that is in progress succeed.
    fn finish_all(&mut self) {
        self.act(Act::Open);
        for n in 0..CHANNELS {
            self.act(Act::CompleteRemoval(n));
        }
        for _ in 0..2 {
            while !self.notices.is_empty() {
                self.act(Act::DeliverNotice);
            }
            for _ in 0..50 {
                for _ in 0..CHANNELS {
                    self.act(Act::Finish);
                }
                for n in 0..CHANNELS {
                    (0..200).for_each(|_| self.act(Act::Deliver(n)));
                }
                self.act(Act::Work);
                self.act(Act::Pass(100));
            }
            self.act(Act::RecoverEnded);
            self.act(Act::Pass(400_000));
        }
    }
}
