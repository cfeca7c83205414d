//! Hints for misspelt names.

use std::cmp::Reverse;

/// Returns the known name that is most similar to a name, if one is similar.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    known
        .filter(|known| is_like(&name, known))
        .min_by_key(|known| (distance(&name, known), Reverse(shared(&name, known))))
}

/// Returns the length of the common prefix of two words, in letters.
fn shared(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count()
}

/// Returns whether few letters differ, one word contains the other, or they have a common prefix.
fn is_like(name: &str, known: &str) -> bool {
    let contains = name.len() > 3 && (known.contains(name) || name.contains(known));
    let shared = shared(name, known);
    distance(name, known) <= 2 || contains || (shared > 3 && 2 * shared >= name.len())
}

/// Returns the Levenshtein distance of two words.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.chars().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.pop().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_changed_letters() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("page", "page"), 0);
    }

    #[test]
    fn misspelt_and_partial_names_find_the_one_that_is_meant() {
        let near = |name| {
            nearest(
                name,
                ["text", "attachments", "mention_ids", "message_id"].into_iter(),
            )
        };
        assert_eq!(near("txet"), Some("text"));
        assert_eq!(near("attachment"), Some("attachments"));
        assert_eq!(near("mentions"), Some("mention_ids"));
        assert_eq!(near("messageId"), Some("message_id"));
        assert_eq!(
            nearest("mimetype", ["type", "mime"].into_iter()),
            Some("mime")
        );
        assert_eq!(near("colour"), None);
    }
}
