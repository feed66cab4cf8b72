//! What decoding says besides its result: the refusal of one resource, and notes about what was accepted but has no effect.
//!
//! Both carry the proto field path, so that a control plane (or a person) finds the place without reading prose.
//! Notes are bounded: equal notes at sibling places count up instead of piling up.

use std::{collections::BTreeMap, fmt};

/// Why a resource was refused. Nothing of that resource takes effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Reject {
    /// Full proto name of the resource, `envoy.config.listener.v3.Listener`.
    pub kind: Box<str>,
    /// The resource's name, as far as it could be read.
    pub resource: Box<str>,
    /// Field path inside the resource, `filter_chains[2].filters[0].typed_config.route_config`.
    pub path: String,
    pub reason: String,
}

impl Reject {
    pub(crate) fn named(mut self, resource: &str) -> Self {
        self.resource = resource.into();
        self
    }

    pub(crate) fn at(mut self, path: &str) -> Self {
        self.path = join(path, &self.path);
        self
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.resource.is_empty() {
            write!(f, "{}: ", self.resource)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)
    }
}

/// How serious it is that something was accepted without effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoteKind {
    /// The operator asked for something this release does not do.
    Unsupported,
    /// It has no meaning here: statistics naming, tuning of Envoy's internals.
    Harmless,
    /// It works, but Envoy's API calls it deprecated.
    Deprecated,
}

impl NoteKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unsupported => "unsupported",
            Self::Harmless => "harmless",
            Self::Deprecated => "deprecated",
        }
    }
}

/// One remark about accepted configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub kind: NoteKind,
    /// The first place where it was seen.
    pub path: String,
    pub reason: String,
    /// At how many places that differ only in indexes it was seen.
    pub count: u32,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.path, self.reason, self.kind.as_str())?;
        if self.count > 1 { write!(f, " at {} places", self.count) } else { Ok(()) }
    }
}

/// Distinct notes kept; more are only counted.
const MAX_NOTES: usize = 512;

/// The notes of one or several resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// By the path without indexes, and the reason.
    notes: BTreeMap<(String, String), Note>,
    dropped: u64,
}

impl Notes {
    pub fn iter(&self) -> impl Iterator<Item = &Note> {
        self.notes.values()
    }

    pub fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    pub fn len(&self) -> usize {
        self.notes.len()
    }

    /// Notes that did not fit any more.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    pub fn contains(&self, path: &str, kind: NoteKind) -> bool {
        self.iter().any(|n| n.path == path && n.kind == kind)
    }

    /// Adds all of `other`, each path below `prefix`.
    pub fn absorb(&mut self, prefix: &str, other: Notes) {
        for note in other.notes.into_values() {
            let path = join(prefix, &note.path);
            let count = note.count;
            self.push(note.kind, path, note.reason, count);
        }
        self.dropped += other.dropped;
    }

    pub(crate) fn push(&mut self, kind: NoteKind, path: String, reason: String, count: u32) {
        let key = (shape(&path), reason.clone());
        if let Some(known) = self.notes.get_mut(&key) {
            known.count = known.count.saturating_add(count);
        } else if self.notes.len() < MAX_NOTES {
            self.notes.insert(key, Note { kind, path, reason, count });
        } else {
            self.dropped += u64::from(count);
        }
    }
}

/// `a` and `b` as one path.
pub(crate) fn join(a: &str, b: &str) -> String {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => b.to_owned(),
        (_, true) => a.to_owned(),
        _ => format!("{a}.{b}"),
    }
}

/// The path with everything between brackets removed.
fn shape(path: &str) -> String {
    let mut depth = 0u32;
    path.chars()
        .filter(|c| match c {
            '[' => {
                depth += 1;
                false
            }
            ']' => {
                depth = depth.saturating_sub(1);
                false
            }
            _ => depth == 0,
        })
        .collect()
}
