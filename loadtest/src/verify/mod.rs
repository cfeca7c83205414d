//! Whether the subscribers of a channel got what they were promised. Pure: it is told what was sent, acknowledged, refused
//! and seen, in any interleaving, and answers with counts and evidence.
//!
//! What is promised: every subscriber gets every acknowledged message exactly once, in the order of `seq` without a hole,
//! every subscriber the same order, and nothing that was not sent to this channel. Where the server told a gap, what lies
//! in it is not lost. A subscriber costs a few words, a message some 100 bytes: no delivery is kept.
//!
//! Left out: passing events, which have no `seq` ([`passing`]).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    ops::Range,
};

use self::ranges::Ranges;

mod end;
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
    /// Whether text and sender are what was sent; of a deleted one, whether the text is empty.
    pub intact: bool,
    /// Whether it is shown as deleted.
    pub deleted: bool,
}

/// What a run's own nodes and store are known to keep, beyond what is promised whatever they are.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// The newest events of a channel's log that are there in any case: nobody who lacks fewer is told a gap.
    pub log_events: u64,
    /// Whether the store may lose what it had, as by a failover of an asynchronous replica. If not, nobody is told so.
    pub may_diverge: bool,
}

/// A channel of the run.
#[derive(Debug)]
pub struct Channel {
    name: String,
    terms: Option<Terms>,
    members: Vec<Member>,
    sent: HashMap<Index, Sent>,
    /// By `seq`: where each message stands, as whoever told it first says.
    order: BTreeMap<u64, Index>,
    last_acknowledged: u64,
    /// Counts what happens, to tell what was before what.
    tick: u64,
    /// Where tellers disagree; what becomes of it is known at the end ([`settle_conflicts`](Self::settle_conflicts)).
    conflicts: Vec<(Kind, String)>,
    /// Whether anybody was told that the store went back to an earlier state.
    diverged: bool,
    /// The number of each message that the list had.
    numbers: HashMap<Index, u64>,
    /// Who was removed, and the event that says so.
    removals: BTreeSet<(usize, u64)>,
    /// Who was added, and the event that says so.
    additions: BTreeSet<(usize, u64)>,
    /// Who was told an event while it was not in the channel, as far as it knew.
    strays: Vec<(usize, u64)>,
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
    /// Where it saw something else than whoever was first to tell: another message, or none.
    differing: HashMap<u64, Option<Index>>,
    /// When its session began.
    since: u64,
    /// What it had up to here it threw away, as it was told to.
    discarded: u64,
    /// Whether it is in the channel, as far as it knows.
    is_in: bool,
    /// The heads that it was given on entering, each with the last event it saw before the next.
    grants: Vec<(u64, u64)>,
    /// What it read where it was told that the log was trimmed.
    changes: Vec<(Range<u64>, HashSet<Index>)>,
}

impl Member {
    /// Whether it saw, at this `seq`, the message that is known to stand there.
    fn has(&self, seq: u64) -> bool {
        self.reached(seq) && !self.differing.contains_key(&seq)
    }

    /// Whether it saw what stood at this `seq`, and has not thrown it away.
    fn reached(&self, seq: u64) -> bool {
        self.discarded < seq
            && seq <= self.seq
            && !self
                .missing
                .iter()
                .chain(self.excused.iter().cloned())
                .any(|range| range.contains(&seq))
    }

    /// Goes on from this head, whatever was before it.
    fn skip_to(&mut self, head: u64) {
        self.excused.extend(self.missing.iter());
        self.missing.clear();
        if head > self.seq {
            self.excused.push(self.seq + 1..head + 1);
        }
        self.seq = head;
    }
}

#[derive(Debug)]
struct Sent {
    by: usize,
    outcome: Outcome,
    retried: bool,
    stands: Option<(u64, u64)>,
    /// Where else somebody had it.
    elsewhere: Vec<(u64, u64)>,
    deletion: Option<Deletion>,
}

