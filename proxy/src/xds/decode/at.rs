//! The place inside a resource that is being decoded: a chain of borrowed segments, rendered only when something is said.

use std::{cell::RefCell, fmt::Write, mem, time::Duration};

use super::report::{NoteKind, Notes, Reject};

/// One level of the field path. Lives on the stack of the function that decodes that level.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    root: &'a Root<'a>,
    parent: Option<&'a At<'a>>,
    segment: Segment<'a>,
}

#[derive(Clone, Copy)]
enum Segment<'a> {
    Root,
    Field(&'a str),
    Index(&'a str, usize),
    Key(&'a str, &'a str),
}

struct Root<'a> {
    kind: &'static str,
    resource: &'a str,
    notes: RefCell<Notes>,
}

/// Runs `decode` at the root of a resource, collecting its notes into `notes`.
pub(crate) fn rooted<T>(
    kind: &'static str,
    resource: &str,
    notes: &mut Notes,
    decode: impl FnOnce(&At<'_>) -> Result<T, Reject>,
) -> Result<T, Reject> {
    let root = Root { kind, resource, notes: RefCell::new(mem::take(notes)) };
    let result = decode(&At { root: &root, parent: None, segment: Segment::Root });
    *notes = root.notes.into_inner();
    result
}

impl<'a> At<'a> {
    pub(crate) fn field(&'a self, name: &'a str) -> At<'a> {
        At { root: self.root, parent: Some(self), segment: Segment::Field(name) }
    }

    pub(crate) fn index(&'a self, name: &'a str, index: usize) -> At<'a> {
        At { root: self.root, parent: Some(self), segment: Segment::Index(name, index) }
    }

    pub(crate) fn key(&'a self, name: &'a str, key: &'a str) -> At<'a> {
        At { root: self.root, parent: Some(self), segment: Segment::Key(name, key) }
    }

    pub(crate) fn reject(&self, reason: impl Into<String>) -> Reject {
        Reject {
            kind: self.root.kind.into(),
            resource: self.root.resource.into(),
            path: self.path(),
            reason: reason.into(),
        }
    }

    pub(crate) fn note(&self, kind: NoteKind, reason: impl Into<String>) {
        self.root.notes.borrow_mut().push(kind, self.path(), reason.into(), 1);
    }

    pub(crate) fn unsupported(&self, reason: impl Into<String>) {
        self.note(NoteKind::Unsupported, reason);
    }

    pub(crate) fn harmless(&self, reason: impl Into<String>) {
        self.note(NoteKind::Harmless, reason);
    }

    /// For a message that the API requires.
    pub(crate) fn required<'m, T>(&self, name: &str, value: &'m Option<T>) -> Result<&'m T, Reject> {
        value.as_ref().ok_or_else(|| self.field(name).reject("is required"))
    }

    /// Decodes each element of a repeated field.
    pub(crate) fn each<M, T>(
        &self,
        name: &str,
        messages: &[M],
        mut decode: impl FnMut(&M, &At<'_>) -> Result<T, Reject>,
    ) -> Result<Vec<T>, Reject> {
        // Collecting results grows by doubling; what configurations hold is not to have room to spare.
        let mut all = Vec::with_capacity(messages.len());
        for (i, message) in messages.iter().enumerate() {
            all.push(decode(message, &self.index(name, i))?);
        }
        Ok(all)
    }

    /// Reads an optional duration field, refusing negative and absurd ones.
    pub(crate) fn duration(
        &self,
        name: &str,
        value: &Option<outrigger_wire::pb::google::protobuf::Duration>,
    ) -> Result<Option<Duration>, Reject> {
        value.as_ref().map(|d| super::scalar::duration(d, &self.field(name))).transpose()
    }

    /// The place among all resources.
    pub(crate) fn place(&self) -> String {
        format!("{} {}: {}", self.root.kind, self.root.resource, self.path())
    }

    fn path(&self) -> String {
        let mut chain = Vec::new();
        let mut next = Some(self);
        while let Some(at) = next {
            chain.push(at.segment);
            next = at.parent;
        }
        let mut path = String::new();
        for segment in chain.into_iter().rev() {
            if !path.is_empty() {
                path.push('.');
            }
            let written = match segment {
                Segment::Root => Ok(()),
                Segment::Field(name) => write!(path, "{name}"),
                Segment::Index(name, i) => write!(path, "{name}[{i}]"),
                Segment::Key(name, key) => write!(path, "{name}[{key:?}]"),
            };
            written.expect("writing to a string cannot fail");
        }
        path
    }
}
