//! JSON schemas of the types of the wire.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use protocol::{
    ChannelId,
    entity::{Channel, Entry, Message, Participant, User},
    error::ErrorAnswer,
    event::{DrainingData, ExpiringData, GapData, PresenceData, Reaction, ReadData, TypingData},
    input::FIELDS_WITH_CLIENT_KEYS,
    operation::{self, Operation},
};
use serde_json::Value;
use utoipa::ToSchema;

/// Schemas by the names under which others refer to them.
pub(crate) type Schemas = BTreeMap<String, Value>;

/// Returns the schema of a type.
pub(crate) fn schema_of<T: ToSchema>() -> Value {
    serde_json::to_value(T::schema()).unwrap()
}

/// Returns the schemas that a type consists of, and its own.
pub(crate) fn schemas_of<T: ToSchema>() -> Schemas {
    let mut all = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut all);
    all.into_iter()
        .map(|(name, schema)| (name, serde_json::to_value(schema).unwrap()))
        .collect()
}

/// Returns the schema with this name, of all that operations, events and errors consist of.
pub(crate) fn named(name: &str) -> &'static Value {
    static ALL: LazyLock<Schemas> = LazyLock::new(|| {
        let mut all = Schemas::new();
        fn add<O: Operation>(all: &mut Schemas) {
            all.append(&mut schemas_of::<O::Path>());
            all.append(&mut schemas_of::<O::Input>());
            all.append(&mut schemas_of::<O::Output>());
        }
        macro_rules! add_all {
            (session: [$($session:ident :: $of_session:ident,)*] domain: [$($resource:ident :: $operation:ident,)*]) => {
                $(add::<operation::$session::$of_session>(&mut all);)*
                $(add::<operation::$resource::$operation>(&mut all);)*
            };
        }
        protocol::operations!(add_all);
        macro_rules! add_data {
            ($($(#[$doc:meta])* $name:ident = $number:literal $word:literal: $data:ident $(in $field:literal)?, $shape:ident;)*) => {
                $(all.append(&mut schemas_of::<$data>());)*
            };
        }
        protocol::events!(add_data);
        all.append(&mut schemas_of::<ErrorAnswer>());
        all
    });
    ALL.get(name)
        .unwrap_or_else(|| panic!("no operation, event or error refers to {name}"))
}

#[test]
fn fields_whose_keys_belong_to_the_client_are_listed() {
    fn collect<O: Operation>(found: &mut BTreeSet<String>) {
        for (name, schema) in schemas_of::<O::Input>() {
            for property in properties(&schema) {
                let is_map = type_of(property.schema) == Some("object")
                    && property.schema.get("properties").is_none();
                if is_map {
                    found.insert(property.name.to_owned());
                }
            }
            assert!(
                !schema["additionalProperties"].is_object(),
                "{name} is a map"
            );
        }
    }
    let mut found = BTreeSet::new();
    macro_rules! collect_all {
        (session: [$($session:ident :: $of_session:ident,)*] domain: [$($resource:ident :: $operation:ident,)*]) => {
            $(collect::<operation::$session::$of_session>(&mut found);)*
            $(collect::<operation::$resource::$operation>(&mut found);)*
        };
    }
    protocol::operations!(collect_all);
    assert!(found.iter().eq(FIELDS_WITH_CLIENT_KEYS), "{found:?}");
}

/// Returns the name of the schema that this one refers to, optional or not.
pub(crate) fn reference(schema: &Value) -> Option<&str> {
    let optional = || {
        schema["oneOf"]
            .as_array()
            .filter(|choices| choices.iter().any(|choice| choice["type"] == "null"))?
            .iter()
            .find_map(|choice| choice["$ref"].as_str())
    };
    schema["$ref"]
        .as_str()
        .or_else(optional)?
        .rsplit('/')
        .next()
}

/// Returns the JSON type of a schema, optional or not.
pub(crate) fn type_of(schema: &Value) -> Option<&str> {
    match &schema["type"] {
        Value::String(name) => Some(name),
        Value::Array(names) => names
            .iter()
            .filter_map(Value::as_str)
            .find(|name| *name != "null"),
        _ => None,
    }
}

/// Returns the prefix of the ids that a schema describes, if it is one of ids.
pub(crate) fn id_prefix(schema: &Value) -> Option<&str> {
    let pattern = schema["pattern"].as_str()?;
    pattern.trim_start_matches(['^', '(']).split('[').next()
}

/// A property of an object.
pub(crate) struct Property<'a> {
    pub(crate) name: &'a str,
    pub(crate) schema: &'a Value,
    pub(crate) is_required: bool,
}

/// Returns the properties of an object's schema.
pub(crate) fn properties(schema: &Value) -> impl Iterator<Item = Property<'_>> {
    let required = schema["required"].as_array();
    let all = schema["properties"].as_object().into_iter().flatten();
    all.map(move |(name, schema)| Property {
        name,
        schema,
        is_required: required.is_some_and(|names| names.iter().any(|required| required == name)),
    })
}
