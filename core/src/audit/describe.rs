//! An object as the audit trail shows it: JSON with the names of the protos, without secrets and their hashes.
//!
//! Invariant: a field of type `bytes`, and one named in [`WITHHELD`], is never written, at any depth; that one changed is, when it stands
//! at the top. Everything else that the protos have is written, so a new field is in the trail from its first day.

use std::collections::BTreeMap;

use prost::{
    Message as _,
    encoding::{WireType, decode_key, decode_varint},
};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};
use serde_json::{Map, Value};

/// Fields that are withheld whatever their type.
pub const WITHHELD: [&str; 2] = ["secret", "digest"];
/// Longest text for one object, in bytes.
const MAX_BYTES: usize = 4096;

/// The messages of the protos.
pub struct Schema {
    messages: BTreeMap<String, DescriptorProto>,
    enums: BTreeMap<String, EnumDescriptorProto>,
}

/// Bytes that are of no message that the schema knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an object cannot be described: its bytes do not fit its schema")]
pub struct Undescribable;

impl Schema {
    /// Reads an encoded `FileDescriptorSet`.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(descriptors: &[u8]) -> Result<Self, Undescribable> {
        let set = FileDescriptorSet::decode(descriptors).map_err(|_| Undescribable)?;
        let (mut messages, mut enums) = (BTreeMap::new(), BTreeMap::new());
        for file in set.file {
            let package = file.package().to_owned();
            let name = |own: &str| format!(".{package}.{own}");
            for message in &file.message_type {
                messages.insert(name(message.name()), message.clone());
            }
            for one in &file.enum_type {
                enums.insert(name(one.name()), one.clone());
            }
        }
        Ok(Self { messages, enums })
    }

    /// An object before and after a change, each as JSON text, empty where there is none. `message` is the full name of its type.
    ///
    /// # Errors
    /// When the bytes are of another type.
    pub fn change(
        &self,
        message: &str,
        before: Option<&[u8]>,
        after: Option<&[u8]>,
    ) -> Result<(String, String), Undescribable> {
        let message = format!(".{message}");
        let describe = |bytes: Option<&[u8]>, other: Option<&[u8]>| {
            let Some(bytes) = bytes else {
                return Ok(String::new());
            };
            let mut shown = self.object(&message, bytes)?;
            if let Some(other) = other {
                self.mark_changed(&message, bytes, other, &mut shown)?;
            }
            Ok(bounded(Value::Object(shown).to_string()))
        };
        Ok((describe(before, None)?, describe(after, before)?))
    }

    fn object(&self, message: &str, bytes: &[u8]) -> Result<Map<String, Value>, Undescribable> {
        let mut shown = Map::new();
        for (field, raw) in self.fields(message, bytes)? {
            let name = field.name().to_owned();
            if is_withheld(field) {
                shown.insert(name, Value::from("(withheld)"));
                continue;
            }
            let mut values = self.values(field, &raw)?;
            if field.label() == Label::Repeated {
                let list = shown
                    .entry(name)
                    .or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(list) = list {
                    list.append(&mut values);
                }
            } else if let Some(value) = values.pop() {
                shown.insert(name, value);
            }
        }
        Ok(shown)
    }

    /// Says of each withheld field of the object whether it is another one than before.
    fn mark_changed(
        &self,
        message: &str,
        bytes: &[u8],
        other: &[u8],
        shown: &mut Map<String, Value>,
    ) -> Result<(), Undescribable> {
        let others = self.fields(message, other)?;
        for (field, raw) in self.fields(message, bytes)? {
            let same = |(theirs, value): &(&FieldDescriptorProto, Raw<'_>)| {
                theirs.number() == field.number() && *value == raw
            };
            if is_withheld(field) && !others.iter().any(same) {
                shown.insert(field.name().to_owned(), Value::from("(withheld, changed)"));
            }
        }
        Ok(())
    }

    /// The known fields of a message in the order of its bytes.
    fn fields<'a>(
        &self,
        message: &str,
        mut bytes: &'a [u8],
    ) -> Result<Vec<(&FieldDescriptorProto, Raw<'a>)>, Undescribable> {
        let message = self.messages.get(message).ok_or(Undescribable)?;
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let (number, wire) = decode_key(&mut bytes).map_err(|_| Undescribable)?;
            let raw = Raw::read(wire, &mut bytes)?;
            let known = message
                .field
                .iter()
                .find(|field| u32::try_from(field.number()).ok() == Some(number));
            found.extend(known.map(|field| (field, raw)));
        }
        Ok(found)
    }

    /// The value of a field, or several when they are packed.
    fn values(
        &self,
        field: &FieldDescriptorProto,
        raw: &Raw<'_>,
    ) -> Result<Vec<Value>, Undescribable> {
        Ok(match (field.r#type(), raw) {
            (Type::String, Raw::Bytes(text)) => {
                vec![Value::from(
                    std::str::from_utf8(text).map_err(|_| Undescribable)?,
                )]
            }
            (Type::Message, Raw::Bytes(bytes)) => {
                vec![Value::Object(self.object(field.type_name(), bytes)?)]
            }
            (Type::Double | Type::Fixed64 | Type::Sfixed64, Raw::Eight(bytes)) => {
                vec![fixed(field.r#type(), *bytes)]
            }
            (Type::Float, Raw::Four(bytes)) => vec![Value::from(f32::from_le_bytes(*bytes))],
            (Type::Fixed32, Raw::Four(bytes)) => vec![Value::from(u32::from_le_bytes(*bytes))],
            (Type::Sfixed32, Raw::Four(bytes)) => vec![Value::from(i32::from_le_bytes(*bytes))],
            (_, Raw::Varint(number)) => vec![self.number(field, *number)],
            // Repeated numbers stand packed.
            (_, &Raw::Bytes(mut packed)) if field.label() == Label::Repeated => {
                let mut all = Vec::new();
                while !packed.is_empty() {
                    let number = decode_varint(&mut packed).map_err(|_| Undescribable)?;
                    all.push(self.number(field, number));
                }
                all
            }
            _ => return Err(Undescribable),
        })
    }

    fn number(&self, field: &FieldDescriptorProto, number: u64) -> Value {
        let signed = number.cast_signed();
        match field.r#type() {
            Type::Bool => Value::from(number != 0),
            Type::Enum => {
                let word = self.enums.get(field.type_name()).and_then(|one| {
                    one.value
                        .iter()
                        .find(|value| i64::from(value.number()) == signed)
                });
                word.map_or_else(|| Value::from(signed), |value| Value::from(value.name()))
            }
            Type::Int32 | Type::Int64 => Value::from(signed),
            Type::Sint32 | Type::Sint64 => {
                Value::from((number >> 1).cast_signed() ^ (number & 1).cast_signed().wrapping_neg())
            }
            Type::Uint32
            | Type::Uint64
            | Type::Double
            | Type::Float
            | Type::Fixed64
            | Type::Fixed32
            | Type::String
            | Type::Group
            | Type::Message
            | Type::Bytes
            | Type::Sfixed32
            | Type::Sfixed64 => Value::from(number),
        }
    }
}

