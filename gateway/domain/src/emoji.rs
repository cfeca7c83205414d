//! The identity of a reaction: one form for all spellings that look the same.
//!
//! A reaction is stored, counted and sent in this form. Variation selectors are not part of it (a
//! client that draws `❤` adds its own), so two clients that spell an emoji differently count
//! together.

use protocol::bounds::EMOJI_BYTES;
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

use crate::error::{Error, Result};

/// Joins the parts of one emoji, as in families.
const ZERO_WIDTH_JOINER: char = '\u{200d}';

/// The flag that tags turn into a region's.
const BLACK_FLAG: char = '\u{1f3f4}';
/// The tag behind the last one.
const END_OF_TAGS: char = '\u{e007f}';

/// Returns the identity of a reaction as a client sends it: NFC, without variation selectors.
///
/// # Errors
/// `bad_request` if it is empty or too long, has no visible character, or has a character that is
/// not part of an emoji.
pub(super) fn identity(emoji: &str) -> Result<String> {
    // Longer than every spelling of a valid reaction, so it is refused without normalization.
    if emoji.len() > 4 * EMOJI_BYTES {
        return Err(too_long());
    }
    let identity: String = emoji
        .chars()
        .filter(|c| !is_variation_selector(*c))
        .nfc()
        .collect();
    if identity.len() > EMOJI_BYTES {
        return Err(too_long());
    }
    let has_odd_space = identity.trim() != identity || identity.contains("  ");
    if has_odd_space || !is_drawn_whole(&identity) {
        return Err(Error::bad_request(
            "`emoji` has no control, formatting, invisible or unassigned characters, nor spaces at its ends",
        ));
    }
    if !identity.chars().any(is_visible) {
        return Err(Error::bad_request(
            "`emoji` has at least one visible character",
        ));
    }
    Ok(identity)
}

fn too_long() -> Error {
    Error::bad_request(format!("`emoji` has 1 to {EMOJI_BYTES} bytes"))
}

fn is_variation_selector(c: char) -> bool {
    matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}' | '\u{180b}'..='\u{180d}' | '\u{180f}')
}

/// Returns whether every character is visible, so that reactions that look the same are the same.
/// Joiners are allowed between emoji, and tags after a black flag, where they make the flag of a
/// region.
fn is_drawn_whole(identity: &str) -> bool {
    let mut rest = identity.chars();
    let mut last = None;
    while let Some(c) = rest.next() {
        if c == ZERO_WIDTH_JOINER {
            let next = rest.clone().next();
            if !last.is_some_and(is_emoji) || !next.is_some_and(is_emoji) {
                return false;
            }
        } else if c == BLACK_FLAG && rest.clone().next().is_some_and(is_tag) {
            let region = rest
                .by_ref()
                .take_while(|tag| *tag != END_OF_TAGS && is_tag(*tag))
                .count();
            // Tags must end with the end tag.
            let is_ended = identity[..identity.len() - rest.as_str().len()].ends_with(END_OF_TAGS);
            if region == 0 || !is_ended {
                return false;
            }
        } else if !may_be_part(c) {
            return false;
        }
        last = Some(c);
    }
    true
}

fn is_tag(c: char) -> bool {
    matches!(c, '\u{e0020}'..=END_OF_TAGS)
}

/// Returns whether a joiner may join the character: pictures and skin tones.
fn is_emoji(c: char) -> bool {
    let is_skin_tone = matches!(c, '\u{1f3fb}'..='\u{1f3ff}');
    let is_arrow = matches!(c, '\u{2194}');
    is_skin_tone || is_arrow || c.general_category() == GeneralCategory::OtherSymbol
}

/// Returns whether the character is always drawn. The space is the only blank one.
fn may_be_part(c: char) -> bool {
    let is_other_space = c.is_whitespace() && c != ' ';
    let is_unassigned_or_control = c.general_category_group() == GeneralCategoryGroup::Other;
    !is_other_space && !is_unassigned_or_control && !is_blank(c) && !is_ignorable(c)
}

