//! The entities, as they stand on the wire.

/// Declares types of the wire with the derives that all of them share.
macro_rules! wire {
    ($($item:item)*) => {
        $(
            #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
            #[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
            $item
        )*
    };
}
pub(crate) use wire;

mod channel;
mod message;
mod organization;
mod participant;
mod user;

pub use channel::*;
pub use message::*;
pub use organization::*;
pub use participant::*;
pub use user::*;
