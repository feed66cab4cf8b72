//! The state directory: where the root key, the root certificate and the token key live.
//!
//! Owns permissions and atomic, create-once files; knows nothing of their contents.
//! Invariant: a secret is read or written only if the directory and the file belong to this user and nobody else
//! may read or write them. Checks run on the opened file, so a swap between check and read gains nothing.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Largest file read from the state directory.
const MAX_FILE: u64 = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: mode {mode:04o} lets others in; run: chmod {wanted:o} {}", path.display(), path.display())]
    Permissions { path: PathBuf, mode: u32, wanted: u32 },
    #[error("{}: owned by uid {owner}, but this process runs as uid {user}", path.display())]
    Owner { path: PathBuf, owner: u32, user: u32 },
    #[error("{}: {reason}", path.display())]
    Corrupt { path: PathBuf, reason: String },
}

/// An opened, checked state directory.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// Opens `path`, creating it with mode 0700. Looser permissions or a foreign owner are refused.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let at = |source| Error::Io { path: path.to_owned(), source };
        match DirBuilder::new().recursive(true).mode(0o700).create(path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(at(e)),
        }
        let meta = fs::metadata(path).map_err(at)?;
        if !meta.is_dir() {
            return Err(Error::Corrupt { path: path.to_owned(), reason: "not a directory".into() });
        }
        check(path, &meta, 0o700)?;
        Ok(Self { path: path.to_owned() })
    }

    /// Path of `name` inside the directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Reads a secret file; `None` if there is none.
    pub fn read_secret(&self, name: &str) -> Result<Option<String>, Error> {
        self.read(name, true)
    }

    /// Reads a public file; `None` if there is none.
    pub fn read_public(&self, name: &str) -> Result<Option<String>, Error> {
        self.read(name, false)
    }

    fn read(&self, name: &str, secret: bool) -> Result<Option<String>, Error> {
        let path = self.file(name);
        let at = |source| Error::Io { path: path.clone(), source };
        // O_NOFOLLOW: a link would move the secret out of the directory whose permissions were checked.
        let file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(at(e)),
        };
        let meta = file.metadata().map_err(at)?;
        if secret {
            check(&path, &meta, 0o600)?;
        }
        if meta.len() > MAX_FILE {
            return Err(Error::Corrupt { path, reason: format!("larger than {MAX_FILE} bytes") });
        }
        let mut text = String::new();
        file.take(MAX_FILE).read_to_string(&mut text).map_err(at)?;
        Ok(Some(text))
    }

    /// Creates `name` with `content` unless it exists; returns what the file holds afterwards.
    ///
    /// Written to a temporary file, synced, then linked into place: of two racing processes one wins and both
    /// read the winner's content; a crash leaves either nothing or the whole file.
    pub fn create_once(&self, name: &str, content: &str, mode: u32) -> Result<String, Error> {
        let path = self.file(name);
        let temporary = self.file(&format!(".{name}.{}.{:016x}", std::process::id(), fastrand::u64(..)));
        let at = |source| Error::Io { path: path.clone(), source };
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)
            .and_then(|mut file| file.write_all(content.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| match fs::hard_link(&temporary, &path) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
                _ => Ok(()),
            });
        let cleaned = fs::remove_file(&temporary);
        written.and(cleaned).map_err(at)?;
        File::open(&self.path).and_then(|dir| dir.sync_all()).map_err(at)?;
        let held = if mode & 0o077 == 0 { self.read_secret(name)? } else { self.read_public(name)? };
        held.ok_or_else(|| Error::Corrupt { path: path.clone(), reason: "vanished while being created".into() })
    }
}

impl StateDir {
    /// Puts `content` in the place of what `name` holds, in one step that a crash leaves done or undone.
    pub fn replace(&self, name: &str, content: &str, mode: u32) -> Result<(), Error> {
        let path = self.file(name);
        let temporary = self.file(&format!(".{name}.{}.{:016x}", std::process::id(), fastrand::u64(..)));
        let at = |source| Error::Io { path: path.clone(), source };
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)
            .and_then(|mut file| file.write_all(content.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&temporary, &path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written.map_err(at)?;
        File::open(&self.path).and_then(|dir| dir.sync_all()).map_err(at)
    }

    /// Removes `name`, if it is there.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        match fs::remove_file(self.file(name)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Io { path: self.file(name), source }),
            _ => Ok(()),
        }
    }
}

fn check(path: &Path, meta: &fs::Metadata, wanted: u32) -> Result<(), Error> {
    let mode = meta.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Error::Permissions { path: path.to_owned(), mode, wanted });
    }
    let user = nix::unistd::geteuid().as_raw();
    if meta.uid() != user {
        return Err(Error::Owner { path: path.to_owned(), owner: meta.uid(), user });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> (tempfile::TempDir, StateDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("state")).unwrap();
        (dir, state)
    }

    #[test]
    fn a_new_directory_is_private_and_loosening_it_is_refused() {
        let (dir, _) = open();
        let path = dir.path().join("state");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        let error = StateDir::open(&path).unwrap_err();
        assert!(error.to_string().contains("chmod 700"), "{error}");
    }

    #[test]
    fn the_first_content_wins() {
        let (_dir, state) = open();
        assert_eq!(state.create_once("key", "one", 0o600).unwrap(), "one");
        assert_eq!(state.create_once("key", "two", 0o600).unwrap(), "one");
        let left: Vec<_> = fs::read_dir(&state.path).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["key"], "temporary files are gone");
    }

    #[test]
    fn a_readable_or_linked_secret_is_refused() {
        let (_dir, state) = open();
        state.create_once("key", "one", 0o600).unwrap();
        fs::set_permissions(state.file("key"), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(state.read_secret("key"), Err(Error::Permissions { .. })));
        fs::set_permissions(state.file("key"), fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(state.file("key"), state.file("link")).unwrap();
        assert!(matches!(state.read_secret("link"), Err(Error::Io { .. })));
        assert_eq!(state.read_secret("none").unwrap(), None);
    }
}
