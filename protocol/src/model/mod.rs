//! The entities, as they stand on the wire.

/// Declares types of the wire with the derives that all of them share.
/// What is printed in place of a secret.
#[derive(Clone, Copy)]
pub(crate) struct Hidden;

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Prints a type of the wire as a derived `Debug` would, but for the fields that are secret: those print as `***`.
macro_rules! debug_without_secrets {
    ($type:ident { $($field:ident),* ; $($secret:ident),* }) => {
        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let Self { $($field,)* $($secret: _),* } = self;
                f.debug_struct(stringify!($type))$(.field(stringify!($field), $field))*$(.field(stringify!($secret), &$crate::model::Hidden))*.finish()
            }
        }
    };
}
pub(crate) use debug_without_secrets;

macro_rules! wire {
    (secret: $($item:item)*) => {
        $(
            #[derive(Clone, PartialEq, serde::Serialize, serde::Deserialize)]
            #[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
            $item
        )*
    };
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
