//! The trees of pages: whether every page that is in use is one, in its place, and in no other's.

use std::collections::VecDeque;

use super::{
    Damage, HEADER, LOST, Meta, Pages, WORD,
    meta::{TREE, Tree},
    u16_at, u32_at, word_at,
};

const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const OVERFLOW: u16 = 0x04;
/// What tells apart the kinds of pages. None is a meta page, or one for duplicates, which are not used here.
const KIND: u16 = 0x6f;

/// What stands before the key of an entry: the length of its data or a page's number, flags, the length of the key.
const NODE: usize = 8;
/// Flags of an entry: its data lies on pages of its own; its data is a tree.
const BIG: u16 = 0x01;
const SUBTREE: u16 = 0x02;
const DUPLICATES: u16 = 0x04;
/// The only flag of a tree here: keys are numbers, as in that of the free pages.
const NUMBERS: u16 = 0x08;

/// The deepest that LMDB makes a tree.
const DEEPEST: u16 = 32;

/// No page of data: the two meta pages stand before.
const FIRST: u64 = 2;

/// How far to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Extent {
    /// Everything, to its end: also whether each page is either in use or free.
    Whole,
    /// So many pages from the tops of the trees down, and whether the file is as long as it must be. A small store is seen as a whole.
    Pages(usize),
}

/// Walks the trees of a commit, and tells what is wrong with them.
pub(in super::super) fn walk(
    pages: &Pages,
    meta: &Meta,
    extent: Extent,
) -> Result<Vec<Damage>, Damage> {
    let length = pages.length()?;
    let mut walk = Walk {
        pages,
        meta,
        held: length / meta.page_size,
        length,
        used: Marks::new(meta.last),
        free: Marks::new(meta.last),
        trees: Vec::new(),
        left: VecDeque::new(),
        damage: Vec::new(),
    };
    walk.hang("free pages".to_owned(), meta.free, NUMBERS);
    // The list of free pages tells what need not be there, so it is read to its end.
    if extent == Extent::Whole || walk.held <= meta.last {
        walk.on(usize::MAX);
    }
    walk.hang("of trees".to_owned(), meta.main, 0);
    let is_whole = match extent {
        Extent::Whole => walk.on(usize::MAX),
        Extent::Pages(most) => walk.on(most),
    };
    walk.sum(is_whole, extent);
    Ok(walk.damage)
}

/// One mark for each page.
struct Marks(Vec<u64>);

impl Marks {
    fn new(last: u64) -> Self {
        Self(vec![0; last as usize / 64 + 1])
    }

    fn has(&self, page: u64) -> bool {
        self.0[page as usize / 64] & (1 << (page % 64)) != 0
    }

    /// Marks a page; false if it was.
    fn set(&mut self, page: u64) -> bool {
        let was = self.has(page);
        self.0[page as usize / 64] |= 1 << (page % 64);
        !was
    }
}

/// A tree, and what was found of it.
struct Hung {
    name: String,
    told: Tree,
    branches: u64,
    leaves: u64,
    overflows: u64,
    entries: u64,
}

/// A page that is to be looked at.
struct Visit {
    page: u64,
    tree: usize,
    /// Levels from here down to the leaves, this one included.
    levels: u16,
    /// Keys on it are not below the first and below the second.
    from: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
}

struct Walk<'a> {
    pages: &'a Pages,
    meta: &'a Meta,
    /// How many pages the file has, and bytes.
    held: u64,
    length: u64,
    used: Marks,
    free: Marks,
    trees: Vec<Hung>,
    left: VecDeque<Visit>,
    damage: Vec<Damage>,
}

