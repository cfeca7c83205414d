//! What a broadcast tells: records framed once per encoding, merged, and handed to each subscriber.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::seats::{Seat, Snapshot, Standing};
use crate::record::{Control, Record};
use crate::sync::yield_now;
use crate::{Class, Encoding, Gap, Outbox, Position, Source, Topic};

/// Frames are merged into buffers of about so many bytes: beyond that a system call costs what its bytes cost.
const MERGED: usize = 64 * 1024;

/// Subscribers told between two chances for other tasks: about a millisecond's worth of writes.
const STRIDE: usize = 256;

/// What a batch holds.
#[derive(Debug)]
pub(super) enum Load {
    /// Records that the bus brought, in order.
    Passed(Vec<Record>),
    /// Records that a repair read from the log, in order.
    Logged(Vec<Record>),
    /// Live subscribers go on at this position.
    Gap(Gap, Position),
}

impl Load {
    /// Its records, if those are what it holds.
    pub(super) fn records(&self) -> &[Record] {
        match self {
            Self::Passed(records) | Self::Logged(records) => records,
            Self::Gap(..) => &[],
        }
    }
}

/// Records of one topic, and who hears them.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) load: Load,
    pub(super) audience: Snapshot,
    pub(super) encodings: [bool; 2],
}

impl Batch {
    /// Hands the batch to its audience. Returns how many frames that were.
    pub(super) async fn deliver(self, topic: &Topic, source: &dyn Source) -> u64 {
        let mut delivered = 0;
        let mut told = 0;
        let rendered = Encoding::ALL.map(|encoding| match self.encodings[encoding as usize] {
            true => Rendered::new(&self.load, topic, source, encoding),
            false => Rendered::default(),
        });
        let terms = Terms::new(&self.load, topic, source);
        for (_, seat) in self.audience.iter() {
            delivered += terms.tell(seat, &rendered[seat.outbox.encoding() as usize]);
            told += 1;
            if told % STRIDE == 0 {
                yield_now().await;
            }
        }
        if let Load::Passed(records) = &self.load {
            records
                .iter()
                .for_each(|record| source.passed(topic, record));
        }
        delivered
    }
}

/// What of a batch depends on who hears it.
struct Terms<'a> {
    topic: &'a Topic,
    source: &'a dyn Source,
    records: &'a [Record],
    /// The first durable record's `seq`: whoever stands before it is told all of them.
    first: u64,
    /// Subjects that must not hear everything.
    special: Vec<&'a Bytes>,
    is_gap: bool,
    has_close: bool,
    has_passing: bool,
}

impl<'a> Terms<'a> {
    fn new(load: &'a Load, topic: &'a Topic, source: &'a dyn Source) -> Self {
        let records = load.records();
        let special = records.iter().filter_map(|record| match &record.control {
            Control::Evict(subject) | Control::Except(subject) => Some(subject),
            Control::None | Control::Close => None,
        });
        Self {
            topic,
            source,
            records,
            first: records
                .iter()
                .find(|r| r.is_durable())
                .map_or(u64::MAX, |r| r.position.seq),
            special: special.collect(),
            is_gap: matches!(load, Load::Gap(..)),
            has_close: records.iter().any(|r| r.control == Control::Close),
            has_passing: records.iter().any(|r| !r.is_durable()),
        }
    }

    fn tell(&self, seat: &Seat, rendered: &Rendered) -> u64 {
        let after = match seat.standing {
            Standing::Live { after } => after,
            Standing::Behind { .. } if self.has_passing => u64::MAX,
            Standing::Behind { .. } | Standing::Joining { .. } => return 0,
        };
        let outbox = &seat.outbox;
        let telling = Telling {
            topic: self.topic,
            source: self.source,
            records: self.records,
            outbox,
        };
        let is_special = || {
            self.has_close
                || self
                    .special
                    .iter()
                    .any(|subject| **subject == outbox.subject())
        };
        if self.is_gap || (after < self.first && !is_special()) {
            return rendered.push_all(&telling);
        }
        let known = match seat.standing {
            Standing::Live { after } => after,
            Standing::Behind { head, .. } => head,
            Standing::Joining { .. } => return 0,
        };
        // Up to where this one is told: an eviction is not, a close is. Who was let in knowing of either goes on.
        let end = self.records.iter().enumerate().find_map(|(index, record)| {
            let end = match &record.control {
                Control::Evict(subject) if *subject == outbox.subject() => index,
                Control::Close => index + 1,
                _ => return None,
            };
            (!record.is_durable() || known < record.position.seq).then_some(end)
        });
        let end = end.unwrap_or(self.records.len());
        let wants = |index: usize| {
            let record = &self.records[index];
            let excepted =
                matches!(&record.control, Control::Except(subject) if *subject == outbox.subject());
            index < end && !excepted && (!record.is_durable() || after < record.position.seq)
        };
        rendered.push_some(&telling, wants)
    }
}

/// Records on their way to an outbox, and the source that follows some of them.
pub(super) struct Telling<'a> {
    pub(super) topic: &'a Topic,
    pub(super) source: &'a dyn Source,
    pub(super) records: &'a [Record],
    pub(super) outbox: &'a Arc<Outbox>,
}

