//! The message types as a packed table: what the JSON mapping asks of a descriptor, and nothing else.
//!
//! Made from `envoy.binpb.gz` (see [`pack`]) and read in place: no start-up cost, and only the pages that are looked at
//! become memory. The layout is private to this file and `pack`; integers are little endian, names lie in one pool.

#[cfg(test)]
pub(super) mod pack;

const BYTES: &[u8] = include_bytes!("../../descriptors/envoy.table");

/// Sections in their order, by the size of a record: messages, keys, fields, enums, values, and the names.
const RECORDS: [usize; 6] = [12, 6, 14, 5, 9, 1];
const MESSAGES: usize = 0;
const KEYS: usize = 1;
const FIELDS: usize = 2;
const ENUMS: usize = 3;
const VALUES: usize = 4;
const NAMES: usize = 5;

static SECTIONS: [&[u8]; 6] = sections(BYTES);

/// The header is a count of records for each section.
const fn sections(bytes: &'static [u8]) -> [&'static [u8]; 6] {
    let mut sections: [&[u8]; 6] = [&[]; 6];
    let (mut header, mut rest) = bytes.split_at(4 * RECORDS.len());
    let mut i = 0;
    while i < RECORDS.len() {
        let (count, more) = header.split_at(4);
        header = more;
        let count = u32::from_le_bytes([count[0], count[1], count[2], count[3]]) as usize;
        (sections[i], rest) = rest.split_at(count * RECORDS[i]);
        i += 1;
    }
    sections
}

fn record<const SECTION: usize>(index: usize) -> &'static [u8] {
    let size = RECORDS[SECTION];
    &SECTIONS[SECTION][index * size..][..size]
}

fn half(record: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([record[at], record[at + 1]])
}

fn word(record: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]])
}

/// Every record with a name begins with its place and its length.
fn name(record: &'static [u8]) -> &'static [u8] {
    &SECTIONS[NAMES][word(record, 0) as usize..][..usize::from(record[4])]
}

fn text(name: &'static [u8]) -> &'static str {
    std::str::from_utf8(name).unwrap_or_default()
}

/// How the JSON of a message looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// An object of its fields.
    Plain,
    Any,
    Struct,
    ListValue,
    Value,
    Duration,
    Timestamp,
    FieldMask,
    /// `google.protobuf.UInt32Value` and the like: the JSON of the field `value`.
    Wrapper,
    /// An object of its fields, but no content for an `Any`: the rest of `google.protobuf`.
    Reserved,
}

const FORMS: [Form; 10] = [
    Form::Plain,
    Form::Any,
    Form::Struct,
    Form::ListValue,
    Form::Value,
    Form::Duration,
    Form::Timestamp,
    Form::FieldMask,
    Form::Wrapper,
    Form::Reserved,
];

/// The type of a field, by protobuf's own numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Double,
    Float,
    Int64,
    Uint64,
    Int32,
    Fixed64,
    Fixed32,
    Bool,
    String,
    Message(Message),
    Bytes,
    Uint32,
    Enum(Enum),
    Sfixed32,
    Sfixed64,
    Sint32,
    Sint64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Single,
    /// A scalar of proto3 whose default is the same as its absence.
    Implicit,
    List,
    /// The field's message is the entry: `key` and `value`, numbers 1 and 2.
    Map,
}

/// A message type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message(u16);

/// A field of a message type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    record: &'static [u8],
    /// Place among the fields of its message, from 0 in the order of their numbers; below 256.
    pub(super) place: u8,
}

/// A spelling of a field's name: as in the `.proto` file, or in lower camel case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(u16);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Enum(u16);

impl Message {
    /// By the full name.
    pub(super) fn find(full_name: &str) -> Option<Self> {
        let count = SECTIONS[MESSAGES].len() / RECORDS[MESSAGES];
        let index = search(0, count, full_name.as_bytes(), |i| name(record::<MESSAGES>(i)))?;
        u16::try_from(index).ok().map(Self)
    }

