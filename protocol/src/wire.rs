//! Macros that declare the types of the wire.

/// Prints as `***` in place of a secret.
#[derive(Clone, Copy)]
pub(crate) struct Hidden;

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Implements `Debug` like the derive, except that secret fields print as `***`.
macro_rules! debug_without_secrets {
    ($type:ident { $($field:ident),* ; $($secret:ident),* }) => {
        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let Self { $($field,)* $($secret: _),* } = self;
                f.debug_struct(stringify!($type))$(.field(stringify!($field), $field))*$(.field(stringify!($secret), &$crate::wire::Hidden))*.finish()
            }
        }
    };
}
pub(crate) use debug_without_secrets;

/// Declares types of the wire with the derives that all of them share. After `secret:` without
/// `Debug`.
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
