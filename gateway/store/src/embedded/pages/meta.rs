//! The two meta pages. Each commit overwrites the older one as its last write.

use super::{Damage, HEADER, Pages, WORD, u16_at, u32_at, word_at};

const MAGIC: u32 = 0xBEEF_C0DE;
const VERSION: u32 = 1;
const IS_META: u16 = 0x08;
const PAGE_SIZES: std::ops::RangeInclusive<u64> = 512..=32_768;
/// Maximum size of a store: sixteen times the initial size of the map.
const MAX_STORE_BYTES: u64 = 1 << 44;

/// Size of the description of a tree.
pub(super) const TREE_BYTES: usize = 8 + 5 * WORD;
/// Size of the content of a meta page: magic, version, address and size of the map, two trees, the
/// last page, the number of the commit.
const META_BYTES: usize = 8 + 2 * WORD + 2 * TREE_BYTES + 2 * WORD;

/// The description of a tree of pages, in a meta page or in an entry of the tree of trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageTree {
    pub(super) flags: u16,
    pub(super) depth: u16,
    pub(super) branches: u64,
    pub(super) leaves: u64,
    pub(super) overflows: u64,
    pub(super) entries: u64,
    /// The root page; `None` if the tree is empty.
    pub(super) root: Option<u64>,
}

impl PageTree {
    pub(super) fn read(bytes: &[u8]) -> Self {
        let word = |index: usize| word_at(bytes, 8 + index * WORD);
        Self {
            flags: u16_at(bytes, 4),
            depth: u16_at(bytes, 6),
            branches: word(0),
            leaves: word(1),
            overflows: word(2),
            entries: word(3),
            root: Some(word(4)).filter(|root| *root != usize::MAX as u64),
        }
    }
}

/// The content of a meta page: one commit of LMDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Meta {
    pub(super) page_size: u64,
    /// Free pages, by the commit that freed them.
    pub(super) free: PageTree,
    /// The trees of the store, by name.
    pub(super) main: PageTree,
    /// The highest page ever used.
    pub(super) last: u64,
    /// Number of the commit.
    pub(in super::super) commit: u64,
}

impl Meta {
    fn read(bytes: &[u8]) -> Option<Self> {
        let meta = bytes.get(HEADER..HEADER + META_BYTES)?;
        let trees = 8 + 2 * WORD;
        let page_size = u64::from(u32_at(meta, trees));
        let is_valid = u16_at(bytes, WORD + 2) & IS_META != 0
            && u32_at(meta, 0) == MAGIC
            && u32_at(meta, 4) == VERSION
            && page_size.is_power_of_two()
            && PAGE_SIZES.contains(&page_size);
        let (last, commit) = (
            word_at(meta, trees + 2 * TREE_BYTES),
            word_at(meta, trees + 2 * TREE_BYTES + WORD),
        );
        let (free, main) = (
            PageTree::read(&meta[trees..]),
            PageTree::read(&meta[trees + TREE_BYTES..]),
        );
        let is_valid = is_valid && last < MAX_STORE_BYTES / page_size;
        is_valid.then_some(Self {
            page_size,
            free,
            main,
            last,
            commit,
        })
    }

    /// Reads both meta pages in order. While a node writes, the result may be inconsistent; the
    /// caller retries.
    fn both(pages: &Pages) -> Result<[Self; 2], Damage> {
        let length = pages.length()?;
        let read = |offset, index| -> Result<Self, Damage> {
            if offset + (HEADER + META_BYTES) as u64 > length {
                return Err(Damage::Empty(length));
            }
            Self::read(&pages.read(offset, HEADER + META_BYTES)?).ok_or(Damage::Meta(index))
        };
        let first = read(0, 0)?;
        let second = read(first.page_size, 1)?;
        if second.page_size != first.page_size {
            return Err(Damage::Meta(1));
        }
        if first.page_size * 2 > length {
            return Err(Damage::Empty(length));
        }
        Ok([first, second])
    }

    /// Returns the meta page of a commit, unless a later one has overwritten it.
    pub(in super::super) fn of(pages: &Pages, commit: u64) -> Result<Option<Self>, Damage> {
        Ok(Self::both(pages)?
            .into_iter()
            .find(|meta| meta.commit == commit))
    }
}

/// Returns the newest commit of a file that no process writes to.
///
/// The two meta pages must be of consecutive commits. LMDB falls back to the older page if the
/// newer one is lost, and so silently loses the last commit.
pub(in super::super) fn newest(pages: &Pages) -> Result<Meta, Damage> {
    let [even, odd] = Meta::both(pages)?;
    let (newer, older) = if odd.commit > even.commit {
        (odd, even)
    } else {
        (even, odd)
    };
    let is_odd = newer.commit % 2 == 1;
    if older.commit != newer.commit.saturating_sub(1)
        || is_odd != (newer == odd) && newer.commit != 0
    {
        return Err(Damage::Torn(even.commit, odd.commit));
    }
    Ok(newer)
}
