//! Refuses fields that a type does not have.
//!
//! Types of the protocol ignore unknown fields, because WebSocket requests may have them. HTTP
//! bodies may not: a patch with a misspelt field would succeed and change nothing. Both use the
//! same types; for HTTP this module wraps the deserializer. It also builds the errors of parameters
//! that do not fit.

use std::{cell::RefCell, fmt};

use protocol::{
    input::{self, ClientInput, Findings, Misfit},
    operation::batch::Item,
};
use serde::{
    Deserialize, Deserializer,
    de::{
        self, DeserializeOwned, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess,
        SeqAccess, Visitor,
    },
};
use serde_json::json;

use crate::{
    error::{Error, NAME_LENGTH, Result, plain_path, without_value},
    nearest::nearest,
};

/// A field that the type does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unknown {
    /// The name without control characters, or `…` if it is long.
    name: String,
    /// The field that was most likely meant.
    nearest: Option<&'static str>,
}

impl Unknown {
    fn new(name: &str, known: &[&'static str]) -> Self {
        let is_long = name.chars().nth(NAME_LENGTH).is_some();
        let shown = if is_long {
            "…".to_owned()
        } else {
            name.escape_debug().to_string()
        };
        Self {
            name: shown,
            nearest: nearest(name, known.iter().copied()),
        }
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no field `{}`", self.name)?;
        self.nearest
            .map_or(Ok(()), |nearest| write!(f, ", did you mean `{nearest}`?"))
    }
}

/// Decodes the parameters of an HTTP request. `part` names the part of the request, such as its
/// body, in errors.
///
/// # Errors
/// `bad_request` with the field that does not fit, and why.
pub fn read<'de, T, D>(part: &str, reader: D) -> Result<T>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
    D::Error: fmt::Display,
{
    let unknown = RefCell::default();
    input::read(Strict::new(reader, &unknown)).map_err(|Misfit { field, parent, why }| {
        let (field, parent) = (
            field.and_then(|field| plain_path(&field)),
            plain_path(&parent).unwrap_or_default(),
        );
        if let Some(unknown) = unknown.take() {
            let field = match parent.as_str() {
                "" => unknown.name.clone(),
                parent => format!("{parent}.{}", unknown.name),
            };
            return misfit(part, Some(&field), &unknown);
        }
        match &field {
            Some(name) if is_number_error(&why) => misfit(
                part,
                Some(name),
                &format_args!("`{name}` is a whole number"),
            ),
            _ => misfit(part, field.as_deref(), &without_value(&why)),
        }
    })
}

/// Returns whether this is the standard library's error for a text that is not a number, as values
/// of queries may be.
fn is_number_error(why: &str) -> bool {
    why.starts_with("invalid digit found")
        || why.starts_with("cannot parse integer")
        || why.starts_with("number too ")
}

/// Decodes one item of a batch like a body.
pub fn read_item<T: DeserializeOwned>(item: &Item<T>) -> Result<T> {
    read_body(item.as_json().as_bytes())
}

/// Decodes a JSON body.
pub fn read_body<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    match json.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => return Err(Error::bad_request("the body is empty: send a JSON object")),
        Some(b'{') => {}
        Some(_) => return Err(misfit("body", None, &NO_OBJECT)),
    }
    let mut reader = serde_json::Deserializer::from_slice(json);
    let findings = Findings::default();
    let value = read("body", ClientInput::new(&mut reader, &findings))?;
    reader
        .end()
        .map_err(|_| misfit("body", None, &"something follows the JSON object"))?;
    findings
        .check_integers(json)
        .map_err(|error| misfit("body", Some("metadata"), &error))?;
    Ok(value)
}

/// Error message for a body that is not an object.
const NO_OBJECT: &str = "it is no JSON object";

/// A field that does not fit, and why.
pub fn misfit(part: &str, field: Option<&str>, why: &dyn fmt::Display) -> Error {
    let mut error = Error::bad_request(format!("the {part} does not fit: {why}"));
    error.body.details = field.map(|field| json!({ "field": field, "in": part }));
    error
}

/// A deserializer that refuses unknown fields of structs at any depth.
struct Strict<'a, D> {
    inner: D,
    found: &'a RefCell<Option<Unknown>>,
}

impl<'a, D> Strict<'a, D> {
    /// Wraps a deserializer. The first unknown field is an error, and is stored in `found`.
    fn new(inner: D, found: &'a RefCell<Option<Unknown>>) -> Self {
        Self { inner, found }
    }
}

