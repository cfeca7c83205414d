//! The content of a broadcast: records framed once per encoding, merged, and pushed to each
//! subscriber.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::subscribers::{Subscriber, SubscriberSnapshot, SubscriberState};
use crate::record::{Control, Record};
use crate::sync::yield_now;
use crate::{Class, FrameEncoding, Gap, Outbox, Position, Source, Topic};

/// Maximum bytes of merged frames. Larger buffers no longer save system calls.
const MAX_MERGED_BYTES: usize = 64 * 1024;

/// About a millisecond of writes.
const SUBSCRIBERS_PER_YIELD: usize = 256;

#[derive(Debug)]
pub(super) enum BatchContent {
    /// Records from the bus, in order.
    FromBus(Vec<Record>),
    /// Records that a recovery read from the log, in order.
    FromLog(Vec<Record>),
    /// Live subscribers continue at this position.
    Gap(Gap, Position),
}

impl BatchContent {
    /// The records; none for a gap.
    pub(super) fn records(&self) -> &[Record] {
        match self {
            Self::FromBus(records) | Self::FromLog(records) => records,
            Self::Gap(..) => &[],
        }
    }
}

/// Records or a gap of one topic, and the subscribers that receive them.
#[derive(Debug)]
pub(super) struct RecordBatch {
    pub(super) content: BatchContent,
    pub(super) subscribers: SubscriberSnapshot,
    pub(super) encodings: [bool; 2],
}

impl RecordBatch {
    /// Pushes the batch to its subscribers. Returns the number of frames.
    pub(super) async fn deliver(self, topic: &Topic, source: &dyn Source) -> u64 {
        let mut frames = 0;
        let mut subscribers = 0;
        let encoded = FrameEncoding::ALL.map(|encoding| match self.encodings[encoding as usize] {
            true => EncodedBatch::new(&self.content, topic, source, encoding),
            false => EncodedBatch::default(),
        });
        let selection = Selection::new(&self.content, topic, source);
        for (_, subscriber) in self.subscribers.iter() {
            frames +=
                selection.deliver(subscriber, &encoded[subscriber.outbox.encoding() as usize]);
            subscribers += 1;
            if subscribers % SUBSCRIBERS_PER_YIELD == 0 {
                yield_now().await;
            }
        }
        if let BatchContent::FromBus(records) = &self.content {
            records
                .iter()
                .for_each(|record| source.after_broadcast(topic, record));
        }
        frames
    }
}

/// Decides which part of a batch a subscriber receives.
struct Selection<'a> {
    topic: &'a Topic,
    source: &'a dyn Source,
    records: &'a [Record],
    /// `seq` of the first durable record. Subscribers before it receive all of them.
    first_seq: u64,
    /// Subjects that do not receive every record.
    excluded: Vec<&'a Bytes>,
    is_gap: bool,
    has_close: bool,
    has_passing: bool,
}

impl<'a> Selection<'a> {
    fn new(content: &'a BatchContent, topic: &'a Topic, source: &'a dyn Source) -> Self {
        let records = content.records();
        let excluded = records.iter().filter_map(|record| match &record.control {
            Control::Evict(subject) | Control::Except(subject) => Some(subject),
            Control::None | Control::Close => None,
        });
        Self {
            topic,
            source,
            records,
            first_seq: records
                .iter()
                .find(|r| r.is_durable())
                .map_or(u64::MAX, |r| r.position.seq),
            excluded: excluded.collect(),
            is_gap: matches!(content, BatchContent::Gap(..)),
            has_close: records.iter().any(|r| r.control == Control::Close),
            has_passing: records.iter().any(|r| !r.is_durable()),
        }
    }

    fn deliver(&self, subscriber: &Subscriber, encoded: &EncodedBatch) -> u64 {
        let after = match subscriber.state {
            SubscriberState::Live { after } => after,
            SubscriberState::CatchingUp { .. } if self.has_passing => u64::MAX,
            SubscriberState::CatchingUp { .. } | SubscriberState::Joining { .. } => return 0,
        };
        let outbox = &subscriber.outbox;
        let delivery = Delivery {
            topic: self.topic,
            source: self.source,
            records: self.records,
            outbox,
        };
        let is_excluded = || {
            self.has_close
                || self
                    .excluded
                    .iter()
                    .any(|subject| **subject == outbox.subject())
        };
        if self.is_gap || (after < self.first_seq && !is_excluded()) {
            return encoded.push_all(&delivery);
        }
        let known = match subscriber.state {
            SubscriberState::Live { after } => after,
            SubscriberState::CatchingUp { head, .. } => head,
            SubscriberState::Joining { .. } => return 0,
        };
        // The subscriber receives a close, but not its own eviction, and neither ends a
        // subscription that was admitted later.
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
        encoded.push_some(&delivery, wants)
    }
}

/// Records for one outbox, and the source that observes some of them.
pub(super) struct Delivery<'a> {
    pub(super) topic: &'a Topic,
    pub(super) source: &'a dyn Source,
    pub(super) records: &'a [Record],
    pub(super) outbox: &'a Arc<Outbox>,
}

impl Delivery<'_> {
    pub(super) fn before_push<'i>(&self, observed: impl Iterator<Item = &'i usize>) {
        observed.for_each(|index| {
            self.source
                .before_delivery(self.topic, &self.records[*index], self.outbox)
        });
    }

    pub(super) fn after_push<'i>(&self, observed: impl Iterator<Item = &'i usize>) {
        observed.for_each(|index| {
            self.source
                .after_delivery(self.topic, &self.records[*index], self.outbox)
        });
    }
}