impl Walk<'_> {
    fn hang(&mut self, name: String, told: Tree, flags: u16) {
        if told.flags & !NUMBERS != 0
            || told.flags & NUMBERS != flags && told.root.is_some()
            || told.depth > DEEPEST
        {
            self.damage.push(Damage::Page {
                page: told.root.unwrap_or_default(),
                what: "is the top of a tree of an unknown kind",
            });
        } else if let Some(page) = told.root {
            self.left.push_back(Visit {
                page,
                tree: self.trees.len(),
                levels: told.depth,
                from: None,
                to: None,
            });
        }
        self.trees.push(Hung {
            name,
            told,
            branches: 0,
            leaves: 0,
            overflows: 0,
            entries: 0,
        });
    }

    /// Looks at so many pages: level by level if there is a bound, else one branch after the other, which takes less memory.
    /// Whether none is left.
    fn on(&mut self, most: usize) -> bool {
        let mut seen = 0;
        while let Some(visit) = if most == usize::MAX {
            self.left.pop_back()
        } else {
            self.left.pop_front()
        } {
            if let Err(damage) = self.visit(visit, most == usize::MAX || self.left.len() < most) {
                self.damage.push(damage);
            }
            seen += 1;
            if seen == most {
                return self.left.is_empty();
            }
        }
        true
    }

    /// A page that is in use from now on.
    fn take(&mut self, page: u64) -> Result<(), Damage> {
        let wrong = |what| Err(Damage::Page { page, what });
        if page < FIRST || page > self.meta.last {
            return wrong("is in use, and no such page was ever made");
        }
        if page >= self.held {
            return Err(Damage::Short {
                length: self.length,
                page,
                pages: self.meta.last + 1,
            });
        }
        if !self.used.set(page) {
            return wrong("is used twice");
        }
        if self.free.has(page) {
            return wrong("is in use and free: a write would overwrite it");
        }
        Ok(())
    }

    fn visit(&mut self, visit: Visit, descend: bool) -> Result<(), Damage> {
        let Visit {
            page,
            tree,
            levels,
            from,
            to,
        } = visit;
        let wrong = |what| Damage::Page { page, what };
        self.take(page)?;
        let size = self.meta.page_size as usize;
        let bytes = self.pages.read(page * self.meta.page_size, size)?;
        let kind = if levels <= 1 { LEAF } else { BRANCH };
        if word_at(&bytes, 0) != page || u16_at(&bytes, WORD + 2) & KIND != kind {
            return Err(wrong("is not the page that was written there"));
        }
        let (lower, upper) = (
            usize::from(u16_at(&bytes, WORD + 4)),
            usize::from(u16_at(&bytes, WORD + 6)),
        );
        let fewest = if kind == BRANCH && tree > 0 { 2 } else { 1 };
        if lower < HEADER + 2 * fewest || lower % 2 != 0 || lower > upper || upper > size {
            return Err(wrong("has impossible bounds"));
        }
        let is_numbers = self.trees[tree].told.flags & NUMBERS != 0;
        let is_below = |a: &[u8], b: &[u8]| {
            if is_numbers {
                word_at(a, 0) < word_at(b, 0)
            } else {
                a < b
            }
        };
        let mut nodes = Vec::with_capacity((lower - HEADER) / 2);
        for index in 0..(lower - HEADER) / 2 {
            let node = Node::at(
                &bytes,
                usize::from(u16_at(&bytes, HEADER + 2 * index)),
                upper,
                kind,
            );
            let node = node.ok_or_else(|| wrong("has an entry that does not lie on it"))?;
            // The first key of a branch stands for everything below the second.
            if kind == LEAF || index > 0 {
                let is_ordered = nodes.last().is_none_or(|last: &Node<'_>| {
                    kind == BRANCH && index == 1 || is_below(last.key, node.key)
                });
                let is_within = from.as_ref().is_none_or(|from| !is_below(node.key, from))
                    && to.as_ref().is_none_or(|to| is_below(node.key, to));
                if !is_ordered || !is_within {
                    return Err(wrong("has keys out of their order"));
                }
            }
            nodes.push(node);
        }
        if kind == LEAF {
            self.trees[tree].leaves += 1;
            self.trees[tree].entries += nodes.len() as u64;
            return nodes
                .iter()
                .try_for_each(|node| self.entry(page, tree, node));
        }
        self.trees[tree].branches += 1;
        if descend {
            for (index, node) in nodes.iter().enumerate() {
                let from = if index == 0 {
                    from.clone()
                } else {
                    Some(node.key.to_vec())
                };
                let to = nodes
                    .get(index + 1)
                    .map_or_else(|| to.clone(), |next| Some(next.key.to_vec()));
                self.left.push_back(Visit {
                    page: node.child(),
                    tree,
                    levels: levels - 1,
                    from,
                    to,
                });
            }
        }
        Ok(())
    }

    /// An entry of a leaf, with the pages that belong to it alone.
    fn entry(&mut self, page: u64, tree: usize, node: &Node<'_>) -> Result<(), Damage> {
        let wrong = |what| Damage::Page { page, what };
        let big;
        let data = if node.flags & BIG == 0 {
            node.data
        } else {
            let first = word_at(node.data, 0);
            let count = self.overflow(first, node.size)?;
            self.trees[tree].overflows += count;
            // Only the list of free pages is read here.
            big = if tree == 0 {
                self.pages
                    .read(first * self.meta.page_size + HEADER as u64, node.size)?
            } else {
                Vec::new()
            };
            &big
        };
        match (tree, node.flags & !BIG) {
            (0, 0) => self
                .list(data)
                .ok_or_else(|| wrong("lists free pages that cannot be"))?,
            (1, SUBTREE) if data.len() == TREE => self.hang(
                String::from_utf8_lossy(node.key).into_owned(),
                Tree::read(data),
                0,
            ),
            (2.., 0) => {}
            _ => return Err(wrong("has an entry of an unknown kind")),
        }
        Ok(())
    }

    /// Pages that hold one long value: how many.
    fn overflow(&mut self, first: u64, size: usize) -> Result<u64, Damage> {
        let needed = (HEADER - 1 + size) as u64 / self.meta.page_size + 1;
        self.take(first)?;
        let head = self.pages.read(first * self.meta.page_size, HEADER)?;
        let count = u64::from(u32_at(&head, WORD + 4));
        if word_at(&head, 0) != first
            || u16_at(&head, WORD + 2) & KIND != OVERFLOW
            || count < needed
        {
            return Err(Damage::Page {
                page: first,
                what: "is not the page that was written there",
            });
        }
        (1..count).try_for_each(|next| self.take(first + next))?;
        Ok(count)
    }

    /// A list of free pages: their count, then their numbers.
    fn list(&mut self, data: &[u8]) -> Option<()> {
        let count = usize::try_from(word_at(data, 0))
            .ok()
            .filter(|count| *count < data.len() / WORD)?;
        for index in 1..=count {
            let page = word_at(data, index * WORD);
            if page < FIRST || page > self.meta.last || !self.free.set(page) || self.used.has(page)
            {
                return None;
            }
        }
        Some(())
    }

    /// What only the whole tells.
    fn sum(&mut self, is_whole: bool, extent: Extent) {
        if !self.damage.is_empty() {
            return;
        }
        if let Some(page) = (self.held..=self.meta.last).find(|page| !self.free.has(*page)) {
            self.damage.push(Damage::Short {
                length: self.length,
                page,
                pages: self.meta.last + 1,
            });
        }
        if !is_whole {
            return;
        }
        for Hung {
            name,
            told,
            branches,
            leaves,
            overflows,
            entries,
        } in &self.trees
        {
            for (what, found, counted) in [
                ("branches", *branches, told.branches),
                ("leaves", *leaves, told.leaves),
                ("pages of long values", *overflows, told.overflows),
                ("entries", *entries, told.entries),
            ] {
                if found != counted {
                    self.damage.push(Damage::Count {
                        tree: name.clone(),
                        what,
                        found,
                        counted,
                    });
                }
            }
        }
        if extent == Extent::Whole {
            let lost = (FIRST..=self.meta.last)
                .filter(|page| !self.used.has(*page) && !self.free.has(*page));
            let lost = lost.map(|page| Damage::Page { page, what: LOST });
            self.damage.extend(lost);
        }
    }
}

/// An entry of a page.
struct Node<'a> {
    flags: u16,
    /// Of its data, also where that lies elsewhere.
    size: usize,
    key: &'a [u8],
    data: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> Node<'a> {
    fn at(page: &'a [u8], at: usize, upper: usize, kind: u16) -> Option<Self> {
        let bytes = page
            .get(at..)
            .filter(|bytes| at >= upper && bytes.len() >= NODE)?;
        // The halves of the length lie as the machine's own number does.
        let size = u32_at(bytes, 0) as usize;
        let (flags, key_length) = (u16_at(bytes, 4), usize::from(u16_at(bytes, 6)));
        let (key, rest) = bytes[NODE..].split_at_checked(key_length)?;
        let data = match kind {
            BRANCH => &[],
            _ if flags & DUPLICATES != 0 => return None,
            _ if flags & BIG != 0 => rest.get(..WORD)?,
            _ => rest.get(..size)?,
        };
        Some(Self {
            flags,
            size,
            key,
            data,
            bytes,
        })
    }

    /// The page below.
    fn child(&self) -> u64 {
        let top = if WORD == 8 {
            u64::from(self.flags) << 32
        } else {
            0
        };
        u64::from(u32_at(self.bytes, 0)) | top
    }
}
