//! Pages of lists that are ordered by id and show only some of the ids: those that the caller may
//! see and that match a filter.

use store::DocumentKey;

use crate::{
    Services,
    cursor::REPLY_BYTES,
    error::{Error, Result},
};

/// Default number of items of a page.
pub(crate) const PAGE: u64 = 50;

/// Maximum number of ids that one request reads to fill its page. After that the page ends early,
/// with a cursor.
const IDS_PER_REQUEST: usize = 200;

/// Minimum number of ids that are read at once.
const IDS_PER_READ: usize = 20;

/// The next ids of a list, in their order.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    pub(super) ids: Vec<DocumentKey>,
    /// Whether more ids follow.
    pub(super) more: bool,
}

/// A page that is being filled until it is full or has read [`IDS_PER_REQUEST`].
#[derive(Debug)]
pub(super) struct Filling<T> {
    limit: usize,
    /// Returns the size of an item in a reply, in bytes.
    size: fn(&T) -> usize,
    bytes: usize,
    items: Vec<T>,
    after: Option<DocumentKey>,
    left: usize,
    is_done: bool,
    is_last: bool,
}

impl<T> Filling<T> {
    /// Creates an empty page of at most `limit` items and [`REPLY_BYTES`], with ids after this one.
    pub(super) fn new(limit: usize, after: Option<DocumentKey>, size: fn(&T) -> usize) -> Self {
        Self {
            limit,
            size,
            bytes: 0,
            items: Vec::new(),
            after,
            left: IDS_PER_REQUEST.max(limit),
            is_done: false,
            is_last: false,
        }
    }

    /// Returns the id after which to read, and the approximate number of ids; `None` when the page
    /// is done.
    pub(super) fn next(&self) -> Option<(Option<DocumentKey>, usize)> {
        let count = (self.limit - self.items.len())
            .max(IDS_PER_READ)
            .min(self.left);
        (!self.is_done).then(|| (self.after.clone(), count))
    }

    /// Adds the ids that were read, and the item of each; `None` if it is not shown.
    pub(super) fn take(&mut self, candidates: Candidates, found: Vec<Option<T>>) {
        let Candidates { ids, more } = candidates;
        self.left = self.left.saturating_sub(ids.len().max(1));
        for (id, item) in ids.into_iter().zip(found) {
            match item {
                // The next page has at least this one.
                Some(_) if self.items.len() == self.limit => {
                    self.is_done = true;
                    return;
                }
                Some(item) => {
                    self.bytes += (self.size)(&item);
                    if self.bytes > REPLY_BYTES && !self.items.is_empty() {
                        self.is_done = true;
                        return;
                    }
                    self.items.push(item);
                }
                None => {}
            }
            self.after = Some(id);
        }
        self.is_last = !more;
        self.is_done = self.is_last || self.items.len() == self.limit || self.left == 0;
    }

    /// Returns the items, and the id after which the next page begins, if there is one.
    pub(super) fn end(self) -> (Vec<T>, Option<DocumentKey>) {
        let next = if self.is_last { None } else { self.after };
        (self.items, next)
    }
}

/// Returns the number of items of a page: `asked` or [`PAGE`], at most the configured limit.
///
/// # Errors
/// `bad_request` if `asked` is 0.
pub(crate) fn page_length(services: &Services, asked: Option<u64>) -> Result<usize> {
    let most = if services.limits.page == 0 {
        1000
    } else {
        services.limits.page
    };
    match asked {
        Some(0) => Err(Error::bad_request("`limit` is at least 1")),
        asked => Ok(asked.unwrap_or(PAGE).min(most) as usize),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    /// Walks a list of ids of which every `nth` is shown, and returns the pages with the number of
    /// ids read for each.
    fn walk(ids: usize, nth: usize, limit: usize) -> Vec<(Vec<usize>, usize)> {
        let all: Vec<DocumentKey> = (0..ids)
            .map(|n| DocumentKey::from(format!("{n:06}")))
            .collect();
        let (mut pages, mut after) = (Vec::new(), None);
        loop {
            let (mut page, mut reads) = (Filling::new(limit, after, |_| 0), 0);
            while let Some((after, count)) = page.next() {
                let begin = after.map_or(0, |after| all.partition_point(|id| *id <= after));
                let end = (begin + count).min(all.len());
                let ids = all[begin..end].to_vec();
                let numbers = ids.iter().map(|id| id.parse::<usize>().unwrap());
                let found = numbers
                    .map(|n| n.is_multiple_of(nth).then_some(n))
                    .collect();
                reads += ids.len();
                page.take(
                    Candidates {
                        ids,
                        more: end < all.len(),
                    },
                    found,
                );
            }
            let (items, next) = page.end();
            pages.push((items, reads));
            after = next;
            if after.is_none() {
                return pages;
            }
        }
    }

    #[test]
    fn a_walk_shows_every_item_once_and_each_page_reads_a_bounded_number_of_ids() {
        for (ids, nth, limit) in [
            (0, 1, 5),
            (7, 1, 3),
            (6, 1, 3),
            (1000, 1, 50),
            (1000, 300, 1),
            (1000, 2000, 50),
            (999, 7, 200),
        ] {
            let pages = walk(ids, nth, limit);
            let shown: Vec<usize> = pages.iter().flat_map(|(items, _)| items.clone()).collect();
            assert_eq!(shown, (0..ids).step_by(nth).collect::<Vec<_>>());
            assert!(
                pages
                    .iter()
                    .all(|(items, reads)| items.len() <= limit
                        && *reads <= IDS_PER_REQUEST.max(limit)),
                "{pages:?}"
            );
        }
        assert_eq!(walk(6, 1, 3).len(), 2, "the last full page has no cursor");
    }

    #[test]
    fn page_of_large_items_ends_early_and_the_next_goes_on() {
        let ids: Vec<DocumentKey> = (0..5).map(|n| DocumentKey::from(format!("{n}"))).collect();
        let read = |after: Option<DocumentKey>| {
            let mut page = Filling::new(5, after.clone(), |_: &usize| REPLY_BYTES / 2);
            let rest = ids
                .iter()
                .filter(|id| after.as_ref().is_none_or(|after| *id > after));
            let candidates = Candidates {
                ids: rest.cloned().collect(),
                more: false,
            };
            let found = candidates.ids.iter().map(|id| id.parse().ok()).collect();
            page.take(candidates, found);
            assert_eq!(page.next(), None);
            page.end()
        };
        let (first, next) = read(None);
        assert_eq!((first, next.as_deref()), (vec![0, 1], Some("1")));
        let (second, next) = read(next);
        assert_eq!((second, next.as_deref()), (vec![2, 3], Some("3")));
        assert_eq!(read(next), (vec![4], None));
    }
}
