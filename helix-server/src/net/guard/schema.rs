//! What a request looks like on the wire, as data.

use kafka_protocol::messages::ApiKey;

/// One API: its versions and the structure of its request.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) key: ApiKey,
    pub(super) min: i16,
    pub(super) max: i16,
    /// First version with compact lengths and tagged fields.
    pub(super) flexible_from: i16,
    pub(super) request: &'static Schema,
}

/// The fields of a structure, in the order in which they are sent.
#[derive(Debug)]
pub(super) struct Schema {
    pub(super) name: &'static str,
    pub(super) fields: &'static [Field],
    /// Fields that flexible versions send as tagged fields, with their tags.
    pub(super) tagged: &'static [(u32, Field)],
}

/// One field.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Whether the decoder takes null for it.
    pub(super) nullable: bool,
    pub(super) since: i16,
    pub(super) until: i16,
}

/// The type of a field or of the elements of an array.
#[derive(Debug)]
pub(super) enum Kind {
    /// Always this many bytes.
    Fixed(usize),
    /// A string: a compact length in flexible versions, else 16 bits.
    Text,
    /// A string with a 16-bit length even in flexible versions.
    OldText,
    /// Bytes: a compact length in flexible versions, else 32 bits.
    Blob,
    /// A structure in place.
    Struct(&'static Schema),
    /// A structure in place behind a byte that says whether it is there; not there is null.
    OptionalStruct(&'static Schema),
    /// An array of elements, each of which takes `decoded_bytes` once decoded, and perhaps once answered.
    Array { element: &'static Kind, decoded_bytes: usize },
}

impl Schema {
    /// A structure without tagged fields of its own; unknown ones may come all the same.
    pub(super) const fn new(name: &'static str, fields: &'static [Field]) -> Self {
        Self { name, fields, tagged: &[] }
    }

    pub(super) const fn tagged(self, tagged: &'static [(u32, Field)]) -> Self {
        Self { tagged, ..self }
    }
}

impl Field {
    pub(super) const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, nullable: false, since: 0, until: i16::MAX }
    }

    pub(super) const fn nullable(mut self) -> Self {
        self.nullable = true;
        self
    }

    /// First version that sends it.
    pub(super) const fn since(mut self, version: i16) -> Self {
        self.since = version;
        self
    }

    /// Last version that sends it.
    pub(super) const fn until(mut self, version: i16) -> Self {
        self.until = version;
        self
    }

    pub(super) fn is_in(&self, version: i16) -> bool {
        (self.since..=self.until).contains(&version)
    }
}

pub(super) const fn int8(name: &'static str) -> Field {
    Field::new(name, Kind::Fixed(1))
}

pub(super) const fn boolean(name: &'static str) -> Field {
    Field::new(name, Kind::Fixed(1))
}

pub(super) const fn int16(name: &'static str) -> Field {
    Field::new(name, Kind::Fixed(2))
}

pub(super) const fn int32(name: &'static str) -> Field {
    Field::new(name, Kind::Fixed(4))
}

pub(super) const fn int64(name: &'static str) -> Field {
    Field::new(name, Kind::Fixed(8))
}

pub(super) const fn uuid(name: &'static str) -> Field {
    Field::new(name, Kind::Fixed(16))
}

pub(super) const fn text(name: &'static str) -> Field {
    Field::new(name, Kind::Text)
}

pub(super) const fn blob(name: &'static str) -> Field {
    Field::new(name, Kind::Blob)
}

/// An array whose elements the decoder turns into values of type `T`.
pub(super) const fn array<T>(name: &'static str, element: &'static Kind) -> Field {
    Field::new(name, Kind::Array { element, decoded_bytes: size_of::<T>() })
}

/// An array whose elements the decoder turns into values of type `T`, each of which is answered by a value of type `A`: a few bytes
/// may ask for a hundred, even where the answer is only that there is nothing.
pub(super) const fn answered_array<T, A>(name: &'static str, element: &'static Kind) -> Field {
    Field::new(name, Kind::Array { element, decoded_bytes: size_of::<T>() + size_of::<A>() })
}
