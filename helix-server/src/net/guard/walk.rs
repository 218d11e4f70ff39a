//! Walks a request by its schema.
//!
//! The recursion is as deep as the schema nests, which no client can change.

use super::GuardError;
use super::schema::{Field, Kind, Schema};

/// What decoding allocates besides arrays and tagged fields: shared buffer handles, or an error.
const BASE_DECODED_BYTES: usize = 1024;
/// The decoder keeps unknown tagged fields in a B-tree per structure. Its first node:
const FIRST_TAG_DECODED_BYTES: usize = 512;
/// Share of one more entry when every node is only half full.
const MORE_TAG_DECODED_BYTES: usize = 128;

pub(super) struct Walker<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    decoded_bytes: usize,
    max_decoded_bytes: usize,
}

impl<'a> Walker<'a> {
    pub(super) fn new(bytes: &'a [u8], version: i16, flexible: bool, max_decoded_bytes: usize) -> Self {
        Self { rest: bytes, version, flexible, decoded_bytes: 0, max_decoded_bytes }
    }

    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn decoded_bytes(&self) -> usize {
        self.decoded_bytes
    }

    /// Walks one whole message; what follows it is left.
    pub(super) fn message(&mut self, schema: &'static Schema) -> Result<(), GuardError> {
        self.charge(BASE_DECODED_BYTES)?;
        self.structure(schema)
    }

    fn structure(&mut self, schema: &'static Schema) -> Result<(), GuardError> {
        for field in schema.fields {
            if field.is_in(self.version) {
                self.value(&field.kind, field.name, field.nullable)?;
            }
        }
        if self.flexible { self.tagged_fields(schema) } else { Ok(()) }
    }

    fn value(&mut self, kind: &'static Kind, field: &'static str, nullable: bool) -> Result<(), GuardError> {
        match kind {
            Kind::Fixed(bytes) => self.skip(*bytes, field),
            Kind::Struct(schema) => self.structure(schema),
            Kind::OptionalStruct(schema) => match self.take(field)? {
                [1] => self.structure(schema),
                [_] => null(nullable, field),
            },
            Kind::Text | Kind::OldText | Kind::Blob => match self.length(kind, field)? {
                Some(bytes) => self.skip(bytes, field),
                None => null(nullable, field),
            },
            Kind::Array { element, decoded_bytes } => match self.length(kind, field)? {
                Some(count) => self.array(count, element, *decoded_bytes, field),
                None => null(nullable, field),
            },
        }
    }

    fn array(
        &mut self,
        count: usize,
        element: &'static Kind,
        decoded_bytes: usize,
        field: &'static str,
    ) -> Result<(), GuardError> {
        let needed = count.saturating_mul(self.least_bytes(element));
        if needed > self.rest.len() {
            return Err(GuardError::Truncated { field });
        }
        self.charge(count.saturating_mul(decoded_bytes))?;
        if let Kind::Fixed(_) = element {
            return self.skip(needed, field);
        }
        for _ in 0..count {
            self.value(element, field, false)?;
        }
        Ok(())
    }

    /// Fewest bytes that a value can take; never 0, so that a count is bounded by the bytes that are there.
    fn least_bytes(&self, kind: &'static Kind) -> usize {
        match kind {
            Kind::Fixed(bytes) => *bytes,
            Kind::OptionalStruct(_) => 1,
            Kind::OldText => 2,
            Kind::Text => {
                if self.flexible {
                    1
                } else {
                    2
                }
            }
            Kind::Blob | Kind::Array { .. } => {
                if self.flexible {
                    1
                } else {
                    4
                }
            }
            Kind::Struct(schema) => {
                let fields = schema.fields.iter().filter(|field| field.is_in(self.version));
                let tags = usize::from(self.flexible);
                (tags + fields.map(|field| self.least_bytes(&field.kind)).sum::<usize>()).max(1)
            }
        }
    }

    fn tagged_fields(&mut self, schema: &'static Schema) -> Result<(), GuardError> {
        let count = self.varint(schema.name)?;
        let mut least_tag = 0;
        let mut unknown = 0;
        for _ in 0..count {
            let tag = self.varint(schema.name)?;
            let bad = |reason| GuardError::Tag { field: schema.name, tag, reason };
            if u64::from(tag) < least_tag {
                return Err(bad("is not in ascending order"));
            }
            least_tag = u64::from(tag) + 1;
            let size = self.varint(schema.name)? as usize;
            if size > self.rest.len() {
                return Err(bad("reaches past the end of the request"));
            }
            match schema.tagged.iter().find(|(known, _)| *known == tag) {
                Some((_, field)) if field.is_in(self.version) => self.known_tag(field, size, &bad)?,
                Some(_) => return Err(bad("is not defined in this version")),
                None => {
                    self.charge(if unknown == 0 { FIRST_TAG_DECODED_BYTES } else { MORE_TAG_DECODED_BYTES })?;
                    unknown += 1;
                    self.skip(size, schema.name)?;
                }
            }
        }
        Ok(())
    }

    /// The decoder reads a known field and does not look at its size, so the two must agree.
    fn known_tag(
        &mut self,
        field: &'static Field,
        size: usize,
        bad: &dyn Fn(&'static str) -> GuardError,
    ) -> Result<(), GuardError> {
        let behind = self.rest.len() - size;
        self.value(&field.kind, field.name, field.nullable)?;
        if self.rest.len() == behind { Ok(()) } else { Err(bad("has another size than it claims")) }
    }

    /// The length in front of a string, bytes or an array; `None` is null.
    fn length(&mut self, kind: &Kind, field: &'static str) -> Result<Option<usize>, GuardError> {
        let signed = match kind {
            Kind::OldText => i64::from(i16::from_be_bytes(self.take(field)?)),
            _ if self.flexible => i64::from(self.varint(field)?) - 1,
            Kind::Text => i64::from(i16::from_be_bytes(self.take(field)?)),
            _ => i64::from(i32::from_be_bytes(self.take(field)?)),
        };
        match signed {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| GuardError::Length { field }),
        }
    }

    fn varint(&mut self, field: &'static str) -> Result<u32, GuardError> {
        let mut value: u64 = 0;
        for shift in (0..35).step_by(7) {
            let [byte] = self.take(field)?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| GuardError::VarInt { field });
            }
        }
        Err(GuardError::VarInt { field })
    }

    fn take<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], GuardError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(GuardError::Truncated { field })?;
        self.rest = rest;
        Ok(*taken)
    }

    fn skip(&mut self, bytes: usize, field: &'static str) -> Result<(), GuardError> {
        self.rest = self.rest.get(bytes..).ok_or(GuardError::Truncated { field })?;
        Ok(())
    }

    fn charge(&mut self, bytes: usize) -> Result<(), GuardError> {
        self.decoded_bytes = self.decoded_bytes.saturating_add(bytes);
        let limit = self.max_decoded_bytes;
        if self.decoded_bytes > limit { Err(GuardError::TooLarge { limit }) } else { Ok(()) }
    }
}

fn null(nullable: bool, field: &'static str) -> Result<(), GuardError> {
    if nullable { Ok(()) } else { Err(GuardError::Length { field }) }
}
