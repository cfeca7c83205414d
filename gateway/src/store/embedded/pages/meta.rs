//! The two meta pages: each commit writes one of them in turn, as the last of its writes.

use super::{Damage, HEADER, Pages, WORD, u16_at, u32_at, word_at};

const MAGIC: u32 = 0xBEEF_C0DE;
const VERSION: u32 = 1;
const IS_META: u16 = 0x08;
const PAGE_SIZES: std::ops::RangeInclusive<u64> = 512..=32_768;
/// No store is larger, in bytes: sixteen times the map that it begins with.
const LARGEST: u64 = 1 << 44;

/// What the description of a tree takes.
pub(super) const TREE: usize = 8 + 5 * WORD;
/// Magic, version, address, size of the map; two trees; the last page, the number of the commit.
const META: usize = 8 + 2 * WORD + 2 * TREE + 2 * WORD;

/// A tree of pages as it is described where it hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tree {
    pub(super) flags: u16,
    pub(super) depth: u16,
    pub(super) branches: u64,
    pub(super) leaves: u64,
    pub(super) overflows: u64,
    pub(super) entries: u64,
    /// The page at its top; none if it is empty.
    pub(super) root: Option<u64>,
}

impl Tree {
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

/// A commit, as its meta page tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Meta {
    pub(super) page_size: u64,
    /// Pages that are free, by the commit that freed them.
    pub(super) free: Tree,
    /// The trees of the store, by name.
    pub(super) main: Tree,
    /// The highest page that was ever in use.
    pub(super) last: u64,
    /// The number of the commit.
    pub(in super::super) commit: u64,
}

impl Meta {
    fn read(bytes: &[u8]) -> Option<Self> {
        let meta = bytes.get(HEADER..HEADER + META)?;
        let trees = 8 + 2 * WORD;
        let page_size = u64::from(u32_at(meta, trees));
        let is_sound = u16_at(bytes, WORD + 2) & IS_META != 0
            && u32_at(meta, 0) == MAGIC
            && u32_at(meta, 4) == VERSION
            && page_size.is_power_of_two()
            && PAGE_SIZES.contains(&page_size);
        let (last, commit) = (
            word_at(meta, trees + 2 * TREE),
            word_at(meta, trees + 2 * TREE + WORD),
        );
        let (free, main) = (
            Tree::read(&meta[trees..]),
            Tree::read(&meta[trees + TREE..]),
        );
        let is_sound = is_sound && last < LARGEST / page_size;
        is_sound.then_some(Self {
            page_size,
            free,
            main,
            last,
            commit,
        })
    }

    /// The two of a file, in their order. While a node writes, they may be of a moment in between: read them again.
    fn both(pages: &Pages) -> Result<[Self; 2], Damage> {
        let length = pages.length()?;
        let read = |offset, index| -> Result<Self, Damage> {
            if offset + (HEADER + META) as u64 > length {
                return Err(Damage::Empty(length));
            }
            Self::read(&pages.read(offset, HEADER + META)?).ok_or(Damage::Meta(index))
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

    /// The one of this commit, if it is still there.
    pub(in super::super) fn of(pages: &Pages, commit: u64) -> Result<Option<Self>, Damage> {
        Ok(Self::both(pages)?
            .into_iter()
            .find(|meta| meta.commit == commit))
    }
}

/// The newest commit of a file that nobody writes to. The two meta pages must be those of two commits in a row: were LMDB
/// left to choose, it would take the older one for a newer one that was lost, and what that acknowledged with it.
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
