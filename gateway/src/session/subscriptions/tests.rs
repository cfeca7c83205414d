//! The machine against a model of the store, the hub and a client, in simulated time: whatever
//! happens in whatever order, the client hears every event of its channels once and in order, or is
//! told of a gap.

mod cases;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    convert::identity,
    rc::Rc,
};

use super::*;

const CHANNELS: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Record {
    Message,
    /// The user came into the channel. Its subscribers are told as of any event.
    Joined,
    /// The user was removed: its subscriptions end.
    Removed,
}

/// A channel as the store has it. The record at index `n` has the `seq` `n + 1`.
#[derive(Debug, Default)]
struct Channel {
    records: RefCell<Vec<Record>>,
    is_participant: Cell<bool>,
    /// A removal that the user's stream does not tell yet: where it stands.
    half_removed: Cell<Option<usize>>,
    /// Records that a failover has lost: a position from before it stands for nothing.
    epoch: Cell<u64>,
}

impl Channel {
    fn head(&self) -> Position {
        Position {
            seq: self.records.borrow().len() as u64,
            at: self.epoch.get(),
        }
    }
}

/// A subscription of the model: it reads the records itself.
#[derive(Debug, Clone)]
struct Subscription {
    cursor: Rc<Cell<Position>>,
    is_ended: Rc<Cell<bool>>,
    is_dropped: Rc<Cell<bool>>,
}

impl Handle for Subscription {
    fn is_ended(&self) -> bool {
        self.is_ended.get()
    }

    fn topic_position(&self) -> Position {
        self.cursor.get()
    }
}

/// What the client of the model knows of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Nothing,
    UpTo(Position),
}

#[derive(Debug, Clone, Copy)]
enum Told {
    Added(usize, Position),
    Removed(usize),
}

/// A change of subscriptions under way.
#[derive(Debug)]
struct Change {
    /// Of a step; none of a request.
    why: Option<Why>,
    channel: usize,
    /// Where the stream goes on; a request goes on from the entry.
    after: Option<Position>,
    /// What the request took, to be restored where it fails.
    had: Option<Position>,
    /// How many additions to the channel the client had been told of as it began.
    additions: usize,
    /// The entry, once read: `None` where the user is not in the channel.
    entry: Option<Option<Position>>,
}

#[derive(Debug, Clone)]
enum Act {
    Post(usize),
    Add(usize),
    Remove(usize),
    /// The removal reaches the channel, and its user's stream later or never.
    RemoveHalf(usize),
    CompleteRemoval(usize),
    /// A failover loses a half removal and all after it.
    LoseRemoval(usize),
    /// A failover loses that the user was removed, or what the user's stream says of an addition.
    ComeInUntold(usize),
    /// The session compares its subscriptions with the store.
    Compare,
    /// The user's stream tells the next thing.
    TellNext,
    /// The channel's subscription hears the next record.
    Deliver(usize),
    Subscribe(usize),
    Unsubscribe(usize),
    /// The change under way reads the entry.
    Read,
    /// The change under way ends well.
    Finish,
    /// The change under way fails.
    Fail,
    /// The step under way is postponed.
    Postpone,
    /// What is due outside of requests begins.
    Work,
    DoubtEnded,
    Open,
    Pass(u64),
}

struct World {
    now: Instant,
    machine: Subscriptions<Subscription>,
    channels: Vec<Rc<Channel>>,
    /// All that were started.
    started: Vec<(usize, Subscription)>,
    own: VecDeque<Told>,
    changes: VecDeque<Change>,
    client: Vec<Heard>,
    /// Whether the client unsubscribed since it was last told that it came in.
    has_left: Vec<bool>,
    /// How many additions to each channel the client was told of.
    additions: Vec<usize>,
    /// The position of the addition that the client was told last, unless a removal followed.
    added_at: Vec<Option<Position>>,
    is_open: bool,
    /// Whether the next comparison fails.
    fails_comparison: bool,
}

fn id(channel: usize) -> ChannelId {
    format!("c{channel}").parse().expect("a valid id")
}

fn number(id: &ChannelId) -> usize {
    id.as_str()[1..].parse().expect("an id of the model")
}