/// Returns whether a letter or symbol of Unicode is drawn as nothing.
fn is_blank(c: char) -> bool {
    matches!(c, '\u{2800}' | '\u{1d159}')
}

/// Returns whether a character is in Unicode's `Default_Ignorable_Code_Point`, without controls and
/// unassigned ones: it is drawn as nothing.
fn is_ignorable(c: char) -> bool {
    matches!(
        c,
        '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{3164}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}'
    )
}

fn is_visible(c: char) -> bool {
    matches!(
        c.general_category_group(),
        GeneralCategoryGroup::Letter
            | GeneralCategoryGroup::Number
            | GeneralCategoryGroup::Punctuation
            | GeneralCategoryGroup::Symbol
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn spellings_that_look_the_same_are_one() {
        for (spellings, identity_of_all) in [
            (
                vec!["\u{2764}", "\u{2764}\u{fe0f}", "\u{2764}\u{fe0e}"],
                "\u{2764}",
            ),
            (vec!["1\u{fe0f}\u{20e3}", "1\u{20e3}"], "1\u{20e3}"),
            (
                vec![
                    "\u{1f441}\u{fe0f}\u{200d}\u{1f5e8}\u{fe0f}",
                    "\u{1f441}\u{200d}\u{1f5e8}",
                ],
                "\u{1f441}\u{200d}\u{1f5e8}",
            ),
            (vec!["e\u{301}", "\u{e9}"], "\u{e9}"),
        ] {
            for spelling in spellings {
                assert_eq!(
                    identity(spelling).unwrap(),
                    identity_of_all,
                    "{}",
                    spelling.escape_unicode()
                );
            }
        }
    }

    #[test]
    fn flags_families_words_and_custom_names_pass_as_they_are() {
        let scotland = "\u{1f3f4}\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f}";
        let family = "\u{1f468}\u{1f3fd}\u{200d}\u{1f469}\u{200d}\u{1f467}";
        for emoji in [
            "👍",
            "👍🏽",
            "🇩🇪",
            scotland,
            family,
            ":party:",
            "a/b",
            "thank you",
            "+1",
            "ありがとう",
            &"x".repeat(64),
        ] {
            assert_eq!(identity(emoji).unwrap(), emoji);
        }
    }

    #[test]
    fn what_nobody_can_see_is_refused() {
        let long = "x".repeat(65);
        for wrong in [
            "",
            " ",
            "\u{a0}\u{2003}",
            "\u{fe0f}",
            "\u{200d}",
            "\u{301}",
            "\u{3164}",
            "\u{2800}",
            "a\nb",
            "\u{2028}x",
            "\u{202e}x",
            "x\u{200b}",
            "x\u{200d}",
            "\u{feff}x",
            "\u{0}",
            "\u{e000}",
            "\u{e0067}",
            "a ",
            " a",
            "a  b",
            "a\u{a0}",
            "a\u{3000}b",
            "a\u{3164}",
            "a\u{2800}",
            "a\u{115f}",
            "a\u{34f}",
            "a\u{17b4}",
            "a\u{e0061}",
            "a\u{200d}b",
            "\u{1f468}\u{200d}a",
            "\u{1f468}\u{200d}\u{200d}\u{1f469}",
            "\u{1f3f4}\u{e007f}",
            "\u{1f3f4}\u{e0067}",
            "\u{1f3f4}\u{e0067}\u{e0062}a",
            "\u{1f3f4}a\u{e0067}\u{e007f}",
            long.as_str(),
        ] {
            assert_eq!(
                identity(wrong).unwrap_err().code(),
                protocol::ErrorCode::BadRequest,
                "{}",
                wrong.escape_unicode()
            );
        }
    }

    #[test]
    fn an_identity_is_its_own_identity() {
        use proptest::prelude::*;
        proptest!(|(emoji in ".{0,20}")| {
            if let Ok(first) = identity(&emoji) {
                prop_assert_eq!(identity(&first).unwrap(), first);
            }
        });
    }
}