macro_rules! forward {
    ($($method:ident($($argument:ident: $type:ty),*))*) => {$(
        fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method($($argument,)* Watching { inner: visitor, fields: None, found: self.found })
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<'_, D> {
    type Error = D::Error;

    forward! {
        deserialize_any() deserialize_bool() deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64() deserialize_i128()
        deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64() deserialize_u128() deserialize_f32() deserialize_f64()
        deserialize_char() deserialize_str() deserialize_string() deserialize_bytes() deserialize_byte_buf() deserialize_option()
        deserialize_unit() deserialize_unit_struct(name: &'static str) deserialize_newtype_struct(name: &'static str)
        deserialize_seq() deserialize_tuple(length: usize) deserialize_tuple_struct(name: &'static str, length: usize)
        deserialize_map() deserialize_identifier() deserialize_ignored_any()
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_struct(
            name,
            fields,
            Watching {
                inner: visitor,
                fields: Some(fields),
                found: self.found,
            },
        )
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// A visitor, seed or access whose inner values are read strictly. `fields` are the fields of its
/// struct.
struct Watching<'a, T> {
    inner: T,
    fields: Option<&'static [&'static str]>,
    found: &'a RefCell<Option<Unknown>>,
}

macro_rules! visit {
    ($($method:ident: $type:ty),*) => {$(
        fn $method<E: de::Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Watching<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit! {
        visit_bool: bool, visit_i8: i8, visit_i16: i16, visit_i32: i32, visit_i64: i64, visit_i128: i128,
        visit_u8: u8, visit_u16: u16, visit_u32: u32, visit_u64: u64, visit_u128: u128, visit_f32: f32, visit_f64: f64,
        visit_char: char, visit_str: &str, visit_borrowed_str: &'de str, visit_string: String,
        visit_bytes: &[u8], visit_borrowed_bytes: &'de [u8], visit_byte_buf: Vec<u8>
    }

    fn visit_none<E: de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Strict::new(deserializer, self.found))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<V::Value, D::Error> {
        self.inner
            .visit_newtype_struct(Strict::new(deserializer, self.found))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.inner.visit_seq(Watching {
            inner: access,
            fields: None,
            found: self.found,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Watching {
            inner: access,
            fields: self.fields,
            found: self.found,
        })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        // No variant of the protocol's enums has fields.
        self.inner.visit_enum(access)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Watching<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.inner
            .deserialize(Strict::new(deserializer, self.found))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Watching<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_element_seed(Watching {
            inner: seed,
            fields: None,
            found: self.found,
        })
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Watching<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        let Some(fields) = self.fields else {
            return self.inner.next_key_seed(seed);
        };
        let Some(Key(key)) = self.inner.next_key::<Key>()? else {
            return Ok(None);
        };
        if !fields.contains(&key.as_str()) {
            let unknown = self
                .found
                .borrow_mut()
                .insert(Unknown::new(&key, fields))
                .clone();
            return Err(de::Error::custom(unknown));
        }
        seed.deserialize(key.into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(Watching {
            inner: seed,
            fields: None,
            found: self.found,
        })
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

/// The name of a field.
#[derive(Deserialize)]
struct Key(String);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use protocol::operation::{app::UpdateApp, channel::CreateChannel, message::SendMessage};

    use super::*;

    fn read<T: de::DeserializeOwned>(json: &str) -> Result<T, Option<Unknown>> {
        let found = RefCell::default();
        let value = T::deserialize(Strict::new(
            ClientInput::new(
                &mut serde_json::Deserializer::from_str(json),
                &Findings::default(),
            ),
            &found,
        ));
        value.map_err(|_| found.into_inner())
    }

    fn unknown(name: &str, nearest: Option<&'static str>) -> Option<Unknown> {
        Some(Unknown {
            name: name.to_owned(),
            nearest,
        })
    }

    #[test]
    fn unknown_fields_are_found_at_any_depth_with_what_they_stand_for() {
        assert_eq!(
            read::<SendMessage>(r#"{"txet": "x"}"#).unwrap_err(),
            unknown("txet", Some("text"))
        );
        let nested =
            r#"{"attachments": [{"type": "file", "url": "https://a.example", "mimetype": "x"}]}"#;
        assert_eq!(
            read::<SendMessage>(nested).unwrap_err(),
            unknown("mimetype", Some("mime"))
        );
        let nested = r#"{"settings": {"create_users": true}}"#;
        assert_eq!(
            read::<UpdateApp>(nested).unwrap_err(),
            unknown("create_users", Some("create_users_from_tokens"))
        );
        assert_eq!(
            read::<SendMessage>(r#"{"colour": 1}"#).unwrap_err(),
            unknown("colour", None)
        );
        assert_eq!(
            read::<SendMessage>(r#"{"\u001b[2J": 1}"#).unwrap_err(),
            unknown("\\u{1b}[2J", None)
        );
        let secret = format!(r#"{{"{}": 1}}"#, "7".repeat(33));
        assert_eq!(
            read::<SendMessage>(&secret).unwrap_err(),
            unknown("…", None)
        );
    }

    #[test]
    fn known_fields_and_free_data_are_read_as_ever() {
        let json = r#"{"type": "group", "name": null, "participant_ids": ["a", "b"], "metadata": {"any": {"thing": [1, -2, 0.5, null]}}}"#;
        assert_eq!(
            read::<CreateChannel>(json).unwrap(),
            serde_json::from_str(json).unwrap()
        );
        assert_eq!(
            read::<CreateChannel>(r#"{"type": "open", "type": "group"}"#).unwrap_err(),
            None,
            "twice is an error, too"
        );
        assert_eq!(read::<CreateChannel>(r#"["group"]"#).unwrap_err(), None);
    }
}