impl World {
    fn new(limit: u64) -> Self {
        Self {
            now: Instant::now(),
            machine: Subscriptions::new(true, limit),
            channels: (0..CHANNELS).map(|_| Rc::default()).collect(),
            started: Vec::new(),
            own: VecDeque::new(),
            changes: VecDeque::new(),
            client: vec![Heard::Nothing; CHANNELS],
            has_left: vec![false; CHANNELS],
            additions: vec![0; CHANNELS],
            added_at: vec![None; CHANNELS],
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
                    self.own.push_back(Told::Added(n, channel.head()));
                }
            }
            Act::Remove(n) if self.remove(n) => self.own.push_back(Told::Removed(n)),
            Act::RemoveHalf(n) if self.remove(n) => {
                let channel = &self.channels[n];
                channel
                    .half_removed
                    .set(Some(channel.records.borrow().len() - 1));
            }
            Act::Remove(_) | Act::RemoveHalf(_) => {}
            Act::CompleteRemoval(n) => {
                if self.channels[n].half_removed.take().is_some() {
                    self.own.push_back(Told::Removed(n));
                }
            }
            Act::LoseRemoval(n) => self.lose_removal(n),
            Act::ComeInUntold(n) => self.come_in_untold(n),
            Act::Compare => self.machine.compare(self.now),
            Act::TellNext => self.tell_next(),
            Act::Deliver(n) => self.deliver(n),
            Act::Subscribe(n) if self.is_open && self.changes.is_empty() => self.subscribe(n),
            Act::Unsubscribe(n) if self.is_open && self.changes.is_empty() => {
                let ended = self.machine.unsubscribe(&[id(n)]);
                drop_all(ended);
                self.has_left[n] = true;
                self.client[n] = Heard::Nothing;
            }
            Act::Subscribe(_) | Act::Unsubscribe(_) => {}
            Act::Read => self.read(),
            Act::Finish => self.finish(),
            Act::Fail => self.fail(),
            Act::Postpone => self.postpone(),
            Act::Work => self.work(),
            Act::DoubtEnded => self.machine.doubt_ended(self.now),
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
        // The hub finds that the position of its topic stands for nothing, and tells a gap to those
        // that listen.
        let head = channel.head();
        for (_, subscription) in self
            .started
            .iter()
            .filter(|(of, s)| *of == n && s.is_live())
        {
            subscription.cursor.set(head);
            self.client[n] = Heard::UpTo(head);
        }
    }

    fn come_in_untold(&mut self, n: usize) {
        let channel = &self.channels[n];
        let is_known = channel.is_participant.get()
            || channel.half_removed.get().is_some()
            || (self.own.iter())
                .any(|told| matches!(told, Told::Added(of, _) | Told::Removed(of) if *of == n));
        if !is_known {
            channel.epoch.set(channel.epoch.get() + 1);
            channel.is_participant.set(true);
            self.machine.compare(self.now);
        }
    }

    fn tell_next(&mut self) {
        match self.own.pop_front() {
            Some(Told::Added(n, position)) => {
                // Where its stream is running already, an addition changes nothing.
                if self.client[n] == Heard::Nothing || self.live(n).is_none() {
                    self.client[n] = Heard::UpTo(position);
                }
                self.has_left[n] = false;
                self.additions[n] += 1;
                self.added_at[n] = Some(position);
                self.machine.added(id(n), position, self.now);
            }
            Some(Told::Removed(n)) => {
                drop_all(self.machine.removed(id(n)));
                (self.client[n], self.added_at[n]) = (Heard::Nothing, None);
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
            self.client[n] = Heard::UpTo(channel.head());
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
            Heard::UpTo(heard) if heard.at == at => {
                assert_eq!(
                    heard.seq + 1,
                    position.seq,
                    "an event is missing or doubled"
                );
            }
            heard => panic!("an event at {position:?} where the client had heard {heard:?}"),
        }
        self.client[n] = Heard::UpTo(position);
    }

    fn subscribe(&mut self, n: usize) {
        let asked = id(n);
        let had = match self.machine.admit(std::iter::once(&asked), self.now)[0] {
            Admission::New => None,
            Admission::Restart(position) => Some(position),
            Admission::OverLimit => return,
        };
        drop_all(self.machine.take([&asked]));
        self.changes.push_back(Change {
            why: None,
            channel: n,
            after: None,
            had,
            additions: self.additions[n],
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
                Step::Subscribe { id, why, .. } => self.changes.push_back(Change {
                    why: Some(why),
                    channel: number(&id),
                    after: Some(why.position()),
                    had: None,
                    additions: self.additions[number(&id)],
                    entry: None,
                }),
                Step::Compare { attempts } if self.fails_comparison => {
                    self.fails_comparison = false;
                    let now = self.now;
                    self.machine.retry_comparison(attempts, now, identity);
                }
                Step::Compare { .. } => self.compare(),
                Step::TellLimit { id, position } => {
                    self.client[number(&id)] = Heard::UpTo(position);
                }
            }
        }
    }

    fn compare(&mut self) {
        // The index has those that are half removed, too.
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
        let Some(head) = change.entry.flatten() else {
            match change.why {
                Some(why) => {
                    self.machine.not_a_participant(&id(n), why, self.now);
                    let channel = &self.channels[n];
                    if !channel.is_participant.get() && channel.half_removed.get().is_none() {
                        self.machine.end_doubt(&id(n));
                    }
                }
                // An addition that the client was told before still begins, where it was told.
                None if self.machine.wanted.contains_key(&id(n)) => {}
                // The client is told that it listens no more; what it was told since is newer.
                None if change.additions == self.additions[n] => {
                    (self.client[n], self.has_left[n]) = (Heard::Nothing, true);
                }
                None => {}
            }
            return;
        };
        // The log goes on from a position of its own time.
        let goes_on = change
            .after
            .filter(|after| after.at == head.at && after.seq <= head.seq);
        let may_have_missed = change.why.is_none_or(Why::may_have_missed);
        let cursor = match goes_on {
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
            // A step that may have missed something tells a gap, and a request's reply the entry. A
            // reply that an addition has overtaken says nothing new.
            let is_newer = match self.client[n] {
                Heard::UpTo(heard) => heard.at != head.at || heard.seq < head.seq,
                Heard::Nothing => true,
            };
            if (change.why.is_none() || cursor == head) && is_newer {
                self.client[n] = Heard::UpTo(head);
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
        match (change.why, change.had) {
            (Some(why), _) => self.machine.retry(&asked, why, self.now, identity),
            (None, Some(had)) => self.machine.interrupted(vec![(asked, had)], self.now),
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

    /// Lets everything that is under way end well.
    fn settle(&mut self) {
        self.act(Act::Open);
        for n in 0..CHANNELS {
            self.act(Act::CompleteRemoval(n));
        }
        for _ in 0..2 {
            while !self.own.is_empty() {
                self.act(Act::TellNext);
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
            self.act(Act::DoubtEnded);
            self.act(Act::Pass(400_000));
        }
    }
}

impl Subscription {
    fn is_live(&self) -> bool {
        !self.is_ended.get() && !self.is_dropped.get()
    }
}

fn drop_all(subscriptions: impl IntoIterator<Item = Subscription>) {
    for subscription in subscriptions {
        subscription.is_dropped.set(true);
    }
}
