//! The check of the trees of pages: each page in use is valid and used exactly once.

use std::collections::VecDeque;

use super::{
    Damage, HEADER, LOST, Meta, Pages, WORD,
    meta::{PageTree, TREE_BYTES},
    u16_at, u32_at, word_at,
};

const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const OVERFLOW: u16 = 0x04;
/// Mask of the flags that distinguish the kinds of pages. Includes meta pages and pages of
/// duplicates, which do not occur in trees here.
const KIND: u16 = 0x6f;

/// Size of an entry's header: the length of its data or a page number, flags, the length of the
/// key.
const NODE_HEADER: usize = 8;
/// Flag of an entry whose data is on overflow pages.
const BIG: u16 = 0x01;
/// Flag of an entry whose data describes a tree.
const SUBTREE: u16 = 0x02;
const DUPLICATES: u16 = 0x04;
/// Flag of a tree whose keys are numbers: that of the free pages. No other flag is used here.
const NUMBERS: u16 = 0x08;

/// Maximum depth of a tree in LMDB.
const MAX_DEPTH: u16 = 32;

/// The first page after the two meta pages.
const FIRST: u64 = 2;

/// The extent of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Extent {
    /// All pages, and that each page is either in use or free.
    Whole,
    /// This many pages from the roots of the trees down, and the length of the file. Covers a small
    /// store completely.
    Pages(usize),
}

/// Walks the trees of a commit and returns the damage found.
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
        used: PageSet::new(meta.last),
        free: PageSet::new(meta.last),
        trees: Vec::new(),
        pending: VecDeque::new(),
        damage: Vec::new(),
    };
    walk.add_tree("free pages".to_owned(), meta.free, NUMBERS);
    // A short file may lack only free pages: read the complete list of them.
    if extent == Extent::Whole || walk.held <= meta.last {
        walk.visit_pages(usize::MAX);
    }
    walk.add_tree("of trees".to_owned(), meta.main, 0);
    let is_complete = match extent {
        Extent::Whole => walk.visit_pages(usize::MAX),
        Extent::Pages(limit) => walk.visit_pages(limit),
    };
    walk.check_totals(is_complete, extent);
    Ok(walk.damage)
}

/// A set of pages.
struct PageSet(Vec<u64>);

impl PageSet {
    fn new(last: u64) -> Self {
        Self(vec![0; last as usize / 64 + 1])
    }

    fn contains(&self, page: u64) -> bool {
        self.0[page as usize / 64] & (1 << (page % 64)) != 0
    }

    /// Inserts a page. Returns false if the set contained it.
    fn insert(&mut self, page: u64) -> bool {
        let is_new = !self.contains(page);
        self.0[page as usize / 64] |= 1 << (page % 64);
        is_new
    }
}

/// A tree's description, and the pages and entries counted so far.
struct CountedTree {
    name: String,
    described: PageTree,
    branches: u64,
    leaves: u64,
    overflows: u64,
    entries: u64,
}

/// A page to visit.
struct Visit {
    page: u64,
    /// Index of the tree.
    tree: usize,
    /// Levels from this page down to the leaves, inclusive.
    levels: u16,
    /// Lower bound of the keys, inclusive.
    from: Option<Vec<u8>>,
    /// Upper bound of the keys, exclusive.
    to: Option<Vec<u8>>,
}

struct Walk<'a> {
    pages: &'a Pages,
    meta: &'a Meta,
    /// Number of pages in the file.
    held: u64,
    /// Length of the file in bytes.
    length: u64,
    used: PageSet,
    free: PageSet,
    trees: Vec<CountedTree>,
    pending: VecDeque<Visit>,
    damage: Vec<Damage>,
}