/// A batch in one encoding.
#[derive(Debug, Default)]
pub(super) struct EncodedBatch {
    buffers: Vec<FrameBuffer>,
}

/// Frames that are queued and written together.
#[derive(Debug)]
pub(super) struct FrameBuffer {
    pub(super) bytes: Bytes,
    class: Class,
    frames: Vec<FrameRange>,
    /// Indices of the records that the source observes.
    pub(super) observed: Vec<usize>,
}

impl FrameBuffer {
    pub(super) fn frame_count(&self) -> u64 {
        self.frames.len() as u64
    }

    /// The index of the last record.
    pub(super) fn last_record(&self) -> Option<usize> {
        self.frames.last().map(|frame| frame.record)
    }
}

#[derive(Debug)]
struct FrameRange {
    /// The index of the frame's record.
    record: usize,
    range: Range<usize>,
}

impl EncodedBatch {
    fn new(
        content: &BatchContent,
        topic: &Topic,
        source: &dyn Source,
        encoding: FrameEncoding,
    ) -> Self {
        match content {
            BatchContent::FromBus(records) | BatchContent::FromLog(records) => {
                Self::records(records, topic, source, encoding, MAX_MERGED_BYTES)
            }
            BatchContent::Gap(gap, position) => {
                Self::single(source.gap(topic, *gap, *position, encoding))
            }
        }
    }

    /// A frame without a record.
    fn single(frame: Bytes) -> Self {
        let frames = vec![FrameRange {
            record: 0,
            range: 0..frame.len(),
        }];
        Self {
            buffers: vec![FrameBuffer {
                bytes: frame,
                class: Class::Durable,
                frames,
                observed: Vec::new(),
            }],
        }
    }

    /// Frames records, and merges neighbours that are not droppable into buffers of at most
    /// `max_bytes`.
    pub(super) fn records(
        records: &[Record],
        topic: &Topic,
        source: &dyn Source,
        encoding: FrameEncoding,
        max_bytes: usize,
    ) -> Self {
        let max_bytes = max_bytes.min(MAX_MERGED_BYTES);
        let mut buffers = Vec::new();
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
            if class != Class::Durable || size + frame.len() > max_bytes {
                buffers.extend(merge(&mut run, size, Class::Durable));
                size = 0;
            }
            size += frame.len();
            run.push((index, frame));
            if class != Class::Durable {
                buffers.extend(merge(&mut run, size, class));
                size = 0;
            }
        }
        buffers.extend(merge(&mut run, size, Class::Durable));
        for buffer in &mut buffers {
            buffer.observed = buffer
                .frames
                .iter()
                .map(|frame| frame.record)
                .filter(|index| source.observes(&records[*index]))
                .collect();
        }
        Self { buffers }
    }

    pub(super) fn buffers(&self) -> &[FrameBuffer] {
        &self.buffers
    }

    /// Pushes all frames and returns their number.
    fn push_all(&self, delivery: &Delivery<'_>) -> u64 {
        let mut frames = 0;
        for buffer in &self.buffers {
            delivery.before_push(buffer.observed.iter());
            if delivery
                .outbox
                .push_of(delivery.topic, buffer.bytes.clone(), buffer.class)
                .is_err()
            {
                break;
            }
            frames += buffer.frame_count();
            delivery.after_push(buffer.observed.iter());
        }
        frames
    }

    /// Pushes the frames of wanted records, neighbours together, and returns their number.
    fn push_some(&self, delivery: &Delivery<'_>, wants: impl Fn(usize) -> bool) -> u64 {
        let mut frames = 0;
        for buffer in &self.buffers {
            for run in buffer
                .frames
                .chunk_by(|a, b| wants(a.record) == wants(b.record))
            {
                let (Some(first), Some(last)) = (run.first(), run.last()) else {
                    continue;
                };
                if !wants(first.record) {
                    continue;
                }
                let pushed = first.record..=last.record;
                delivery.before_push(
                    buffer
                        .observed
                        .iter()
                        .filter(|index| pushed.contains(index)),
                );
                let bytes = buffer.bytes.slice(first.range.start..last.range.end);
                if delivery
                    .outbox
                    .push_of(delivery.topic, bytes, buffer.class)
                    .is_err()
                {
                    return frames;
                }
                frames += run.len() as u64;
                delivery.after_push(
                    buffer
                        .observed
                        .iter()
                        .filter(|index| pushed.contains(index)),
                );
            }
        }
        frames
    }
}

/// Merges frames into one buffer. A single frame is not copied.
fn merge(run: &mut Vec<(usize, Bytes)>, size: usize, class: Class) -> Option<FrameBuffer> {
    if run.len() == 1 {
        let (record, bytes) = run.pop()?;
        let frames = vec![FrameRange {
            record,
            range: 0..bytes.len(),
        }];
        return Some(FrameBuffer {
            frames,
            bytes,
            class,
            observed: Vec::new(),
        });
    }
    let mut bytes = BytesMut::with_capacity(size);
    let mut frames = Vec::with_capacity(run.len());
    for (record, frame) in run.drain(..) {
        let start = bytes.len();
        bytes.extend_from_slice(&frame);
        frames.push(FrameRange {
            record,
            range: start..bytes.len(),
        });
    }
    (!frames.is_empty()).then(|| FrameBuffer {
        bytes: bytes.freeze(),
        class,
        frames,
        observed: Vec::new(),
    })
}
