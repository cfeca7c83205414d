//! A node, its readers, and a log in memory, for the tests and the checks of the hub.

use std::collections::HashMap;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::*;
use crate::bus::{Ear, Local};
use crate::outbox::Limits;
use crate::outbox::testing::{Pipe, frame};
use crate::record::Control;
use crate::sync::atomic::{AtomicBool, AtomicUsize};
use crate::{Class, Encoding, Gap};

pub(super) const TOPIC: &str = "room";

/// The log of each topic.
#[derive(Default)]
pub(super) struct World {
    pub(super) logs: Mutex<HashMap<Topic, Log>>,
    pub(super) failing: AtomicBool,
    /// Topics whose log does not answer before that is notified.
    pub(super) stuck: Mutex<Vec<Topic>>,
    pub(super) unstuck: Notify,
    pub(super) framed: [AtomicUsize; 2],
    pub(super) reads: AtomicUsize,
    pub(super) clock: AtomicU64,
    pub(super) strangers: Mutex<Vec<Bytes>>,
    /// Which records that are followed were told to whom.
    pub(super) followed: Mutex<Vec<(u64, Bytes)>>,
    pub(super) passed: Mutex<Vec<u64>>,
}

#[derive(Default, Clone)]
pub(super) struct Log {
    pub(super) records: Vec<Record>,
    pub(super) floor: usize,
}

impl Log {
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
            .map(Log::head)
            .unwrap_or_default()
    }
}

#[async_trait]
impl Source for World {
    fn frame(&self, _topic: &Topic, record: &Record, encoding: Encoding) -> Option<Bytes> {
        self.framed[encoding as usize].fetch_add(1, Ordering::SeqCst);
        Some(frame(format!(
            "{} {}",
            record.position.seq,
            String::from_utf8_lossy(&record.body)
        )))
    }

    fn gap(&self, _topic: &Topic, gap: Gap, position: Position, _encoding: Encoding) -> Bytes {
        frame(format!("{gap:?} {}", position.seq))
    }

    fn class(&self, _topic: &Topic, record: &Record) -> Class {
        if record.kind == 1 {
            Class::Droppable(None)
        } else {
            Class::Durable
        }
    }

    fn passed(&self, _topic: &Topic, record: &Record) {
        self.passed.lock().push(record.position.seq);
    }

    fn follows(&self, record: &Record) -> bool {
        record.body.starts_with(b"followed")
    }

    fn told(&self, _topic: &Topic, record: &Record, outbox: &Arc<Outbox>) {
        self.followed.lock().push((
            record.position.seq,
            Bytes::copy_from_slice(outbox.subject()),
        ));
    }

    async fn read(
        &self,
        topic: &Topic,
        after: Position,
        limit: usize,
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
        // The answer is on its way for a while.
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
            Continuity::Continuous => log.records[after.seq as usize..]
                .iter()
                .take(limit)
                .cloned()
                .collect(),
            Continuity::Broken(_) => Vec::new(),
        };
        Ok(Replay {
            records,
            head,
            continuity,
        })
    }

    async fn admits(&self, _topic: &Topic, subjects: &[Bytes]) -> Result<Vec<bool>, SourceError> {
        let strangers = self.strangers.lock();
        Ok(subjects
            .iter()
            .map(|subject| !strangers.contains(subject))
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
}

/// A node with its world.
pub(super) struct Node {
    pub(super) world: Arc<World>,
    pub(super) bus: Arc<Local>,
    pub(super) hub: Arc<Hub>,
    pub(super) limits: Arc<Limits>,
}

/// A connection that reads everything.
pub(super) struct Reader {
    pub(super) pipe: Arc<Pipe>,
    pub(super) outbox: Arc<Outbox>,
}

pub(super) fn node() -> Node {
    node_with(Config {
        linger: Duration::from_millis(40),
        compare: Duration::from_secs(600),
        page: 7,
        reads: 4,
    })
}

pub(super) fn node_with(config: Config) -> Node {
    let (world, ear) = (Arc::new(World::default()), Ear::new());
    let bus = Local::new(Arc::<Ear>::clone(&ear));
    let hub = Hub::new(
        Arc::<Local>::clone(&bus),
        Arc::<World>::clone(&world),
        config,
    );
    ear.attach(&hub);
    Node {
        world,
        bus,
        hub,
        limits: Limits::new(1 << 20, Duration::MAX, usize::MAX),
    }
}

impl Node {
    pub(super) fn reader(&self, subject: &str) -> Reader {
        self.reader_with(subject, usize::MAX, Encoding::Binary, &self.limits)
    }

    pub(super) fn reader_with(
        &self,
        subject: &str,
        room: usize,
        encoding: Encoding,
        limits: &Arc<Limits>,
    ) -> Reader {
        let pipe = Pipe::new(room);
        let outbox = Outbox::new(Arc::<Pipe>::clone(&pipe), encoding, Arc::clone(limits));
        outbox.identify(Bytes::copy_from_slice(subject.as_bytes()));
        Reader { pipe, outbox }
    }

    pub(super) async fn join(&self, reader: &Reader) -> Joining {
        self.hub
            .join(&TOPIC.into(), Kind::Logged, &reader.outbox)
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

    /// Committed, and lost by the bus.
    pub(super) fn lose(&self, text: &str) -> Record {
        self.world.append(TOPIC, text, Control::None)
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
        assert!(Instant::now() < deadline, "waited in vain for {}", what());
        sleep(Duration::from_millis(1)).await;
    }
}

pub(super) fn evict(subject: &'static str) -> Control {
    Control::Evict(Bytes::from_static(subject.as_bytes()))
}
