//! What the configuration directory holds, as two hashes: a cheap one over `stat` and the true one over contents.
//!
//! Walks as the model's loader does: `*.yaml`, `*.yml`, `*.json`, no name beginning with a dot, links followed. What
//! cannot be read is part of the hash too, so its becoming readable is a change.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{Context, SHA256};

use crate::server::source::hex;

const MAX_DEPTH: usize = 16;
const MAX_FILES: usize = 20_000;
/// Bytes of one file that count; the loader refuses larger files.
const MAX_FILE: u64 = 16 << 20;

/// One look at the directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scan {
    pub files: Vec<PathBuf>,
    /// Real paths of all directories seen: what must be watched.
    pub directories: BTreeSet<PathBuf>,
    /// Changes whenever a file's inode, size or times do.
    pub stat: String,
    /// Some file holds nothing: either it is about to be written, or somebody cut it.
    pub hollow: bool,
}

/// Whether the loader reads a file of that name.
pub(super) fn is_wanted(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
}

impl Scan {
    pub(super) fn of(dir: &Path) -> Self {
        let mut scan = Self { files: Vec::new(), directories: BTreeSet::new(), stat: String::new(), hollow: false };
        let mut context = Context::new(&SHA256);
        scan.directory(dir, 0, &mut context);
        scan.stat = hex(&context.finish().as_ref()[..16]);
        scan
    }

    fn directory(&mut self, dir: &Path, depth: usize, context: &mut Context) {
        let real = match fs::canonicalize(dir) {
            Ok(real) => real,
            Err(e) => return error(context, dir, &e),
        };
        if depth > MAX_DEPTH || !self.directories.insert(real) {
            return;
        }
        let entries =
            fs::read_dir(dir).and_then(|all| all.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>());
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(e) => return error(context, dir, &e),
        };
        entries.sort();
        for path in entries {
            if path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b".")) {
                continue;
            }
            let wanted = is_wanted(&path);
            match fs::metadata(&path) {
                Ok(meta) if meta.is_dir() => self.directory(&path, depth + 1, context),
                Ok(meta) if wanted && self.files.len() < MAX_FILES => {
                    context.update(path.as_os_str().as_encoded_bytes());
                    for number in [meta.dev(), meta.ino(), meta.size()] {
                        context.update(&number.to_le_bytes());
                    }
                    for number in [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()] {
                        context.update(&number.to_le_bytes());
                    }
                    self.hollow |= meta.is_file() && meta.size() == 0;
                    self.files.push(path);
                }
                Ok(_) => {}
                Err(e) if wanted => {
                    error(context, &path, &e);
                    self.files.push(path);
                }
                Err(_) => {}
            }
        }
    }

    /// Hash over names (relative to `dir`) and contents: equal on any machine that holds the same files.
    pub(super) fn content(&self, dir: &Path) -> String {
        let mut context = Context::new(&SHA256);
        for path in &self.files {
            let name = path.strip_prefix(dir).unwrap_or(path).as_os_str().as_encoded_bytes();
            context.update(&(name.len() as u64).to_le_bytes());
            context.update(name);
            match read(path) {
                Ok(bytes) => {
                    context.update(&(bytes.len() as u64).to_le_bytes());
                    context.update(&bytes);
                }
                Err(e) => error(&mut context, path, &e),
            }
        }
        hex(&context.finish().as_ref()[..16])
    }
}

/// Content hash of `dir`, as `outriggerctl wait --config` compares it with what is served.
pub fn content_hash(dir: &Path) -> String {
    Scan::of(dir).content(dir)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        // A FIFO would block for ever.
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn error(context: &mut Context, path: &Path, error: &io::Error) {
    context.update(b"unreadable");
    context.update(path.as_os_str().as_encoded_bytes());
    context.update(error.kind().to_string().as_bytes());
}
