//! The catalogue of stored things: every partition, table, counter and logged event, one row each.
//!
//! Deletion jobs, export and import, and replay loop over these rows, so everything with a row is
//! cleared, exported and replayed. A document can only be written to a table with a row.

mod event;
mod partition;
mod table;

pub use event::{LoggedEvent, logged_event};
pub use partition::{
    PartitionKind, Scope, Subject, app, credential, deployment, idempotency, import,
    of_environments, organization, parse_member, scope_of_topic, subject, token_key,
};

pub use table::*;
