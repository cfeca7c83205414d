//! A node, its readers and a log in memory, for the tests and model checks of the hub.

use std::collections::HashMap;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::*;
use crate::bus::{Listener, Local};
use crate::fair::Party;
use crate::outbox::OutboxLimits;
use crate::outbox::testing::{Pipe, frame};
use crate::record::{Control, Record};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicUsize};
use crate::{Class, Continuity, FrameEncoding, Gap, PageLimit, Position, Replay, SourceError};

pub(super) const TOPIC: &str = "room";

/// The log of each topic.
#[derive(Default)]
pub(super) struct World {
    pub(super) logs: Mutex<HashMap<Topic, TestLog>>,
    pub(super) failing: AtomicBool,
    /// Topics whose log does not answer until `unstuck` is notified.
    pub(super) stuck: Mutex<Vec<Topic>>,
    pub(super) unstuck: Notify,
    pub(super) framed: [AtomicUsize; 2],
    pub(super) reads: AtomicUsize,
    pub(super) clock: AtomicU64,
    pub(super) removed_subjects: Mutex<Vec<Bytes>>,
    /// Observed records, and the subjects that received them.
    pub(super) observed: Mutex<Vec<(u64, Bytes)>>,
    pub(super) losses: Mutex<Vec<Bytes>>,
    pub(super) broadcast: Mutex<Vec<u64>>,
    /// Nodes whose lease has not ended.
    pub(super) alive: Mutex<Vec<u64>>,
}

#[derive(Default, Clone)]
pub(super) struct TestLog {
    pub(super) records: Vec<Record>,
    pub(super) floor: usize,
}

impl TestLog {
    pub(super) fn head(&self) -> Position {
        self.records.last().map(|r| r.position).unwrap_or_default()
    }
}

impl World {
    /// Appends without publishing.
    pub(super) fn append(&self, topic: &str, text: &str, control: Control) -> Record {
        let mut logs = self.logs.lock();
        let log = logs.entry(topic.into()).or_default();
        let at = 1_000 + self.clock.fetch_add(1, Ordering::SeqCst);
        let before = log.head();
        let position = Position {
            seq: before.seq + 1,
            at,
        };
        let record = Record {
            control,
            position,
            before: before.at,
            body: text.to_owned().into(),
            ..Record::default()
        };
        log.records.push(record.clone());
        record
    }

    pub(super) fn head(&self, topic: &str) -> Position {
        self.logs
            .lock()
            .get(topic)
            .map(TestLog::head)
            .unwrap_or_default()
    }
}

#[async_trait]
impl Source for World {
    fn frame(&self, _topic: &Topic, record: &Record, encoding: FrameEncoding) -> Option<Bytes> {
        self.framed[encoding as usize].fetch_add(1, Ordering::SeqCst);
        Some(frame(format!(
            "{} {}",
            record.position.seq,
            String::from_utf8_lossy(&record.body)
        )))
    }

    fn gap(&self, _topic: &Topic, gap: Gap, position: Position, _encoding: FrameEncoding) -> Bytes {
        frame(format!("{gap:?} {}", position.seq))
    }

    fn class(&self, _topic: &Topic, record: &Record) -> Class {
        if record.kind == 1 {
            Class::Droppable(None)
        } else {
            Class::Durable
        }
    }

    fn after_broadcast(&self, _topic: &Topic, record: &Record) {
        self.broadcast.lock().push(record.position.seq);
    }

    fn observes(&self, record: &Record) -> bool {
        record.body.starts_with(b"observed")
    }

    fn after_delivery(&self, _topic: &Topic, record: &Record, outbox: &Arc<Outbox>) {
        self.observed.lock().push((
            record.position.seq,
            Bytes::copy_from_slice(outbox.subject()),
        ));
    }

    fn observes_loss(&self, _topic: &Topic) -> bool {
        true
    }

    fn after_loss(&self, _topic: &Topic, outbox: &Arc<Outbox>) {
        self.losses
            .lock()
            .push(Bytes::copy_from_slice(outbox.subject()));
    }

    fn party(&self, topic: &Topic) -> Party {
        let group = topic.split(':').next().map_or(0, str::len) as u64;
        Party { group, member: 0 }
    }

    async fn read(
        &self,
        topic: &Topic,
        after: Position,
        limit: PageLimit,
    ) -> Result<Replay, SourceError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        yield_now().await;
        if self.failing.load(Ordering::SeqCst) {
            return Err(SourceError("down".into()));
        }
        let unstuck = self.unstuck.notified();
        let is_stuck = self.stuck.lock().contains(topic);
        if is_stuck {
            unstuck.await;
        }
        let log = self.logs.lock().get(topic).cloned().unwrap_or_default();
        yield_now().await;
        let head = log.head();
        let stands = match after.seq as usize {
            0 => after == Position::default(),
            seq => log
                .records
                .get(seq - 1)
                .is_some_and(|r| r.position == after),
        };
        let continuity = match () {
            () if !stands => Continuity::Broken(Gap::Diverged),
            () if (after.seq as usize) < log.floor => Continuity::Broken(Gap::Trimmed),
            () => Continuity::Continuous,
        };
        let records = match continuity {
            Continuity::Continuous => {
                let mut bytes = 0;
                let fits = |(index, record): &(usize, &Record)| {
                    bytes += record.body.len();
                    *index == 0 || bytes <= limit.bytes
                };
                let records = log.records[after.seq as usize..]
                    .iter()
                    .take(limit.records)
                    .enumerate();
                records
                    .take_while(fits)
                    .map(|(_, record)| record.clone())
                    .collect()
            }
            Continuity::Broken(_) => Vec::new(),
        };
        Ok(Replay {
            records,
            head,
            continuity,
        })
    }

    async fn may_subscribe(
        &self,
        _topic: &Topic,
        subjects: &[Bytes],
    ) -> Result<Vec<bool>, SourceError> {
        let removed = self.removed_subjects.lock();
        Ok(subjects
            .iter()
            .map(|subject| !removed.contains(subject))
            .collect())
    }

    async fn heads(&self, topics: &[Topic]) -> Vec<Result<Position, SourceError>> {
        let is_down = |topic: &Topic| {
            self.failing.load(Ordering::SeqCst) || self.stuck.lock().contains(topic)
        };
        topics
            .iter()
            .map(|topic| {
                if is_down(topic) {
                    Err(SourceError("down".into()))
                } else {
                    Ok(self.head(topic))
                }
            })
            .collect()
    }

    async fn are_alive(&self, publishers: &[u64]) -> Result<Vec<bool>, SourceError> {
        if self.failing.load(Ordering::SeqCst) {
            return Err(SourceError("down".into()));
        }
        let alive = self.alive.lock();
        Ok(publishers.iter().map(|id| alive.contains(id)).collect())
    }
}

