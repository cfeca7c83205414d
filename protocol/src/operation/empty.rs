//! Operations without parameters or without a result.

use std::borrow::Borrow;

use crate::wire::wire;

wire! {
    /// No parameters.
    #[derive(Copy, Default, Eq)]
    pub struct NoInput {}

    /// An empty result.
    #[derive(Default)]
    pub struct Empty {}
}

impl Borrow<NoInput> for () {
    fn borrow(&self) -> &NoInput {
        &NoInput {}
    }
}