    fn record(self) -> &'static [u8] {
        record::<MESSAGES>(usize::from(self.0))
    }

    pub(super) fn full_name(self) -> &'static str {
        text(name(self.record()))
    }

    /// The name without its package.
    pub(super) fn name(self) -> &'static str {
        self.full_name().rsplit('.').next().unwrap_or_default()
    }

    pub(super) fn form(self) -> Form {
        FORMS[usize::from(self.record()[5])]
    }

    /// The field of this spelling.
    pub(super) fn key(self, spelling: &[u8]) -> Option<(Key, Field)> {
        let own = self.record();
        let (first, count) = (usize::from(half(own, 10)), usize::from(own[9]));
        let index = search(first, count, spelling, |i| name(record::<KEYS>(i)))?;
        let key = record::<KEYS>(index);
        Some((Key(u16::try_from(index).ok()?), self.place(key[5])))
    }

    pub(super) fn field(self, number: u32) -> Option<Field> {
        (0..self.record()[8]).map(|place| self.place(place)).find(|field| field.number() == number)
    }

    fn place(self, place: u8) -> Field {
        let first = usize::from(half(self.record(), 6));
        Field { record: record::<FIELDS>(first + usize::from(place)), place }
    }
}

impl Key {
    pub(super) fn text(self) -> &'static str {
        text(name(record::<KEYS>(usize::from(self.0))))
    }
}

impl Field {
    /// As in the `.proto` file.
    pub(super) fn name(self) -> &'static str {
        text(name(self.record))
    }

    pub(super) fn number(self) -> u32 {
        word(self.record, 6)
    }

    pub(super) fn kind(self) -> Kind {
        let of = half(self.record, 10);
        match self.record[5] {
            1 => Kind::Double,
            2 => Kind::Float,
            3 => Kind::Int64,
            4 => Kind::Uint64,
            5 => Kind::Int32,
            6 => Kind::Fixed64,
            7 => Kind::Fixed32,
            8 => Kind::Bool,
            9 => Kind::String,
            12 => Kind::Bytes,
            13 => Kind::Uint32,
            14 => Kind::Enum(Enum(of)),
            15 => Kind::Sfixed32,
            16 => Kind::Sfixed64,
            17 => Kind::Sint32,
            18 => Kind::Sint64,
            _ => Kind::Message(Message(of)),
        }
    }

    /// Which of its message's oneofs it is in; 0 for none.
    pub(super) fn oneof(self) -> u8 {
        self.record[12]
    }

    pub(super) fn shape(self) -> Shape {
        match self.record[13] {
            0 => Shape::Single,
            1 => Shape::Implicit,
            2 => Shape::List,
            _ => Shape::Map,
        }
    }
}

impl Enum {
    fn values(self) -> impl Iterator<Item = &'static [u8]> {
        let own = record::<ENUMS>(usize::from(self.0));
        let first = usize::from(half(own, 0));
        (first..first + usize::from(half(own, 2))).map(record::<VALUES>)
    }

    /// `google.protobuf.NullValue`, whose JSON is null.
    pub(super) fn is_null(self) -> bool {
        record::<ENUMS>(usize::from(self.0))[4] != 0
    }

    /// In the order of their numbers.
    pub(super) fn names(self) -> impl Iterator<Item = &'static str> {
        self.values().map(|value| text(name(value)))
    }

    pub(super) fn number(self, of: &str) -> Option<i32> {
        self.values().find(|value| name(value) == of.as_bytes()).map(number)
    }

    pub(super) fn name(self, of: i32) -> Option<&'static str> {
        self.values().find(|value| number(value) == of).map(|value| text(name(value)))
    }
}

fn number(value: &[u8]) -> i32 {
    i32::from_le_bytes([value[5], value[6], value[7], value[8]])
}

/// Binary search among `count` records from `first`, which are sorted by their names' bytes.
fn search(first: usize, count: usize, wanted: &[u8], name: impl Fn(usize) -> &'static [u8]) -> Option<usize> {
    let (mut low, mut high) = (first, first + count);
    while low < high {
        let middle = low.midpoint(high);
        match name(middle).cmp(wanted) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => return Some(middle),
        }
    }
    None
}
