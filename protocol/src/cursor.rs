//! Positions in a stream of events, as clients send them.

use serde::{Deserialize, Serialize};

/// A position on the wire: `[seq, at]`, or `[]` for "from now on".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// From now on.
    Now,
    /// After the event with this `seq` and `at`.
    After(u64, u64),
}

impl Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Now => <[u64; 0]>::serialize(&[], serializer),
            Self::After(seq, at) => [*seq, *at].serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Position;
        impl<'de> serde::de::Visitor<'de> for Position {
            type Value = Cursor;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a position: [seq, at] or []")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut parts: A,
            ) -> Result<Cursor, A::Error> {
                let Some(seq) = parts.next_element()? else {
                    return Ok(Cursor::Now);
                };
                match (
                    parts.next_element()?,
                    parts.next_element::<serde::de::IgnoredAny>()?,
                ) {
                    (Some(at), None) => Ok(Cursor::After(seq, at)),
                    (at, _) => Err(serde::de::Error::invalid_length(
                        if at.is_some() { 3 } else { 1 },
                        &self,
                    )),
                }
            }
        }
        deserializer.deserialize_seq(Position)
    }
}

#[cfg(feature = "schema")]
impl utoipa::PartialSchema for Cursor {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::schema::Array::builder()
            .items(u64::schema())
            .max_items(Some(2))
            .description(Some("A position `[seq, at]`, or `[]` for \"from now on\"."))
            .build()
            .into()
    }
}

#[cfg(feature = "schema")]
impl utoipa::ToSchema for Cursor {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Encoding;

    #[test]
    fn a_position_has_two_parts_or_none() {
        for encoding in Encoding::ALL {
            let read = |parts: &[u64]| encoding.decode::<Cursor>(&encoding.encode(&parts));
            assert_eq!(read(&[]), Ok(Cursor::Now));
            assert_eq!(read(&[7, 8]), Ok(Cursor::After(7, 8)));
            assert!(read(&[7]).is_err());
            assert!(read(&[7, 8, 9]).is_err());
        }
    }
}
