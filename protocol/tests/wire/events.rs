//! The declarations of events, held against the specification.

use std::collections::BTreeSet;

use protocol::{
    ChannelId,
    entity::{Channel, Entry, Message, Participant, User},
    event::{DrainingData, ExpiringData, GapData, PresenceData, Reaction, ReadData, TypingData},
};
use utoipa::ToSchema;

use crate::schema::{properties, schema_of};

const README: &str = include_str!("../../README.md");

/// Returns the names of the fields of a type, with `?` after those that may be absent.
fn fields_of<T: ToSchema>() -> BTreeSet<String> {
    properties(&schema_of::<T>())
        .map(|property| {
            let mark = if property.is_required { "" } else { "?" };
            format!("{}{mark}", property.name)
        })
        .collect()
}

/// Returns the fields that the specification lists for an event.
fn listed_fields(event: &str) -> Option<BTreeSet<String>> {
    let event = format!("`{event}`");
    README.lines().find_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let data = cells
            .next()
            .filter(|names| names.contains(&event))
            .and(cells.next())?;
        let data = data
            .trim_end_matches(" |")
            .strip_prefix("`{")?
            .strip_suffix("}`")?;
        Some(data.split(", ").map(str::to_owned).collect())
    })
}

macro_rules! check_all {
    ($($(#[$doc:meta])* $name:ident = $number:literal $word:literal: $data:ident $(in $field:literal)?, $shape:ident;)*) => {
        #[test]
        fn the_specification_lists_the_data_of_every_event() {
            $({
                let field: &[&str] = &[$($field)?];
                let fields = match field.first() {
                    Some(name) => BTreeSet::from([name.to_string()]),
                    None => fields_of::<$data>(),
                };
                assert_eq!(listed_fields($word), Some(fields), "{}", $word);
            })*
        }
    };
}
protocol::events!(check_all);
