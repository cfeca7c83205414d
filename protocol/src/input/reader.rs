//! The deserializer of client input.

use std::{cell::RefCell, collections::HashSet, fmt};

use serde::{
    Deserializer,
    de::{
        DeserializeSeed, EnumAccess, Error, MapAccess, SeqAccess, Unexpected, Visitor,
        value::StrDeserializer,
    },
};

use super::{Findings, integral};
use crate::MAX_INTEGER;

/// A deserializer of client input, over the deserializer of an encoding.
///
/// Values without a declared type (free data) are passed on unchanged.
#[derive(Debug)]
pub struct ClientInput<'a, D> {
    inner: D,
    findings: &'a Findings,
}

impl<'a, D> ClientInput<'a, D> {
    /// Wraps the deserializer of an encoding.
    pub fn new(inner: D, findings: &'a Findings) -> Self {
        Self { inner, findings }
    }
}

/// The kind of value that a visitor accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Integer,
    Struct,
    Variant,
    /// A value of any type: free data.
    Any,
    /// A value that is ignored.
    Ignored,
    Other,
}

/// A visitor under the rules of [`ClientInput`].
struct Visit<'a, V> {
    visitor: V,
    expected: Expected,
    findings: &'a Findings,
}

/// An access to nested values.
struct Nested<'a, T> {
    inner: T,
    findings: &'a Findings,
}