impl Telling<'_> {
    /// Before those are pushed that are followed.
    pub(super) fn begin<'i>(&self, followed: impl Iterator<Item = &'i usize>) {
        followed.for_each(|index| {
            self.source
                .tells(self.topic, &self.records[*index], self.outbox)
        });
    }

    /// After they were.
    pub(super) fn end<'i>(&self, followed: impl Iterator<Item = &'i usize>) {
        followed.for_each(|index| {
            self.source
                .told(self.topic, &self.records[*index], self.outbox)
        });
    }
}

/// A batch in one encoding.
#[derive(Debug, Default)]
pub(super) struct Rendered {
    pieces: Vec<Piece>,
}

/// Frames that wait and leave together.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) bytes: Bytes,
    class: Class,
    parts: Vec<Part>,
    /// Records among them that the source follows.
    pub(super) followed: Vec<usize>,
}

impl Piece {
    /// How many frames it holds.
    pub(super) fn frames(&self) -> u64 {
        self.parts.len() as u64
    }
}

/// One frame within a piece.
#[derive(Debug)]
struct Part {
    record: usize,
    range: Range<usize>,
}

impl Rendered {
    fn new(load: &Load, topic: &Topic, source: &dyn Source, encoding: Encoding) -> Self {
        match load {
            Load::Passed(records) | Load::Logged(records) => {
                Self::records(records, topic, source, encoding, MERGED)
            }
            Load::Gap(gap, position) => Self::single(source.gap(topic, *gap, *position, encoding)),
        }
    }

    /// One frame that is not a record's.
    fn single(frame: Bytes) -> Self {
        let parts = vec![Part {
            record: 0,
            range: 0..frame.len(),
        }];
        Self {
            pieces: vec![Piece {
                bytes: frame,
                class: Class::Durable,
                parts,
                followed: Vec::new(),
            }],
        }
    }

    /// Frames records, and merges those that are not droppable with their neighbours, up to `most` bytes.
    pub(super) fn records(
        records: &[Record],
        topic: &Topic,
        source: &dyn Source,
        encoding: Encoding,
        most: usize,
    ) -> Self {
        let most = most.min(MERGED);
        let mut pieces = Vec::new();
        let mut run: Vec<(usize, Bytes)> = Vec::new();
        let mut size = 0;
        for (index, record) in records.iter().enumerate() {
            let Some(frame) = source.frame(topic, record, encoding) else {
                continue;
            };
            let class = if record.is_durable() {
                Class::Durable
            } else {
                source.class(topic, record)
            };
            if class != Class::Durable || size + frame.len() > most {
                pieces.extend(merge(&mut run, size, Class::Durable));
                size = 0;
            }
            size += frame.len();
            run.push((index, frame));
            if class != Class::Durable {
                pieces.extend(merge(&mut run, size, class));
                size = 0;
            }
        }
        pieces.extend(merge(&mut run, size, Class::Durable));
        for piece in &mut pieces {
            piece.followed = piece
                .parts
                .iter()
                .map(|part| part.record)
                .filter(|index| source.follows(&records[*index]))
                .collect();
        }
        Self { pieces }
    }

    /// What is pushed at once, in order.
    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Pushes everything. Returns how many frames that were.
    fn push_all(&self, telling: &Telling<'_>) -> u64 {
        let mut frames = 0;
        for piece in &self.pieces {
            telling.begin(piece.followed.iter());
            if telling
                .outbox
                .push_of(telling.topic, piece.bytes.clone(), piece.class)
                .is_err()
            {
                break;
            }
            frames += piece.frames();
            telling.end(piece.followed.iter());
        }
        frames
    }

    /// As `push_all`, of the frames that are wanted; neighbours stay together.
    fn push_some(&self, telling: &Telling<'_>, wants: impl Fn(usize) -> bool) -> u64 {
        let mut frames = 0;
        for piece in &self.pieces {
            for run in piece
                .parts
                .chunk_by(|a, b| wants(a.record) == wants(b.record))
            {
                let (Some(first), Some(last)) = (run.first(), run.last()) else {
                    continue;
                };
                if !wants(first.record) {
                    continue;
                }
                let pushed = first.record..=last.record;
                telling.begin(piece.followed.iter().filter(|index| pushed.contains(index)));
                if telling
                    .outbox
                    .push_of(
                        telling.topic,
                        piece.bytes.slice(first.range.start..last.range.end),
                        piece.class,
                    )
                    .is_err()
                {
                    return frames;
                }
                frames += run.len() as u64;
                telling.end(piece.followed.iter().filter(|index| pushed.contains(index)));
            }
        }
        frames
    }
}

/// One buffer of a run of frames, without a copy if it is a single one.
fn merge(run: &mut Vec<(usize, Bytes)>, size: usize, class: Class) -> Option<Piece> {
    if run.len() == 1 {
        let (record, bytes) = run.pop()?;
        return Some(Piece {
            parts: vec![Part {
                record,
                range: 0..bytes.len(),
            }],
            bytes,
            class,
            followed: Vec::new(),
        });
    }
    let mut bytes = BytesMut::with_capacity(size);
    let mut parts = Vec::with_capacity(run.len());
    for (record, frame) in run.drain(..) {
        let start = bytes.len();
        bytes.extend_from_slice(&frame);
        parts.push(Part {
            record,
            range: start..bytes.len(),
        });
    }
    (!parts.is_empty()).then(|| Piece {
        bytes: bytes.freeze(),
        class,
        parts,
        followed: Vec::new(),
    })
}
