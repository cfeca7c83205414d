//! Arbitrary values of the types of the wire, made from their schemas.

use std::{fmt::Debug, ops::RangeInclusive};

use proptest::{
    array::uniform16,
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::select,
    strategy::Union,
};
use protocol::{
    entity::{Channel, Message, Participant, User},
    event::Reaction,
    operation::Operation,
    *,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::schema::{id_prefix, named, properties, reference, schema_of, type_of};

const INTEGERS: RangeInclusive<u64> = 0..=MAX_INTEGER;

/// Types without fields. Other objects without properties are free data.
const EMPTY_TYPES: [&str; 3] = ["Empty", "NoInput", "NoPath"];

/// Returns values of a type, made from its schema.
pub(crate) fn of<T: ToSchema + DeserializeOwned + Debug>() -> BoxedStrategy<T> {
    let name = T::name();
    let read = move |json: Value| {
        serde_json::from_value(json.clone())
            .unwrap_or_else(|error| panic!("the schema of {name} allows {json}: {error}"))
    };
    values(&T::name(), &schema_of::<T>()).prop_map(read).boxed()
}

/// Returns JSON that fits a schema. `owner` is the name of the type that the schema belongs to.
fn values(owner: &str, schema: &Value) -> BoxedStrategy<Value> {
    if let Some(name) = reference(schema) {
        return match name {
            "Cursor" => cursor().prop_map(as_json).boxed(),
            _ => values(name, named(name)),
        };
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        return Union::new(choices.iter().map(|choice| values(owner, choice))).boxed();
    }
    if let Some(words) = schema["enum"].as_array() {
        return select(words.clone()).boxed();
    }
    match type_of(schema) {
        Some("boolean") => any::<bool>().prop_map(Value::from).boxed(),
        Some("integer") if schema["format"] == "int32" => {
            any::<u16>().prop_map(Value::from).boxed()
        }
        Some("integer") => uint().prop_map(Value::from).boxed(),
        Some("string") => strings(schema).prop_map(Value::from).boxed(),
        Some("array") => array(owner, schema),
        Some("object") => object(owner, schema),
        other => panic!("{owner} has a schema of type {other:?}: {schema}"),
    }
}

fn array(owner: &str, schema: &Value) -> BoxedStrategy<Value> {
    if let Some(items) = schema["prefixItems"].as_array() {
        let items: Vec<_> = items.iter().map(|item| values(owner, item)).collect();
        return items.prop_map(Value::Array).boxed();
    }
    vec(values(owner, &schema["items"]), 0..4)
        .prop_map(Value::Array)
        .boxed()
}

fn object(owner: &str, schema: &Value) -> BoxedStrategy<Value> {
    if schema["additionalProperties"].is_object() {
        let values = values(owner, &schema["additionalProperties"]);
        return btree_map(strings(&schema["propertyNames"]), values, 0..4)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
            .boxed();
    }
    if schema.get("properties").is_none() && schema.get("required").is_none() {
        return if EMPTY_TYPES.contains(&owner) {
            Just(Value::Object(Map::new())).boxed()
        } else {
            map().prop_map(Value::Object).boxed()
        };
    }
    let fields: Vec<BoxedStrategy<Option<(String, Value)>>> = properties(schema)
        .map(|property| {
            let name = property.name.to_owned();
            let value = property_values(owner, property.name, property.schema);
            let field = value.prop_map(move |value| (name.clone(), value));
            // A token is left out only by the answer to a repeated `Idempotency-Key`, which is JSON
            // that no type of this crate decodes.
            if property.is_required || (owner, property.name) == ("Token", "token") {
                field.prop_map(Some).boxed()
            } else {
                option::of(field).boxed()
            }
        })
        .collect();
    fields
        .prop_map(|fields| Value::Object(fields.into_iter().flatten().collect()))
        .boxed()
}

fn property_values(owner: &str, name: &str, schema: &Value) -> BoxedStrategy<Value> {
    let values = match (owner, name) {
        // The schema leaves room for codes of later versions.
        ("ErrorBody", "code") => select(ErrorCode::ALL).prop_map(as_json).boxed(),
        // A query parameter: a list in the documentation, a text with commas in the type.
        ("ListChannels", "ids") => text().prop_map(Value::from).boxed(),
        _ => values(owner, schema),
    };
    if is_merge_patch(owner) && accepts_null(schema) {
        return prop_oneof![1 => Just(Value::Null), 2 => values].boxed();
    }
    values
}

/// Returns whether null means something in a type: that a field is removed.
pub(crate) fn is_merge_patch(type_name: &str) -> bool {
    ["Update", "Edit"]
        .iter()
        .any(|word| type_name.starts_with(word))
}

fn accepts_null(schema: &Value) -> bool {
    let names = schema["type"].as_array().into_iter().flatten();
    names.into_iter().any(|name| name == "null")
}

/// Texts, or ids if the schema describes those.
fn strings(schema: &Value) -> BoxedStrategy<String> {
    let Some(prefix) = id_prefix(schema).map(str::to_owned) else {
        return text().boxed();
    };
    let may_be_chosen = [UserId::PREFIX, ChannelId::PREFIX].contains(&prefix.as_str());
    let made = any::<u64>().prop_map(move |bits| format!("{prefix}{bits:016x}"));
    if may_be_chosen {
        prop_oneof![made, chosen_id()].boxed()
    } else {
        made.boxed()
    }
}

/// Integers of every encoded width.
pub(crate) fn uint() -> impl Strategy<Value = u64> {
    prop_oneof![0..=0xffu64, 0..=0xffff_ffffu64, INTEGERS]
}

/// A number that the store assigns; 0 stands for none.
fn stamp() -> impl Strategy<Value = u64> {
    prop_oneof![1..=0xffffu64, 1..=MAX_INTEGER]
}

/// The position of an event in a log.
pub(crate) fn stamps() -> impl Strategy<Value = (u64, u64)> {
    (stamp(), stamp())
}

pub(crate) fn text() -> impl Strategy<Value = String> {
    prop_oneof![4 => "\\PC{0,12}", 1 => any::<String>(), 1 => "x{32,300}"]
}

fn cursor() -> impl Strategy<Value = Cursor> {
    prop_oneof![
        Just(Cursor::Now),
        (uint(), uint()).prop_map(|(seq, at)| Cursor::After(seq, at))
    ]
}

/// JSON values within the bounds of free data.
pub(crate) fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        uint().prop_map(Value::from),
        (-(MAX_INTEGER as i64)..=-1).prop_map(Value::from),
        (proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO)
            .prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(text(), inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

pub(crate) fn map() -> impl Strategy<Value = Map<String, Value>> {
    btree_map(text(), json(), 0..4).prop_map(|map| map.into_iter().collect())
}

pub(crate) fn metadata() -> impl Strategy<Value = Metadata> {
    map().prop_map(Metadata)
}

fn chosen_id() -> impl Strategy<Value = String> {
    "[A-Za-z0-9][A-Za-z0-9._@+|:-]{0,63}".prop_filter("reserved for another kind", |text| {
        text.parse::<UserId>().is_ok() && text.parse::<ChannelId>().is_ok()
    })
}

pub(crate) fn channel_id() -> impl Strategy<Value = ChannelId> {
    of::<ChannelId>()
}

/// A message as the store has it.
pub(crate) fn stored_message() -> impl Strategy<Value = Message> {
    (of::<Message>(), stamps(), stamp()).prop_map(|(message, (number, seq), created_at)| Message {
        number,
        seq,
        created_at,
        edited_at: message.edited_at.map(|at| at.max(1)),
        deleted_at: message.deleted_at.map(|at| at.max(1)),
        ..message
    })
}

/// A participant as the store has it.
pub(crate) fn stored_participant() -> impl Strategy<Value = Participant> {
    (of::<Participant>(), stamp()).prop_map(|(participant, created_at)| Participant {
        created_at,
        ..participant
    })
}

/// A channel as the store has it.
pub(crate) fn stored_channel() -> impl Strategy<Value = Channel> {
    (of::<Channel>(), stamp()).prop_map(|(channel, created_at)| Channel {
        created_at,
        ..channel
    })
}

/// A user as the store has it.
pub(crate) fn stored_user() -> impl Strategy<Value = User> {
    (of::<User>(), stamp()).prop_map(|(user, created_at)| User { created_at, ..user })
}

pub(crate) fn reaction() -> impl Strategy<Value = Reaction> {
    of::<Reaction>()
}

pub(crate) fn event_message() -> impl Strategy<Value = EventMessage> {
    let kind = select(EventKind::ALL).prop_map(|kind| kind.as_str().to_owned());
    (
        prop_oneof![kind, text()],
        option::of(channel_id()),
        option::of(uint()),
        option::of(uint()),
        json(),
    )
        .prop_map(|(event, channel_id, seq, at, data)| EventMessage {
            event,
            channel_id,
            seq,
            at,
            data,
        })
}

/// The parameters that a WebSocket client may send for an operation, as a map.
fn params_of<O: Operation>() -> BoxedStrategy<Value> {
    let fields = of::<O::Input>().prop_map(as_json);
    if O::own_path(&UserId::from_bits(1)).is_some() {
        return fields.boxed();
    }
    (of::<O::Path>().prop_map(as_json), fields)
        .prop_map(|(mut ids, fields)| {
            ids.as_object_mut()
                .unwrap()
                .extend(fields.as_object().unwrap().clone());
            ids
        })
        .boxed()
}

fn as_json<T: serde::Serialize>(value: T) -> Value {
    serde_json::to_value(value).unwrap()
}

/// Any method with its parameters.
pub(crate) fn request() -> impl Strategy<Value = (&'static str, Value)> {
    fn add<O: Operation>(all: &mut Vec<BoxedStrategy<(&'static str, Value)>>) {
        if O::WEBSOCKET.is_some() {
            let params = params_of::<O>();
            all.push(params.prop_map(|params| (O::NAME, params)).boxed());
        }
    }
    let mut all = Vec::new();
    macro_rules! add_all {
        (session: [$($session:ident :: $of_session:ident,)*] domain: [$($resource:ident :: $operation:ident,)*]) => {
            $(add::<operation::$session::$of_session>(&mut all);)*
            $(add::<operation::$resource::$operation>(&mut all);)*
        };
    }
    protocol::operations!(add_all);
    Union::new(all)
}

/// Sixteen bytes to lay over a frame.
pub(crate) fn patch_bytes() -> impl Strategy<Value = [u8; 16]> {
    uniform16(any::<u8>())
}

/// Free data from a literal.
pub(crate) fn free(value: Value) -> Metadata {
    Metadata(value.as_object().unwrap().clone())
}
