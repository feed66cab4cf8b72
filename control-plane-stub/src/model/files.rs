//! Finds and reads the files below the configuration directory, within bounds.
//!
//! Names starting with a dot are skipped: so a Kubernetes ConfigMap mount (`file -> ..data/file`, `..data -> ..2026/`)
//! is read once, through its visible links. Knows nothing of what the documents mean.

use std::{
    collections::HashSet,
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Problem,
    document::{self, Document},
};

const MAX_FILE_BYTES: u64 = 8 << 20;
const MAX_TOTAL_BYTES: u64 = 256 << 20;
const MAX_FILES: usize = 10_000;
const MAX_DEPTH: usize = 16;

/// All documents below `dir`, in the order of their file names.
pub(super) fn read(dir: &Path, problems: &mut Vec<Problem>) -> Vec<Document> {
    let mut walk = Walk { files: Vec::new(), seen: HashSet::new(), problems };
    walk.directory(dir, 0);
    let files = walk.files;
    let mut documents = Vec::new();
    let mut total = 0;
    for path in files {
        match text(&path) {
            Ok(text) => {
                total += text.len() as u64;
                if total > MAX_TOTAL_BYTES {
                    problems.push(of_file(&path, format!("the files together exceed {MAX_TOTAL_BYTES} bytes")));
                    break;
                }
                let file: Arc<Path> = path.as_path().into();
                document::parse(&file, &text, &mut documents, problems);
            }
            Err(reason) => problems.push(of_file(&path, reason)),
        }
    }
    documents
}

struct Walk<'a> {
    files: Vec<PathBuf>,
    /// Real paths of the directories entered, against loops of links.
    seen: HashSet<PathBuf>,
    problems: &'a mut Vec<Problem>,
}

impl Walk<'_> {
    fn directory(&mut self, dir: &Path, depth: usize) {
        if depth > MAX_DEPTH {
            return self.problems.push(of_file(dir, format!("more than {MAX_DEPTH} levels of directories")));
        }
        let entries = fs::canonicalize(dir).and_then(|real| {
            if !self.seen.insert(real) {
                return Ok(Vec::new());
            }
            fs::read_dir(dir)?.map(|entry| entry.map(|e| e.path())).collect::<Result<Vec<_>, _>>()
        });
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(e) => return self.problems.push(of_file(dir, format!("cannot be read: {e}"))),
        };
        entries.sort();
        for path in entries {
            let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            if hidden {
                continue;
            }
            let wanted = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
            match fs::metadata(&path) {
                Ok(meta) if meta.is_dir() => self.directory(&path, depth + 1),
                Ok(meta) if wanted && meta.is_file() => {
                    if self.files.len() == MAX_FILES {
                        return self.problems.push(of_file(&path, format!("more than {MAX_FILES} files")));
                    }
                    self.files.push(path);
                }
                Ok(_) if wanted => self.problems.push(of_file(&path, "is not a regular file".to_owned())),
                Ok(_) => {}
                Err(e) if wanted => self.problems.push(of_file(&path, format!("cannot be read: {e}"))),
                Err(_) => {}
            }
        }
    }
}

fn text(path: &Path) -> Result<String, String> {
    let file = fs::File::open(path).map_err(|e| format!("cannot be read: {e}"))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|e| format!("cannot be read: {e}"))?;
    if bytes.is_empty() {
        return Err(
            "is empty, as a file is that somebody is about to write: remove it, or put something in it".to_owned()
        );
    }
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("is larger than {MAX_FILE_BYTES} bytes: split it"));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

fn of_file(path: &Path, reason: String) -> Problem {
    Problem { file: path.to_owned(), document: 0, path: "(file)".to_owned(), reason }
}