macro_rules! deserialize {
    ($($method:ident($($argument:ident: $of:ty),*) $expected:ident;)*) => {
        $(fn $method<V: Visitor<'de>>(self, $($argument: $of,)* visitor: V) -> Result<V::Value, D::Error> {
            let Self { inner, findings } = self;
            inner.$method($($argument,)* Visit { visitor, expected: Expected::$expected, findings })
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for ClientInput<'_, D> {
    type Error = D::Error;

    deserialize! {
        deserialize_any() Any;
        deserialize_bool() Other;
        deserialize_i8() Integer;
        deserialize_i16() Integer;
        deserialize_i32() Integer;
        deserialize_i64() Integer;
        deserialize_u8() Integer;
        deserialize_u16() Integer;
        deserialize_u32() Integer;
        deserialize_u64() Integer;
        deserialize_f32() Other;
        deserialize_f64() Other;
        deserialize_char() Other;
        deserialize_str() Other;
        deserialize_string() Other;
        deserialize_bytes() Other;
        deserialize_byte_buf() Other;
        deserialize_option() Other;
        deserialize_unit() Other;
        deserialize_unit_struct(name: &'static str) Other;
        deserialize_newtype_struct(name: &'static str) Other;
        deserialize_seq() Other;
        deserialize_tuple(len: usize) Other;
        deserialize_tuple_struct(name: &'static str, len: usize) Other;
        deserialize_map() Other;
        deserialize_struct(name: &'static str, fields: &'static [&'static str]) Struct;
        deserialize_identifier() Other;
        deserialize_ignored_any() Ignored;
    }

    /// A variant is a string: no variant of the protocol's enums has fields.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let Self { inner, findings } = self;
        inner.deserialize_str(Visit {
            visitor,
            expected: Expected::Variant,
            findings,
        })
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident($of:ty);)*) => {
        $(fn $method<E: Error>(self, value: $of) -> Result<V::Value, E> {
            self.visitor.$method(value)
        })*
    };
}

impl<V> Visit<'_, V> {
    /// Checks an integer of a typed field. Integers of free data are checked separately.
    fn check_integer<E: Error>(&self, magnitude: u64) -> Result<(), E> {
        if self.expected == Expected::Integer && magnitude > MAX_INTEGER {
            return Err(E::custom("integers are within ±2^53"));
        }
        Ok(())
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Visit<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    visit! {
        visit_bool(bool);
        visit_i8(i8);
        visit_i16(i16);
        visit_i32(i32);
        visit_u8(u8);
        visit_u16(u16);
        visit_u32(u32);
        visit_char(char);
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<V::Value, E> {
        self.check_integer(value.unsigned_abs())?;
        self.visitor.visit_i64(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<V::Value, E> {
        self.check_integer(value)?;
        self.visitor.visit_u64(value)
    }

    fn visit_f32<E: Error>(self, value: f32) -> Result<V::Value, E> {
        self.visit_f64(f64::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<V::Value, E> {
        if !value.is_finite() {
            return Err(E::custom("numbers are finite"));
        }
        match (self.expected, integral(value)) {
            (Expected::Integer, Some(integer)) if integer < 0 => self.visitor.visit_i64(integer),
            (Expected::Integer, Some(integer)) => self.visitor.visit_u64(integer.unsigned_abs()),
            (Expected::Any, None) if value.fract() == 0.0 => {
                self.findings.has_large_float.set(true);
                self.visitor.visit_f64(value)
            }
            _ => self.visitor.visit_f64(value),
        }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<V::Value, E> {
        match self.expected {
            Expected::Variant => self.visitor.visit_enum(StrDeserializer::new(value)),
            _ => self.visitor.visit_str(value),
        }
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<V::Value, E> {
        match self.expected {
            Expected::Variant => self.visitor.visit_enum(StrDeserializer::new(value)),
            _ => self.visitor.visit_borrowed_str(value),
        }
    }

    fn visit_string<E: Error>(self, value: String) -> Result<V::Value, E> {
        match self.expected {
            Expected::Variant => self.visitor.visit_enum(StrDeserializer::new(&value)),
            _ => self.visitor.visit_string(value),
        }
    }

    fn visit_bytes<E: Error>(self, value: &[u8]) -> Result<V::Value, E> {
        match self.expected {
            Expected::Ignored => self.visitor.visit_bytes(value),
            _ => Err(E::invalid_type(Unexpected::Bytes(value), &self)),
        }
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.visitor
            .visit_some(ClientInput::new(inner, self.findings))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.visitor
            .visit_newtype_struct(ClientInput::new(inner, self.findings))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        if self.expected == Expected::Struct {
            return Err(A::Error::invalid_type(Unexpected::Seq, &"a map"));
        }
        self.visitor.visit_seq(Nested {
            inner: items,
            findings: self.findings,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        if self.expected == Expected::Ignored {
            return self.visitor.visit_map(Nested {
                inner: entries,
                findings: self.findings,
            });
        }
        self.visitor.visit_map(Entries {
            inner: entries,
            findings: self.findings,
            // A struct refuses duplicate fields itself, and ignores unknown ones.
            keys: (self.expected != Expected::Struct).then(RefCell::default),
        })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_enum(variant)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Nested<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.inner
            .deserialize(ClientInput::new(inner, self.findings))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Nested<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_element_seed(Nested {
            inner: seed,
            findings: self.findings,
        })
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

/// The entries of a map that is ignored.
impl<'de, A: MapAccess<'de>> MapAccess<'de> for Nested<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(Nested {
            inner: seed,
            findings: self.findings,
        })
    }
}

/// The entries of a map: each key is a string, and unique if the keys are kept.
struct Entries<'a, A> {
    inner: A,
    findings: &'a Findings,
    keys: Option<RefCell<HashSet<String>>>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Entries<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_key_seed(Key {
            inner: seed,
            keys: self.keys.as_ref(),
        })
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(Nested {
            inner: seed,
            findings: self.findings,
        })
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

/// A seed, deserializer or visitor of a key.
struct Key<'a, T> {
    inner: T,
    keys: Option<&'a RefCell<HashSet<String>>>,
}

impl<T> Key<'_, T> {
    fn note<E: Error>(&self, key: &str) -> Result<(), E> {
        match self.keys {
            Some(keys) if !keys.borrow_mut().insert(key.to_owned()) => {
                Err(E::custom("a key stands twice"))
            }
            _ => Ok(()),
        }
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Key<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Key {
            inner,
            keys: self.keys,
        })
    }
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Key<'_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_str(Key {
            inner: visitor,
            keys: self.keys,
        })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
        unit_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Key<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that is a string")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<V::Value, E> {
        self.note(key)?;
        self.inner.visit_str(key)
    }

    fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<V::Value, E> {
        self.note(key)?;
        self.inner.visit_borrowed_str(key)
    }

    fn visit_string<E: Error>(self, key: String) -> Result<V::Value, E> {
        self.note(&key)?;
        self.inner.visit_string(key)
    }
}
