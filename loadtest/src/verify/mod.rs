//! Whether the subscribers of a channel got what they were promised. Pure: it is told what was sent, acknowledged, refused
//! and seen, in any interleaving, and answers with counts and evidence.
//!
//! What is promised: every subscriber gets every acknowledged message exactly once, in the order of `seq` without a hole,
//! every subscriber the same order, and nothing that was not sent to this channel. Where the server told a gap, what lies
//! in it is not lost. A subscriber costs a few words, a message some 100 bytes: no delivery is kept.
//!
//! Left out: passing events, which have no `seq` ([`passing`]).

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    ops::Range,
};

use self::ranges::Ranges;

pub mod passing;
mod ranges;
mod tally;

pub use tally::{Kind, Tally, Violations};

/// A message of this run: its place in the run's schedule.
pub type Index = u32;

/// A message as an event, a reply or a page shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// Which message; none if its id is not of this run, or it stands under another channel's id.
    pub message: Option<Index>,
    /// Its `seq`.
    pub seq: u64,
    /// Its `number`.
    pub number: u64,
    /// Whether text and sender are what was sent.
    pub intact: bool,
}

/// A channel of the run.
#[derive(Debug)]
pub struct Channel {
    name: String,
    members: Vec<Member>,
    sent: HashMap<Index, Sent>,
    /// By `seq`: where each message stands, as whoever told it first says.
    order: BTreeMap<u64, Index>,
    last_acknowledged: u64,
    tally: Tally,
}

#[derive(Debug)]
struct Member {
    name: String,
    seq: u64,
    /// Of the last message; none where it is not known, after a hole or a gap.
    number: Option<u64>,
    missing: Ranges,
    /// What a told gap covers.
    excused: Vec<Range<u64>>,
    /// Where it saw another message than whoever was first to tell.
    differing: HashSet<u64>,
}

impl Member {
    /// Whether it saw, at this `seq`, the message that is known to stand there.
    fn has(&self, seq: u64) -> bool {
        seq <= self.seq && !self.missing.iter().any(|range| range.contains(&seq)) && !self.differing.contains(&seq)
    }
}

#[derive(Debug)]
struct Sent {
    by: usize,
    outcome: Outcome,
    retried: bool,
    stands: Option<(u64, u64)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Unknown,
    Acknowledged,
    Refused,
}

/// How an event stands to the one before it.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Next,
    Ahead,
    Late,
}

impl Channel {
    /// A channel whose subscribers have these names.
    pub fn new(name: impl Into<String>, members: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let member =
            |name| Member { name, seq: 0, number: Some(0), missing: Ranges::default(), excused: Vec::new(), differing: HashSet::new() };
        Self {
            name: name.into(),
            members: members.into_iter().map(|name| member(name.into())).collect(),
            sent: HashMap::new(),
            order: BTreeMap::new(),
            last_acknowledged: 0,
            tally: Tally::default(),
        }
    }

    /// A subscriber begins here: what its first `connect` was answered with.
    pub fn starts(&mut self, who: usize, seq: u64, number: u64) {
        let member = &mut self.members[who];
        (member.seq, member.number) = (seq, Some(number));
    }

    /// A message leaves for the server. Told before it does; messages of one sender in the order sent.
    pub fn sending(&mut self, message: Index, by: usize) {
        self.tally.sent += 1;
        self.sent.insert(message, Sent { by, outcome: Outcome::Unknown, retried: false, stands: None });
    }

    /// It is sent again under its id, since its first reply never came: its place among the sender's messages is open now.
    pub fn retrying(&mut self, message: Index) {
        if let Some(sent) = self.sent.get_mut(&message) {
            sent.retried = true;
        }
    }

    /// It was not taken.
    pub fn refused(&mut self, message: Index) {
        if let Some(sent) = self.sent.get_mut(&message) {
            sent.outcome = Outcome::Refused;
        }
    }

    /// It was acknowledged.
    pub fn acknowledged(&mut self, message: Index, shown: Shown) {
        self.tally.acknowledged += 1;
        if shown.message != Some(message) {
            return self.violates(Kind::Foreign, format_args!("message {message} was acknowledged as {:?}", shown.message));
        }
        if let Some(sent) = self.sent.get_mut(&message) {
            sent.outcome = Outcome::Acknowledged;
        }
        self.last_acknowledged = self.last_acknowledged.max(shown.seq);
        if !shown.intact {
            self.violates(Kind::Altered, format_args!("the reply shows message {message} with another text or sender"));
        }
        self.stands(message, shown.seq, shown.number, None);
    }