fn fixed(kind: Type, bytes: [u8; 8]) -> Value {
    if kind == Type::Double {
        Value::from(f64::from_le_bytes(bytes))
    } else if kind == Type::Sfixed64 {
        Value::from(i64::from_le_bytes(bytes))
    } else {
        Value::from(u64::from_le_bytes(bytes))
    }
}

fn is_withheld(field: &FieldDescriptorProto) -> bool {
    field.r#type() == Type::Bytes || WITHHELD.contains(&field.name())
}

/// A long description gives way to its length: a record must fit into a transaction.
fn bounded(text: String) -> String {
    if text.len() <= MAX_BYTES {
        text
    } else {
        let hash = blake3::hash(text.as_bytes());
        serde_json::json!({ "too_long_bytes": text.len(), "blake3": hash.to_hex().as_str() })
            .to_string()
    }
}

/// A value as it stands in the bytes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Raw<'a> {
    Varint(u64),
    Eight([u8; 8]),
    Four([u8; 4]),
    Bytes(&'a [u8]),
}

impl<'a> Raw<'a> {
    fn read(wire: WireType, bytes: &mut &'a [u8]) -> Result<Self, Undescribable> {
        let mut take = |count: usize| {
            let (taken, rest) = bytes.split_at_checked(count).ok_or(Undescribable)?;
            *bytes = rest;
            Ok(taken)
        };
        Ok(match wire {
            WireType::SixtyFourBit => Self::Eight(take(8)?.try_into().map_err(|_| Undescribable)?),
            WireType::ThirtyTwoBit => Self::Four(take(4)?.try_into().map_err(|_| Undescribable)?),
            WireType::Varint => Self::Varint(decode_varint(bytes).map_err(|_| Undescribable)?),
            WireType::LengthDelimited => {
                let length = decode_varint(bytes).map_err(|_| Undescribable)?;
                let length = usize::try_from(length).map_err(|_| Undescribable)?;
                let (taken, rest) = bytes.split_at_checked(length).ok_or(Undescribable)?;
                *bytes = rest;
                Self::Bytes(taken)
            }
            WireType::StartGroup | WireType::EndGroup => return Err(Undescribable),
        })
    }
}