impl Sent {
    /// Whether the message of this number has ever been told to stand at this `seq`.
    fn stood_at(&self, seq: u64, number: u64) -> bool {
        self.stands == Some((seq, number)) || self.elsewhere.contains(&(seq, number))
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Deletion {
    Begun,
    /// When the reply to it came.
    Done(u64),
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
    pub fn new(
        name: impl Into<String>,
        members: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let member = |name| Member {
            name,
            seq: 0,
            number: Some(0),
            missing: Ranges::default(),
            excused: Vec::new(),
            differing: HashMap::new(),
            since: 0,
            discarded: 0,
            is_in: true,
            grants: Vec::new(),
            changes: Vec::new(),
        };
        Self {
            name: name.into(),
            terms: None,
            members: members
                .into_iter()
                .map(|name| member(name.into()))
                .collect(),
            sent: HashMap::new(),
            order: BTreeMap::new(),
            last_acknowledged: 0,
            tick: 0,
            conflicts: Vec::new(),
            diverged: false,
            numbers: HashMap::new(),
            removals: BTreeSet::new(),
            additions: BTreeSet::new(),
            strays: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// The same on these terms: then also each message is taken and answered in the end, and each subscriber is in at the end.
    pub fn on(mut self, terms: Terms) -> Self {
        self.terms = Some(terms);
        self
    }

    /// A subscriber is about to make a session.
    pub fn connects(&mut self, who: usize) {
        self.tick += 1;
        self.members[who].since = self.tick;
    }

    /// A subscriber begins here: what `connect` was answered with, or what it was told when it was added.
    pub fn starts(&mut self, who: usize, seq: u64, number: u64) {
        let member = &mut self.members[who];
        member.skip_to(seq);
        (member.number, member.is_in) = (Some(number), true);
        member.grants.push((seq, seq));
        // Whatever it had of an earlier stay it threw away when it was removed.
        member.discarded = seq;
    }

    /// A subscriber goes on where it was, in a channel whose head is this.
    pub fn goes_on(&mut self, who: usize, head: u64) {
        self.members[who].grants.push((head, 0));
    }

    /// A subscriber was told that it is not in the channel any more. What was on its way may yet come, since channel and user have
    /// streams of their own: it throws that away, and [it must have been in the channel](Self::check_removals) when it happened.
    pub fn removed(&mut self, who: usize) {
        self.members[who].is_in = false;
    }

    /// The channel's event of this `seq` says that this subscriber was removed.
    pub fn removal(&mut self, who: usize, seq: u64) {
        self.removals.insert((who, seq));
    }

    /// The channel's event of this `seq` says that this subscriber was added.
    pub fn addition(&mut self, who: usize, seq: u64) {
        self.additions.insert((who, seq));
    }

    /// A message leaves for the server. Told before it does; messages of one sender in the order sent.
    pub fn sending(&mut self, message: Index, by: usize) {
        self.tally.sent += 1;
        self.sent.insert(
            message,
            Sent {
                by,
                outcome: Outcome::Unknown,
                retried: false,
                stands: None,
                elsewhere: Vec::new(),
                deletion: None,
            },
        );
    }

    /// It is sent again under its id, since its first reply never came: its place among the sender's messages is open now.
    pub fn retrying(&mut self, message: Index) {
        if let Some(sent) = self.sent.get_mut(&message) {
            sent.retried = true;
        }
    }

    /// It was not taken, for another reason than the rate of its sender.
    pub fn denied(&mut self, message: Index, why: &str) {
        self.refused(message);
        if self.terms.is_some() {
            self.violates(
                Kind::Denied,
                format_args!("message {message} was refused: {why}"),
            );
        }
    }

    /// It was not taken.
    pub fn refused(&mut self, message: Index) {
        if let Some(sent) = self.sent.get_mut(&message) {
            sent.outcome = Outcome::Refused;
        }
    }

    /// Its deletion is asked for.
    pub fn deleting(&mut self, message: Index) {
        if let Some(sent) = self.sent.get_mut(&message) {
            sent.deletion.get_or_insert(Deletion::Begun);
        }
    }

    /// Its deletion was acknowledged.
    pub fn deleted(&mut self, message: Index) {
        self.tick += 1;
        self.tally.deleted += 1;
        if let Some(sent) = self.sent.get_mut(&message) {
            sent.deletion = Some(Deletion::Done(self.tick));
        }
    }

    /// It was acknowledged.
    pub fn acknowledged(&mut self, message: Index, shown: Shown) {
        self.tally.acknowledged += 1;
        if shown.message != Some(message) {
            return self.violates(
                Kind::Foreign,
                format_args!("message {message} was acknowledged as {:?}", shown.message),
            );
        }
        if let Some(sent) = self.sent.get_mut(&message) {
            sent.outcome = Outcome::Acknowledged;
        }
        self.last_acknowledged = self.last_acknowledged.max(shown.seq);
        if !shown.intact {
            self.violates(
                Kind::Altered,
                format_args!("the reply shows message {message} with another text or sender"),
            );
        }
        self.stands(message, shown.seq, shown.number, None);
    }

    /// A subscriber got `message.created`.
    pub fn saw(&mut self, who: usize, shown: Shown) {
        let Some(step) = self.advance(
            who,
            shown.seq,
            format_args!("message {:?}, number {}", shown.message, shown.number),
        ) else {
            return;
        };
        self.tally.delivered += 1;
        if step != Step::Late {
            let member = &mut self.members[who];
            let before = member.number.replace(shown.number);
            if let Some(before) =
                before.filter(|before| step == Step::Next && shown.number != before + 1)
            {
                let kind = if shown.number > before {
                    Kind::Hole
                } else {
                    Kind::Reordered
                };
                let (name, Shown { number, seq, .. }) = (member.name.clone(), shown);
                self.violates(
                    kind,
                    format_args!("{name} saw number {before}, then number {number} at seq {seq}"),
                );
            }
        }
        let Member { name, since, .. } = &self.members[who];
        let Some(message) = shown.message.filter(|m| {
            self.sent
                .get(m)
                .is_some_and(|s| s.retried || s.outcome != Outcome::Refused)
        }) else {
            let what = format!(
                "{name} saw a message at seq {} that was not sent here, or was refused: {:?}",
                shown.seq, shown.message
            );
            return self.violates(Kind::Foreign, format_args!("{what}"));
        };
        let deletion = self.sent[&message].deletion.as_ref();
        let told = match deletion {
            _ if !shown.intact || shown.deleted && deletion.is_none() => {
                Some((Kind::Altered, "with another text or sender"))
            }
            Some(Deletion::Done(at)) if !shown.deleted && at < since => Some((
                Kind::Undeleted,
                "with its text, in a session made after its deletion",
            )),
            _ => None,
        };
        if let Some((kind, how)) = told {
            let what = format!("{name} saw message {message} at seq {} {how}", shown.seq);
            self.violates(kind, format_args!("{what}"));
        }
        self.stands(message, shown.seq, shown.number, Some(who));
    }

    /// A subscriber got another durable event of the channel.
    pub fn saw_other(&mut self, who: usize, seq: u64, event: &str) {
        if self.advance(who, seq, format_args!("{event}")).is_some()
            && self.order.contains_key(&seq)
        {
            self.members[who].differing.insert(seq, None);
        }
    }

    /// A subscriber got what belongs to another channel.
    pub fn saw_foreign(&mut self, who: usize, what: &str) {
        let name = self.members[who].name.clone();
        self.violates(Kind::Foreign, format_args!("{name} saw {what}"));
    }

    /// A subscriber was told of a gap; it goes on from this head.
    pub fn told_gap(&mut self, who: usize, head: u64) {
        let Member { name, seq, .. } = &self.members[who];
        if let Some(Terms { log_events, .. }) = self.terms
            && head.saturating_sub(*seq) < log_events
        {
            let what = format!(
                "{name} had seq {seq} and was told a gap at {head}; {log_events} events are kept"
            );
            self.violates(Kind::Needless, format_args!("{what}"));
        }
        self.skip(who, head);
    }

    fn skip(&mut self, who: usize, head: u64) {
        self.tally.gaps += 1;
        let member = &mut self.members[who];
        member.skip_to(head);
        member.number = None;
        member.grants.push((head, 0));
    }

    /// A subscriber was told that the store is not what it was: it throws away what it has, and goes on from this head.
    pub fn told_diverged(&mut self, who: usize, head: u64) {
        if self.terms.is_some_and(|terms| !terms.may_diverge) {
            let what = format!(
                "{} was told that the store is another one, at seq {head}",
                self.members[who].name
            );
            self.violates(Kind::Needless, format_args!("{what}"));
        }
        self.skip(who, head);
        self.diverged = true;
        let member = &mut self.members[who];
        member.discarded = head;
        member.differing.clear();
        self.last_acknowledged = self.last_acknowledged.min(head);
    }

    /// After a trimmed gap a subscriber read what changed after its position, until the head it was told or later.
    pub fn read_changes(
        &mut self,
        who: usize,
        after: u64,
        head: u64,
        messages: impl IntoIterator<Item = Shown>,
    ) {
        let read = messages
            .into_iter()
            .filter_map(|shown| shown.message)
            .collect();
        self.members[who].changes.push((after + 1..head + 1, read));
    }

    /// Whether everybody has everything that was acknowledged so far.
    pub fn is_complete(&self) -> bool {
        let is_out = |member: &Member| !member.is_in && self.terms.is_none();
        self.members.iter().all(|member| {
            is_out(member)
                || member.is_in && member.seq >= self.last_acknowledged && member.missing.is_empty()
        })
    }

    /// What the channel lists, oldest first: every acknowledged message exactly once, where its reply said.
    pub fn listed(&mut self, messages: impl IntoIterator<Item = Shown>) {
        let mut listed = HashSet::new();
        let mut number = 0;
        for shown in messages {
            self.tally.listed += 1;
            let known = shown.message.filter(|m| self.sent.contains_key(m));
            let Some(message) = known else {
                let what = format!(
                    "the list has a message at number {} that was not sent here: {:?}",
                    shown.number, shown.message
                );
                self.violates(Kind::Foreign, format_args!("{what}"));
                continue;
            };
            if shown.number != number + 1 {
                let kind = if shown.number > number {
                    Kind::Hole
                } else {
                    Kind::Reordered
                };
                self.violates(
                    kind,
                    format_args!("the list goes from number {number} to {}", shown.number),
                );
            }
            number = shown.number;
            if !listed.insert(message) {
                self.violates(
                    Kind::Doubled,
                    format_args!(
                        "the list has message {message} twice, the second time at number {number}"
                    ),
                );
            } else if !shown.intact {
                self.violates(
                    Kind::Altered,
                    format_args!("the list has message {message} with another text or sender"),
                );
            }
            self.numbers.insert(message, number);
            let sent = &self.sent[&message];
            if matches!(sent.deletion, Some(Deletion::Done(_))) && !shown.deleted {
                self.violates(
                    Kind::Undeleted,
                    format_args!(
                        "the list has message {message} with its text, after its deletion"
                    ),
                );
            } else if let Some(stood) = sent.stands
                && (stood.1 != number
                    || if shown.deleted {
                        shown.seq <= stood.0
                    } else {
                        shown.seq != stood.0
                    })
            {
                let (seq, stood) = (shown.seq, Place(stood));
                let evidence = format!(
                    "message {message} stood at {stood}; the list has it at seq {seq}, number {number}"
                );
                self.conflicts.push((Kind::Reordered, evidence));
            }
        }
        let lost: Vec<Index> = self
            .sent
            .iter()
            .filter(|(m, s)| s.outcome == Outcome::Acknowledged && !listed.contains(*m))
            .map(|(m, _)| *m)
            .collect();
        for message in lost {
            self.violates(
                Kind::Lost,
                format_args!("message {message} was acknowledged and is not in the list"),
            );
        }
    }

    /// What is to be said once nothing more comes.
    pub fn finish(mut self) -> Tally {
        self.tally.unknown = self
            .sent
            .values()
            .filter(|s| s.outcome == Outcome::Unknown)
            .count() as u64;
        self.settle_conflicts();
        self.count_lost();
        self.check_changes();
        self.check_removals();
        self.check_senders();
        if self.terms.is_some() {
            self.check_answers();
        }
        self.tally
    }

    /// Moves a subscriber on to an event's `seq`. None if it had the event before, or is not in the channel.
    fn advance(&mut self, who: usize, seq: u64, what: fmt::Arguments<'_>) -> Option<Step> {
        let member = &mut self.members[who];
        if !member.is_in {
            self.strays.push((who, seq));
            return None;
        }
        let (last, expected) = (member.seq, member.seq + 1);
        if let Some((_, last)) = member.grants.last_mut() {
            *last = seq.max(*last);
        }
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
        let Some(sent) = self.sent.get_mut(&message) else {
            return;
        };
        if let Some(who) = by
            && self.order.get(&seq).is_some_and(|first| *first != message)
        {
            self.members[who].differing.insert(seq, Some(message));
        }
        match sent.stands {
            Some(before) if before == (seq, number) => return,
            Some(before) => {
                let seen_twice =
                    before.0 != seq && by.is_some_and(|who| self.members[who].has(before.0));
                sent.elsewhere.push((seq, number));
                if let Some(who) = by {
                    self.members[who].differing.insert(seq, Some(message));
                }
                let kind = if seen_twice {
                    Kind::Doubled
                } else {
                    Kind::Reordered
                };
                let (before, now) = (Place(before), Place((seq, number)));
                return self.conflicts.push((
                    kind,
                    format!("message {message} stood at {before}; {teller} has it at {now}"),
                ));
            }
            None => sent.stands = Some((seq, number)),
        }
        let other = *self.order.entry(seq).or_insert(message);
        if other != message {
            self.conflicts.push((
                Kind::Reordered,
                format!("at seq {seq} stood message {other}; {teller} has message {message} there"),
            ));
        }
    }

    fn violates(&mut self, kind: Kind, evidence: fmt::Arguments<'_>) {
        self.tally
            .violates(kind, format_args!("{}: {evidence}", self.name));
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
