//! The operator's documents, read and validated.

use std::{fmt, path::PathBuf};

/// The validated, immutable state of the mesh as one load of the configuration saw it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct World {}

/// Why a load was refused: file, document (counted from 1), path inside the document, reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub file: PathBuf,
    pub document: usize,
    pub path: String,
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: document {}: {}: {}", self.file.display(), self.document, self.path, self.reason)
    }
}

/// Reads every `*.yaml`, `*.yml` and `*.json` below `dir`. All problems are returned, not only the first.
pub fn load(_dir: &std::path::Path) -> Result<World, Vec<Problem>> {
    Ok(World::default())
}
