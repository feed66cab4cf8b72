//! The way through a JSON document beside its message type, writing the message's bytes: output, place and complaint.
//!
//! [`visit`](super::visit) has the parts that depend on the grammar a document is read from. Nothing is held of the
//! document; where a complaint belongs is put together only when there is one, on the way out.

use super::{
    Error, scalar,
    table::{Form, Key, Kind, Message},
};

/// Deepest nesting accepted: the bound that protobuf decoders have as well.
const MAX_DEPTH: usize = 100;

/// The reason is in [`Walk`].
#[derive(Debug)]
pub(super) struct Refused;

/// What a place in the document holds.
#[derive(Clone, Copy)]
pub(super) enum Found<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(&'a str),
    List,
    Object,
}

/// Where a value goes: a field by its number, or the document itself (number 0).
#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub(super) number: u32,
    pub(super) kind: Kind,
    /// Whether a default is written; protobuf leaves it out where it cannot be told from absence.
    pub(super) explicit: bool,
}

/// A step from a message to what is in it.
pub(super) enum Step {
    Field(&'static str),
    Key(Key),
    Unknown(String),
    Index(usize),
    Entry(String),
}

#[derive(Default)]
pub(super) struct Walk {
    out: Vec<u8>,
    depth: usize,
    reason: Option<String>,
    /// To the complaint, innermost first.
    steps: Vec<Step>,
}

impl Walk {
    pub(super) fn finish(self) -> Vec<u8> {
        self.out
    }

    /// The complaint as an error; `unexpected` if there was none.
    pub(super) fn error(self, unexpected: Error) -> Error {
        let Some(reason) = self.reason else { return unexpected };
        let mut path = String::new();
        for step in self.steps.iter().rev() {
            let step = match step {
                Step::Field(name) => (*name).to_owned(),
                Step::Key(key) => key.text().to_owned(),
                Step::Unknown(key) => key.clone(),
                Step::Index(index) => format!("[{index}]"),
                Step::Entry(key) => format!("[{key:?}]"),
            };
            if !path.is_empty() && !step.starts_with('[') {
                path.push('.');
            }
            path.push_str(&step);
        }
        if path.is_empty() {
            path.push_str("(document)");
        }
        Error::Field { path, reason }
    }

    pub(super) fn refuse<T>(&mut self, reason: impl Into<String>) -> Result<T, Refused> {
        self.reason.get_or_insert_with(|| reason.into());
        Err(Refused)
    }

    /// Adds a step to the place of the complaint.
    pub(super) fn at(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// One level down; [`Self::leave`] undoes it.
    pub(super) fn enter(&mut self) -> Result<(), Refused> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { self.refuse("is nested too deeply") } else { Ok(()) }
    }

    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    pub(super) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.out.push(value.to_le_bytes()[0]);
    }

    /// The head of a field; `wire` is protobuf's wire type.
    pub(super) fn head(&mut self, number: u32, wire: u8) {
        self.varint(u64::from(number) << 3 | u64::from(wire));
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// A field of text or bytes.
    pub(super) fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.head(number, 2);
        self.varint(bytes.len() as u64);
        self.raw(bytes);
    }

    /// Begins a message; to be ended by [`Self::close`] with what this gives.
    pub(super) fn open(&mut self, number: u32) -> usize {
        if number != 0 {
            self.head(number, 2);
            self.out.push(0);
        }
        self.out.len()
    }

    /// Ends a message: most are shorter than 128 bytes, the length of others needs room.
    pub(super) fn close(&mut self, number: u32, start: usize) {
        if number == 0 {
            return;
        }
        let end = self.out.len();
        let length = end - start;
        if let Ok(short @ 0..0x80) = u8::try_from(length) {
            self.out[start - 1] = short;
            return;
        }
        self.varint(length as u64);
        let size = self.out.len() - end;
        let mut head = [0; 10];
        head[..size].copy_from_slice(&self.out[end..]);
        self.out.truncate(end + size - 1);
        self.out.copy_within(start..end, start + size - 1);
        self.out[start - 1..][..size].copy_from_slice(&head[..size]);
    }

    /// Takes back a message in which nothing was written since `start`.
    pub(super) fn close_unless_empty(&mut self, number: u32, before: usize, start: usize) {
        if self.out.len() == start { self.out.truncate(before) } else { self.close(number, start) }
    }

    pub(super) fn position(&self) -> usize {
        self.out.len()
    }

