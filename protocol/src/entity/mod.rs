//! Entities: what operations and events carry.

mod app;
mod attachment;
mod channel;
mod entry;
mod key;
mod message;
mod organization;
mod participant;
mod presence;
mod token_key;
mod user;

pub use app::{App, AppSettings, Environment};
pub use attachment::Attachment;
pub use channel::{Channel, ChannelType};
pub use entry::{Entry, EntryResult, FailedEntry, Gap};
pub use key::Key;
pub use message::{Message, MessageKind};
pub use organization::Organization;
pub use participant::{Participant, Role};
pub use presence::Presence;
pub use token_key::{Algorithm, TokenKey};
pub use user::User;

/// Returns whether a number that the store assigns is absent: stored values omit it, and events add
/// it.
fn is_zero(value: &u64) -> bool {
    *value == 0
}
