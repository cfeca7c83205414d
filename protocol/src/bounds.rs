//! Fixed bounds of parameters. Unlike [`Limits`](crate::Limits), an operator cannot change
//! them.

/// Maximum number of characters of a name, and of another single line.
pub const LINE_CHARS: usize = 200;
/// Maximum number of characters of a description or a biography.
pub const TEXT_CHARS: usize = 2048;
/// Maximum number of characters of a URL.
pub const URL_CHARS: usize = 2048;
/// Maximum number of characters of an e-mail address (RFC 5321: 64, `@`, 255).
pub const EMAIL_CHARS: usize = 320;
/// Maximum number of characters of an attachment's type.
pub const ATTACHMENT_TYPE_CHARS: usize = 64;
/// Maximum number of attachments of a message.
pub const ATTACHMENTS: usize = 32;
/// Maximum number of mentions of a message.
pub const MENTIONS: usize = 100;
/// Maximum number of bytes of a reaction.
pub const EMOJI_BYTES: usize = 64;
/// Maximum number of items of a batch.
pub const BATCH_ITEMS: usize = 100;
/// Maximum number of participants that a channel is created with, besides its creator.
pub const INITIAL_PARTICIPANTS: usize = 100;
/// Maximum number of users of one `user.get` or `presence.watch`.
pub const USER_IDS: usize = 100;
/// Maximum number of channels of one `channel.search` by ids.
pub const SEARCHED_IDS: usize = 200;
/// Maximum number of channels of one `connect` or `channel.subscribe`.
pub const SUBSCRIBED_CHANNELS: usize = 200;
/// Maximum validity of an access key, in seconds.
pub const ACCESS_KEY_SECONDS: u64 = 3600;

/// Matches what may be a URL of an attachment or a picture.
pub const URL_PATTERN: &str = r"^[Hh][Tt][Tt][Pp][Ss]?://[^\s/?#@\\]+([/?#]\S*)?$";

/// The bound of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// A text of this many characters, from and to.
    Chars(usize, usize),
    /// An absolute http or https URL with a host and without a user name.
    Url,
    /// A list of at most this many items.
    Items(usize),
    /// An integer of at least this.
    AtLeast(u64),
    /// An integer in this range, both ends included.
    Between(u64, u64),
}

/// Returns the bound of a parameter: `name` in the input `of`.
pub fn bound(of: &str, name: &str) -> Option<Bound> {
    Some(match (of, name) {
        ("CreateOrganization" | "UpdateOrganization" | "CreateApp" | "UpdateApp", "name") => {
            Bound::Chars(1, LINE_CHARS)
        }
        ("Attachment", "type") => Bound::Chars(1, ATTACHMENT_TYPE_CHARS),
        ("CreateAccess", "expires_in") => Bound::Between(1, ACCESS_KEY_SECONDS),
        (_, "name" | "username" | "first_name" | "last_name" | "mime") => {
            Bound::Chars(0, LINE_CHARS)
        }
        (_, "description" | "bio") => Bound::Chars(0, TEXT_CHARS),
        (_, "icon" | "banner" | "avatar" | "url") => Bound::Url,
        (_, "email") => Bound::Chars(1, EMAIL_CHARS),
        // Each character has at least one byte.
        (_, "emoji") => Bound::Chars(1, EMOJI_BYTES),
        (_, "attachments") => Bound::Items(ATTACHMENTS),
        (_, "mention_ids") => Bound::Items(MENTIONS),
        (_, "participant_ids") => Bound::Items(INITIAL_PARTICIPANTS),
        (_, "user_ids") => Bound::Items(USER_IDS),
        (_, "ids") => Bound::Items(SEARCHED_IDS),
        (_, "items") => Bound::Items(BATCH_ITEMS),
        (_, "limit" | "expires_in") => Bound::AtLeast(1),
        _ => return None,
    })
}
