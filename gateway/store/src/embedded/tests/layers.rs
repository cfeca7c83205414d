//! Reads through memory and trees, against a model.

use std::{collections::BTreeMap, ops::Bound, time::Instant};

use proptest::prelude::*;
use tempfile::TempDir;

use crate::embedded::{
    checkpoint::{self, Pieces},
    disk::Disk,
    fault::Fault,
    memory::Memory,
    tree::Tree,
};

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    /// Freezes, if no checkpoint is pending.
    Freeze,
    /// Writes the frozen changes into the trees, and drops them from memory or not yet.
    Checkpoint {
        is_dropped: bool,
    },
    /// Reads from a bound to another one.
    Read(u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..24u8, any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        2 => (0..24u8).prop_map(Step::Delete),
        1 => Just(Step::Freeze),
        1 => any::<bool>().prop_map(|is_dropped| Step::Checkpoint { is_dropped }),
        2 => (0..24u8, 0..24u8).prop_map(|(from, to)| Step::Read(from.min(to), from.max(to))),
    ]
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn read(disk: &Disk, from: u8, to: u8) -> Result<[Pairs; 3], Fault> {
    disk.read(|trees| {
        let (start, end) = ([from], [to]);
        let (start, end) = (Bound::Included(&start[..]), Bound::Excluded(&end[..]));
        let owned = |entry: Result<(&[u8], &[u8]), Fault>| {
            entry.map(|(key, value)| (key.to_vec(), value.to_vec()))
        };
        let mut single = Vec::new();
        for key in from..to {
            if let Some(value) = trees.get(Tree::Entries, &[key])? {
                single.push((vec![key], value.to_vec()));
            }
        }
        let mut reverse: Pairs = trees
            .rev_range(Tree::Entries, start, end)?
            .map(owned)
            .collect::<Result<_, _>>()?;
        reverse.reverse();
        let forward = trees.range(Tree::Entries, start, end)?.map(owned);
        Ok([single, forward.collect::<Result<_, _>>()?, reverse])
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn memory_and_trees_are_read_as_one(steps in prop::collection::vec(step(), 1..60)) {
        let folder = TempDir::new().unwrap();
        let disk = Disk::open(folder.path(), 1 << 20).unwrap();
        let (mut model, mut frozen, mut through) = (BTreeMap::new(), None, 0);
        for step in steps {
            match step {
                Step::Put(key, value) => {
                    model.insert(vec![key], vec![value]);
                    let Memory { mut active, .. } = disk.memory();
                    active.apply(Tree::Entries, vec![key].into(), Some(vec![value].into()));
                    disk.publish(active);
                }
                Step::Delete(key) => {
                    model.remove(&vec![key]);
                    let Memory { mut active, .. } = disk.memory();
                    active.apply(Tree::Entries, vec![key].into(), None);
                    disk.publish(active);
                }
                Step::Freeze if frozen.is_none() => frozen = Some(disk.freeze()),
                Step::Checkpoint { is_dropped } => if let Some(layer) = &frozen {
                    through += 1;
                    checkpoint::write(&disk, layer, through, Pieces::DEFAULT.without_pause()).unwrap();
                    prop_assert_eq!(disk.journal_position().unwrap(), Some(through));
                    if is_dropped {
                        disk.drop_frozen();
                        frozen = None;
                    }
                }
                Step::Freeze => {}
                Step::Read(from, to) => {
                    let expected: Pairs = model
                        .range(vec![from]..vec![to])
                        .map(|(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone()))
                        .collect();
                    for found in read(&disk, from, to).unwrap() {
                        prop_assert_eq!(&found, &expected);
                    }
                }
            }
        }
    }
}

/// A writer whose disk does not keep up refuses commits, and goes on when it does.
#[tokio::test]
async fn commits_beyond_the_bound_of_memory_are_refused_until_a_checkpoint_makes_room() {
    use super::{
        folder::{message, room},
        *,
    };
    use crate::StoreError;

    let folder = TempDir::new().unwrap();
    let limits = CheckpointLimits {
        bytes: usize::MAX,
        age: Duration::from_secs(3_600),
        max_bytes: 64 << 10,
        pieces: Pieces::DEFAULT,
    };
    let store = Embedded::open_with(
        folder.path(),
        Options {
            keep: Keep {
                events: 0,
                bytes: 0,
            },
            map_size: 1 << 20,
            limits,
            clock: Arc::new(|| 1),
        },
        Local::new(Arc::new(())),
    )
    .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    for number in 0..100 {
        // At the bound a checkpoint begins, whatever its size and age.
        loop {
            match store
                .commit(&room(), message(&format!("m{number}"), vec![0; 4_000]))
                .await
            {
                Ok(outcome) => break drop(outcome.unwrap()),
                Err(StoreError::Full(_)) => assert!(Instant::now() < deadline),
                Err(error) => panic!("{error}"),
            }
        }
        assert!(store.disk.memory_bytes().1 < 2 * (64 << 10));
    }
    assert_eq!(super::folder::checked_keys(&store).await.len(), 100);
    store.close().await;
}

/// A read that begins while a checkpoint ends sees what was published before it.
#[test]
fn read_never_misses_what_was_published_before_while_checkpoints_end() {
    use std::sync::atomic::{AtomicU64, Ordering};

    const LAST: u64 = 400;

    let folder = TempDir::new().unwrap();
    let disk = Disk::open(folder.path(), 1 << 20).unwrap();
    let published = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..=LAST {
                let Memory { mut active, .. } = disk.memory();
                let value = number.to_be_bytes().to_vec();
                active.apply(Tree::Entries, b"key".to_vec().into(), Some(value.into()));
                disk.publish(active);
                published.store(number, Ordering::SeqCst);
                checkpoint::write(
                    &disk,
                    &disk.freeze(),
                    number,
                    Pieces::DEFAULT.without_pause(),
                )
                .unwrap();
                disk.drop_frozen();
            }
        });
        for _ in 0..3 {
            scope.spawn(|| {
                let mut before = 0;
                while before < LAST {
                    before = published.load(Ordering::SeqCst);
                    let found = disk.read(|trees| {
                        let value = trees.get(Tree::Entries, b"key")?;
                        Ok::<_, Fault>(
                            value.map_or(0, |value| u64::from_be_bytes(value.try_into().unwrap())),
                        )
                    });
                    assert!(found.unwrap() >= before);
                }
            });
        }
    });
}