pub(super) struct TestNode {
    pub(super) world: Arc<World>,
    pub(super) bus: Arc<Local>,
    pub(super) hub: Arc<Hub>,
    pub(super) limits: Arc<OutboxLimits>,
}

/// A connection that reads everything.
pub(super) struct Reader {
    pub(super) pipe: Arc<Pipe>,
    pub(super) outbox: Arc<Outbox>,
}

pub(super) fn node() -> TestNode {
    node_with(HubConfig {
        linger: Duration::from_millis(40),
        compare_period: Duration::from_secs(600),
        page_records: 7,
        max_concurrent_reads: 4,
        ..HubConfig::default()
    })
}

pub(super) fn node_with(config: HubConfig) -> TestNode {
    let (world, listener) = (Arc::new(World::default()), HubListener::new());
    let bus = Local::new(Arc::<HubListener>::clone(&listener));
    let hub = Hub::new(
        listener,
        Arc::<Local>::clone(&bus),
        Arc::<World>::clone(&world),
        config,
    );
    TestNode {
        world,
        bus,
        hub,
        limits: OutboxLimits::new(1 << 20, Duration::MAX, usize::MAX),
    }
}

impl TestNode {
    pub(super) fn reader(&self, subject: &str) -> Reader {
        self.reader_with(subject, usize::MAX, FrameEncoding::Binary, &self.limits)
    }

    pub(super) fn reader_with(
        &self,
        subject: &str,
        room: usize,
        encoding: FrameEncoding,
        limits: &Arc<OutboxLimits>,
    ) -> Reader {
        let pipe = Pipe::new(room);
        let outbox = Outbox::new(Arc::<Pipe>::clone(&pipe), encoding, Arc::clone(limits));
        outbox.identify(Bytes::copy_from_slice(subject.as_bytes()));
        Reader { pipe, outbox }
    }

    pub(super) async fn join(&self, reader: &Reader) -> Joining {
        self.hub
            .join(&TOPIC.into(), TopicKind::Logged, &reader.outbox)
            .await
            .unwrap()
    }

    /// Joins and starts at the head.
    pub(super) async fn subscribe(&self, reader: &Reader) -> Subscription {
        let joining = self.join(reader).await;
        let head = self.world.head(TOPIC);
        joining.start(head, head)
    }

    /// Joins and resumes from an earlier `seq`.
    pub(super) async fn resume(&self, reader: &Reader, seq: u64) -> Subscription {
        let joining = self.join(reader).await;
        joining.start(self.position(seq), self.world.head(TOPIC))
    }

    pub(super) fn position(&self, seq: u64) -> Position {
        match seq {
            0 => Position::default(),
            seq => self.world.logs.lock()[TOPIC].records[seq as usize - 1].position,
        }
    }

    pub(super) fn commit(&self, text: &str) {
        self.commit_with(text, Control::None);
    }

    pub(super) fn commit_with(&self, text: &str, control: Control) {
        let record = self.world.append(TOPIC, text, control);
        self.bus.publish(TOPIC, record.encode());
    }

    /// Commits a record that the bus loses.
    pub(super) fn lose(&self, text: &str) -> Record {
        self.world.append(TOPIC, text, Control::None)
    }

    pub(super) fn missed(&self, topics: Option<&[Topic]>) {
        self.hub.listener.missed(topics);
    }

    pub(super) fn pass(&self, kind: u8, text: &str, control: Control) {
        self.bus.publish(
            TOPIC,
            Record::passing(kind, control, text.to_owned().into()).encode(),
        );
    }
}

impl Reader {
    pub(super) async fn sees<S: AsRef<str>>(&self, texts: &[S]) {
        let expected: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        eventually(
            || self.pipe.texts().len() >= expected.len(),
            || format!("{:?}, not {expected:?}", self.pipe.texts()),
        )
        .await;
        assert_eq!(self.pipe.texts(), expected);
    }

    pub(super) async fn sees_last(&self, text: &str) {
        eventually(
            || self.pipe.texts().last().is_some_and(|t| t == text),
            || format!("{text} at the end of {:?}", self.pipe.texts()),
        )
        .await;
    }

    pub(super) fn seqs(&self) -> Vec<u64> {
        self.pipe
            .texts()
            .iter()
            .map(|t| t.split(' ').next().unwrap().parse().unwrap())
            .collect()
    }
}

pub(super) async fn eventually(done: impl Fn() -> bool, what: impl Fn() -> String) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(
            Instant::now() < deadline,
            "timed out waiting for {}",
            what()
        );
        sleep(Duration::from_millis(1)).await;
    }
}

pub(super) fn evict(subject: &'static str) -> Control {
    Control::Evict(Bytes::from_static(subject.as_bytes()))
}