    /// A subscriber got `message.created`.
    pub fn saw(&mut self, who: usize, shown: Shown) {
        let Some(step) = self.advance(who, shown.seq, format_args!("message {:?}, number {}", shown.message, shown.number)) else {
            return;
        };
        self.tally.delivered += 1;
        if step != Step::Late {
            let member = &mut self.members[who];
            let before = member.number.replace(shown.number);
            if let Some(before) = before.filter(|before| step == Step::Next && shown.number != before + 1) {
                let kind = if shown.number > before { Kind::Hole } else { Kind::Reordered };
                let (name, Shown { number, seq, .. }) = (member.name.clone(), shown);
                self.violates(kind, format_args!("{name} saw number {before}, then number {number} at seq {seq}"));
            }
        }
        let name = &self.members[who].name;
        let Some(message) = shown.message.filter(|m| self.sent.get(m).is_some_and(|s| s.retried || s.outcome != Outcome::Refused)) else {
            let what = format!("{name} saw a message at seq {} that was not sent here, or was refused: {:?}", shown.seq, shown.message);
            return self.violates(Kind::Foreign, format_args!("{what}"));
        };
        if !shown.intact {
            let what = format!("{name} saw message {message} at seq {} with another text or sender", shown.seq);
            self.violates(Kind::Altered, format_args!("{what}"));
        }
        self.stands(message, shown.seq, shown.number, Some(who));
    }

    /// A subscriber got another durable event of the channel.
    pub fn saw_other(&mut self, who: usize, seq: u64, event: &str) {
        self.advance(who, seq, format_args!("{event}"));
    }

    /// A subscriber got what belongs to another channel.
    pub fn saw_foreign(&mut self, who: usize, what: &str) {
        let name = self.members[who].name.clone();
        self.violates(Kind::Foreign, format_args!("{name} saw {what}"));
    }

    /// A subscriber was told of a gap; it goes on from this head.
    pub fn told_gap(&mut self, who: usize, head: u64) {
        self.tally.gaps += 1;
        let member = &mut self.members[who];
        member.excused.extend(member.missing.iter());
        member.missing.clear();
        if head > member.seq {
            member.excused.push(member.seq + 1..head + 1);
        }
        (member.seq, member.number) = (head, None);
    }

    /// Whether everybody has everything that was acknowledged so far.
    pub fn is_complete(&self) -> bool {
        self.members.iter().all(|member| member.seq >= self.last_acknowledged && member.missing.is_empty())
    }

    /// What the channel lists, oldest first: every acknowledged message exactly once, where its reply said.
    pub fn listed(&mut self, messages: impl IntoIterator<Item = Shown>) {
        let mut listed = HashSet::new();
        let mut number = 0;
        for shown in messages {
            self.tally.listed += 1;
            let known = shown.message.filter(|m| self.sent.contains_key(m));
            let Some(message) = known else {
                let what = format!("the list has a message at number {} that was not sent here: {:?}", shown.number, shown.message);
                self.violates(Kind::Foreign, format_args!("{what}"));
                continue;
            };
            if shown.number != number + 1 {
                let kind = if shown.number > number { Kind::Hole } else { Kind::Reordered };
                self.violates(kind, format_args!("the list goes from number {number} to {}", shown.number));
            }
            number = shown.number;
            if !listed.insert(message) {
                self.violates(Kind::Doubled, format_args!("the list has message {message} twice, the second time at number {number}"));
            } else if !shown.intact {
                self.violates(Kind::Altered, format_args!("the list has message {message} with another text or sender"));
            }
            if let Some(stood) = self.sent[&message].stands
                && stood != (shown.seq, number)
            {
                let (seq, stood) = (shown.seq, Place(stood));
                self.violates(
                    Kind::Reordered,
                    format_args!("message {message} stood at {stood}; the list has it at seq {seq}, number {number}"),
                );
            }
        }
        let lost: Vec<Index> =
            self.sent.iter().filter(|(m, s)| s.outcome == Outcome::Acknowledged && !listed.contains(*m)).map(|(m, _)| *m).collect();
        for message in lost {
            self.violates(Kind::Lost, format_args!("message {message} was acknowledged and is not in the list"));
        }
    }