impl Walk<'_> {
    fn add_tree(&mut self, name: String, described: PageTree, flags: u16) {
        if described.flags & !NUMBERS != 0
            || described.flags & NUMBERS != flags && described.root.is_some()
            || described.depth > MAX_DEPTH
        {
            self.damage.push(Damage::Page {
                page: described.root.unwrap_or_default(),
                what: "is the root of a tree of an unknown kind",
            });
        } else if let Some(page) = described.root {
            self.pending.push_back(Visit {
                page,
                tree: self.trees.len(),
                levels: described.depth,
                from: None,
                to: None,
            });
        }
        self.trees.push(CountedTree {
            name,
            described,
            branches: 0,
            leaves: 0,
            overflows: 0,
            entries: 0,
        });
    }

    /// Visits up to `limit` pages: breadth first if there is a limit, otherwise depth first, which
    /// takes less memory. Returns whether all pages were visited.
    fn visit_pages(&mut self, limit: usize) -> bool {
        let is_unlimited = limit == usize::MAX;
        let mut visited = 0;
        while let Some(visit) = if is_unlimited {
            self.pending.pop_back()
        } else {
            self.pending.pop_front()
        } {
            let descend = is_unlimited || self.pending.len() < limit;
            if let Err(damage) = self.visit(visit, descend) {
                self.damage.push(damage);
            }
            visited += 1;
            if visited == limit {
                return self.pending.is_empty();
            }
        }
        true
    }

    /// Marks a page as used.
    fn mark_used(&mut self, page: u64) -> Result<(), Damage> {
        let wrong = |what| Err(Damage::Page { page, what });
        if page < FIRST || page > self.meta.last {
            return wrong("is in use, and no such page was ever allocated");
        }
        if page >= self.held {
            return Err(Damage::Truncated {
                length: self.length,
                page,
                pages: self.meta.last + 1,
            });
        }
        if !self.used.insert(page) {
            return wrong("is used twice");
        }
        if self.free.contains(page) {
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
        self.mark_used(page)?;
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
        let is_numbers = self.trees[tree].described.flags & NUMBERS != 0;
        let is_below = |a: &[u8], b: &[u8]| {
            if is_numbers {
                word_at(a, 0) < word_at(b, 0)
            } else {
                a < b
            }
        };
        let mut nodes = Vec::with_capacity((lower - HEADER) / 2);
        for index in 0..(lower - HEADER) / 2 {
            let node = PageNode::at(
                &bytes,
                usize::from(u16_at(&bytes, HEADER + 2 * index)),
                upper,
                kind,
            );
            let node = node.ok_or_else(|| wrong("has an entry that does not lie on it"))?;
            // The first key of a branch is not used: its child has all keys below the second.
            if kind == LEAF || index > 0 {
                let is_ordered = nodes.last().is_none_or(|last: &PageNode<'_>| {
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
                self.pending.push_back(Visit {
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

    /// Checks an entry of a leaf and its overflow pages.
    fn entry(&mut self, page: u64, tree: usize, node: &PageNode<'_>) -> Result<(), Damage> {
        let wrong = |what| Damage::Page { page, what };
        let big;
        let data = if node.flags & BIG == 0 {
            node.data
        } else {
            let first = word_at(node.data, 0);
            let count = self.overflow(first, node.size)?;
            self.trees[tree].overflows += count;
            // Only the lists of free pages are needed.
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
                .free_list(data)
                .ok_or_else(|| wrong("lists invalid free pages"))?,
            (1, SUBTREE) if data.len() == TREE_BYTES => self.add_tree(
                String::from_utf8_lossy(node.key).into_owned(),
                PageTree::read(data),
                0,
            ),
            (2.., 0) => {}
            _ => return Err(wrong("has an entry of an unknown kind")),
        }
        Ok(())
    }

    /// Checks the overflow pages of a value and returns their number.
    fn overflow(&mut self, first: u64, size: usize) -> Result<u64, Damage> {
        let needed = (HEADER - 1 + size) as u64 / self.meta.page_size + 1;
        self.mark_used(first)?;
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
        (1..count).try_for_each(|next| self.mark_used(first + next))?;
        Ok(count)
    }

    /// Adds a list of free pages: their count, then their numbers. Returns `None` if it is invalid.
    fn free_list(&mut self, data: &[u8]) -> Option<()> {
        let count = usize::try_from(word_at(data, 0))
            .ok()
            .filter(|count| *count < data.len() / WORD)?;
        for index in 1..=count {
            let page = word_at(data, index * WORD);
            if page < FIRST
                || page > self.meta.last
                || !self.free.insert(page)
                || self.used.contains(page)
            {
                return None;
            }
        }
        Some(())
    }

    /// Checks the length of the file, and after a complete walk the counts of the trees.
    fn check_totals(&mut self, is_complete: bool, extent: Extent) {
        if !self.damage.is_empty() {
            return;
        }
        if let Some(page) = (self.held..=self.meta.last).find(|page| !self.free.contains(*page)) {
            self.damage.push(Damage::Truncated {
                length: self.length,
                page,
                pages: self.meta.last + 1,
            });
        }
        if !is_complete {
            return;
        }
        for CountedTree {
            name,
            described,
            branches,
            leaves,
            overflows,
            entries,
        } in &self.trees
        {
            for (what, found, counted) in [
                ("branches", *branches, described.branches),
                ("leaves", *leaves, described.leaves),
                ("pages of long values", *overflows, described.overflows),
                ("entries", *entries, described.entries),
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
                .filter(|page| !self.used.contains(*page) && !self.free.contains(*page));
            let lost = lost.map(|page| Damage::Page { page, what: LOST });
            self.damage.extend(lost);
        }
    }
}

/// An entry of a page.
struct PageNode<'a> {
    flags: u16,
    /// Length of the data, including data on overflow pages.
    size: usize,
    key: &'a [u8],
    data: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> PageNode<'a> {
    fn at(page: &'a [u8], at: usize, upper: usize, kind: u16) -> Option<Self> {
        let bytes = page
            .get(at..)
            .filter(|bytes| at >= upper && bytes.len() >= NODE_HEADER)?;
        // The two halves of the length form a number in the machine's byte order.
        let size = u32_at(bytes, 0) as usize;
        let (flags, key_length) = (u16_at(bytes, 4), usize::from(u16_at(bytes, 6)));
        let (key, rest) = bytes[NODE_HEADER..].split_at_checked(key_length)?;
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

    /// Returns the child page of a branch's entry.
    fn child(&self) -> u64 {
        let top = if WORD == 8 {
            u64::from(self.flags) << 32
        } else {
            0
        };
        u64::from(u32_at(self.bytes, 0)) | top
    }
}