    /// Writes what is neither a list nor an object.
    pub(super) fn scalar(&mut self, slot: Slot, found: Found<'_>) -> Result<(), Refused> {
        let Kind::Message(message) = slot.kind else {
            let written = scalar::write(self, slot, found);
            return written.ok_or(()).or_else(|()| self.mismatch(slot.kind, found));
        };
        let start = self.open(slot.number);
        match message.form() {
            Form::Value => self.value(found)?,
            Form::Wrapper => self.scalar(inner(message), found)?,
            Form::Duration | Form::Timestamp | Form::FieldMask => {
                let Found::Text(text) = found else { return self.mismatch(slot.kind, found) };
                scalar::well_known(self, message.form(), text)?;
            }
            _ => return self.mismatch(slot.kind, found),
        }
        self.close(slot.number, start);
        Ok(())
    }

    /// The content of a `google.protobuf.Value` that is neither a list nor an object.
    pub(super) fn value(&mut self, found: Found<'_>) -> Result<(), Refused> {
        let number = |walk: &mut Self, number: f64| {
            walk.head(2, 1);
            walk.raw(&number.to_le_bytes());
        };
        match found {
            Found::Null => self.raw(&[1 << 3, 0]),
            Found::Bool(v) => self.raw(&[4 << 3, u8::from(v)]),
            Found::Int(v) => number(self, v as f64),
            Found::Uint(v) => number(self, v as f64),
            Found::Float(v) => number(self, v),
            Found::Text(v) => self.bytes(3, v.as_bytes()),
            Found::List | Found::Object => return self.refuse("is not a scalar"),
        }
        Ok(())
    }

    /// Complains that `found` is not of the type.
    pub(super) fn mismatch<T>(&mut self, kind: Kind, found: Found<'_>) -> Result<T, Refused> {
        let wanted = match kind {
            Kind::Message(message) => match message.form() {
                Form::Any => return self.refuse(format!("must be an object with \"@type\", not {}", found.kind())),
                Form::Struct => return self.refuse(format!("must be an object, not {}", found.kind())),
                Form::ListValue => return self.refuse(format!("must be a list, not {}", found.kind())),
                Form::Wrapper => return self.mismatch(inner(message).kind, found),
                Form::Duration | Form::Timestamp | Form::FieldMask => {
                    let name = message.full_name();
                    return self.refuse(format!("must be {name} (quoted text), not {}", found.shown()));
                }
                Form::Plain | Form::Reserved | Form::Value => {
                    return self.refuse(format!("must be an object ({}), not {}", message.name(), found.kind()));
                }
            },
            Kind::Enum(values) => {
                let names: Vec<_> = values.names().take(12).collect();
                return self.refuse(format!("{} is none of {}", found.shown(), names.join(", ")));
            }
            Kind::Bool => "true or false",
            Kind::String => "a string (quoted text)",
            Kind::Bytes => "base64 text (quoted text)",
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => "a 32-bit whole number",
            Kind::Uint32 | Kind::Fixed32 => "an unsigned 32-bit whole number",
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "a 64-bit whole number",
            Kind::Uint64 | Kind::Fixed64 => "an unsigned 64-bit whole number",
            Kind::Double | Kind::Float => "a number",
        };
        self.refuse(format!("must be {wanted}, not {}", found.shown()))
    }
}

/// The field `value` of a wrapper.
fn inner(wrapper: Message) -> Slot {
    let kind = wrapper.field(1).map_or(Kind::Message(wrapper), super::table::Field::kind);
    Slot { number: 1, kind, explicit: false }
}

impl Found<'_> {
    pub(super) fn kind(self) -> &'static str {
        match self {
            Found::Null => "null",
            Found::Bool(_) => "a boolean",
            Found::Int(_) | Found::Uint(_) | Found::Float(_) => "a number",
            Found::Text(_) => "text",
            Found::List => "a list",
            Found::Object => "an object",
        }
    }

    /// Scalars as they are, shortened; anything else by its kind.
    pub(super) fn shown(self) -> String {
        match self {
            Found::Bool(v) => v.to_string(),
            Found::Int(v) => v.to_string(),
            Found::Uint(v) => v.to_string(),
            Found::Float(v) => serde_json::Value::from(v).to_string(),
            Found::Text(v) => format!("{:?}", v.chars().take(64).collect::<String>()),
            other => other.kind().to_owned(),
        }
    }
}