    /// What is to be said once nothing more comes.
    pub fn finish(mut self) -> Tally {
        self.tally.unknown = self.sent.values().filter(|s| s.outcome == Outcome::Unknown).count() as u64;
        self.count_lost();
        self.check_senders();
        self.tally
    }

    /// Moves a subscriber on to an event's `seq`. None if it had the event before.
    fn advance(&mut self, who: usize, seq: u64, what: fmt::Arguments<'_>) -> Option<Step> {
        let member = &mut self.members[who];
        let (last, expected) = (member.seq, member.seq + 1);
        let (step, kind, how) = match seq {
            _ if seq == expected => {
                member.seq = seq;
                return Some(Step::Next);
            }
            _ if seq > expected => {
                member.missing.add(expected..seq);
                member.seq = seq;
                (Some(Step::Ahead), Kind::Hole, "then")
            }
            _ if member.missing.remove(seq) => (Some(Step::Late), Kind::Reordered, "only then"),
            _ => (None, Kind::Doubled, "again"),
        };
        let evidence = format!("{} saw seq {last}, {how} seq {seq} ({what})", member.name);
        self.violates(kind, format_args!("{evidence}"));
        step
    }

    /// Notes where a message stands, as a subscriber's event or its reply tells it, beside what was told before.
    fn stands(&mut self, message: Index, seq: u64, number: u64, by: Option<usize>) {
        let teller = by.map_or("the reply".to_owned(), |who| self.members[who].name.clone());
        let Some(sent) = self.sent.get_mut(&message) else { return };
        match sent.stands {
            Some(before) if before == (seq, number) => return,
            Some(before) => {
                let seen_twice = before.0 != seq && by.is_some_and(|who| self.members[who].has(before.0));
                if let Some(who) = by {
                    self.members[who].differing.insert(seq);
                }
                let kind = if seen_twice { Kind::Doubled } else { Kind::Reordered };
                let (before, now) = (Place(before), Place((seq, number)));
                return self.violates(kind, format_args!("message {message} stood at {before}; {teller} has it at {now}"));
            }
            None => sent.stands = Some((seq, number)),
        }
        if let Some(other) = self.order.insert(seq, message) {
            self.violates(Kind::Reordered, format_args!("at seq {seq} stood message {other}; {teller} has message {message} there"));
        }
    }

    fn count_lost(&mut self) {
        let mut lost = Vec::new();
        for member in &self.members {
            let missing = member.missing.iter().chain(std::iter::once(member.seq + 1..u64::MAX));
            let absent = missing.flat_map(|range| self.order.range(range)).filter(|(seq, message)| {
                let acknowledged = self.sent.get(message).is_some_and(|s| s.outcome == Outcome::Acknowledged);
                acknowledged && !member.excused.iter().any(|range| range.contains(seq))
            });
            lost.extend(absent.map(|(seq, message)| format!("{} never saw message {message}, acknowledged at seq {seq}", member.name)));
        }
        for evidence in lost {
            self.violates(Kind::Lost, format_args!("{evidence}"));
        }
    }

    /// The messages of one sender are numbered in the order sent.
    fn check_senders(&mut self) {
        let mut last: HashMap<usize, (Index, u64)> = HashMap::new();
        let mut swapped = Vec::new();
        for (&seq, &message) in &self.order {
            let Some(sent) = self.sent.get(&message).filter(|s| !s.retried) else { continue };
            if let Some((before, at)) = last.insert(sent.by, (message, seq)).filter(|(before, _)| *before > message) {
                swapped.push(format!(
                    "message {message} was sent before message {before} by the same session, and stands behind it: seq {seq}, {at}"
                ));
            }
        }
        for evidence in swapped {
            self.violates(Kind::Reordered, format_args!("{evidence}"));
        }
    }

    fn violates(&mut self, kind: Kind, evidence: fmt::Arguments<'_>) {
        self.tally.violates(kind, format_args!("{}: {evidence}", self.name));
    }
}

struct Place((u64, u64));

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seq {}, number {}", self.0.0, self.0.1)
    }
}

#[cfg(test)]
mod tests;
