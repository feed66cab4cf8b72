//! The file: in a folder of its own that nobody else may enter, replaced as a whole or not at all, one writer at a time.
//!
//! What was checked is what is used: everything goes through the descriptor of the folder. Blocks.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, BufWriter, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg, OFlag, openat, renameat},
    sys::stat::{Mode, fchmod, mkdirat},
    unistd::{UnlinkatFlags, geteuid, unlinkat},
};

use super::{super::store::Decode, Owner, Restorable, SavedConfig, format};

/// Below the configured folder, which is often a volume that others may write.
const FOLDER: &str = "outrigger";
const NAME: &str = "last-good.bin";
/// One name is enough: only who holds the lock writes, and what a dead process left is in nobody's way.
const TEMPORARY: &str = "last-good.bin.new";
/// More than any mesh: a larger file is not ours.
const LARGEST: u64 = 1 << 30;
/// How long another process may take that writes here, such as the predecessor of this one.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is kept for `owner`; `None` when there is nothing.
pub(in crate::xds) fn load(
    config: &SavedConfig,
    owner: &Owner,
    decode: Decode,
    now: SystemTime,
) -> Option<Result<Restorable, String>> {
    let bytes = match Folder::open(&config.dir, false).and_then(|folder| folder.read()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        other => other.map_err(|e| e.to_string()),
    };
    let restorable = bytes.and_then(|bytes| format::read(&bytes, owner, config.max_age, now, decode));
    Some(restorable.map_err(|reason| format!("{}: {reason}", config.dir.join(FOLDER).join(NAME).display())))
}

/// Why a file was not replaced.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("{0}")]
    NotWritten(io::Error),
    /// An older configuration may let in more than the one in force.
    #[error("{0}; and the older file cannot be removed: {1}")]
    StillThere(io::Error, io::Error),
}

/// Replaces what is kept below `dir` by what `content` writes. What cannot be replaced is removed, if it is `outdated`.
pub(super) fn replace(
    dir: &Path,
    outdated: bool,
    content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), Failed> {
    let folder = match Folder::open(dir, true).and_then(Folder::locked) {
        Ok(folder) => folder,
        Err(error) => return Err(remove(dir, error, outdated)),
    };
    let written = folder.write(content);
    written.map_err(|error| {
        let _ = folder.remove(TEMPORARY);
        match outdated.then(|| folder.remove(NAME)) {
            None | Some(Ok(())) => Failed::NotWritten(error),
            Some(Err(other)) => Failed::StillThere(error, other),
        }
    })
}

/// Removes what is kept below `dir`, because of `error`.
pub(super) fn remove(dir: &Path, error: io::Error, outdated: bool) -> Failed {
    let removed = outdated.then(|| match Folder::open(dir, false) {
        Ok(folder) => folder.remove(NAME),
        // What is no folder of ours is not read either.
        Err(_) => Ok(()),
    });
    match removed {
        None | Some(Ok(())) => Failed::NotWritten(error),
        Some(Err(other)) => Failed::StillThere(error, other),
    }
}

/// The folder that is only ours.
struct Folder {
    file: File,
    /// Of another descriptor of the same open file.
    _lock: Option<Flock<File>>,
}

impl Folder {
    fn open(dir: &Path, create: bool) -> io::Result<Self> {
        if create && !dir.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let folder = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
        let above = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(dir)?;
        if create {
            match mkdirat(&above, FOLDER, Mode::S_IRWXU) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // No link: it may lead to where others write.
        let file = File::from(openat(&above, FOLDER, folder | OFlag::O_NOFOLLOW, Mode::empty())?);
        let meta = file.metadata()?;
        let own = geteuid().as_raw();
        if meta.uid() != own {
            return refuse(format!("{FOLDER} belongs to user {}, not to {own}", meta.uid()));
        }
        if meta.mode() & 0o077 != 0 {
            if !create {
                return refuse(format!("others may enter {FOLDER} (mode {:o})", meta.mode() & 0o777));
            }
            // Whoever could enter may have left what is in it.
            fchmod(&file, Mode::S_IRWXU)?;
            let folder = Self { file, _lock: None };
            folder.remove(NAME)?;
            return Ok(folder);
        }
        Ok(Self { file, _lock: None })
    }

    /// Waits for whoever writes here; the lock ends with the folder.
    fn locked(self) -> io::Result<Self> {
        let until = Instant::now() + PATIENCE;
        let mut file = self.file.try_clone()?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Self { _lock: Some(lock), ..self }),
                Err((back, Errno::EWOULDBLOCK)) if Instant::now() < until => file = back,
                Err((_, error)) => return Err(error.into()),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = File::from(openat(&self.file, NAME, flags, Mode::empty())?);
        let meta = file.metadata()?;
        if !meta.is_file() {
            return refuse("it is no regular file".to_owned());
        }
        // Who may write it decides what is let in.
        let own = geteuid().as_raw();
        if meta.uid() != own {
            return refuse(format!("it belongs to user {}, not to {own}", meta.uid()));
        }
        if meta.mode() & 0o022 != 0 {
            return refuse(format!("others may write it (mode {:o})", meta.mode() & 0o777));
        }
        if meta.len() > LARGEST {
            return refuse(format!("it has {} bytes", meta.len()));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
        file.take(LARGEST).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Returns when it is on the disk.
    fn write(&self, content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
        self.remove(TEMPORARY)?;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let file = File::from(openat(&self.file, TEMPORARY, flags, mode)?);
        // Whatever the umask says.
        fchmod(&file, mode)?;
        let mut out = BufWriter::with_capacity(64 << 10, file);
        content(&mut out)?;
        out.flush()?;
        out.get_ref().sync_all()?;
        renameat(&self.file, TEMPORARY, &self.file, NAME)?;
        self.file.sync_all()
    }

    /// It is gone for good, whether or not it was there.
    fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.file, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => self.file.sync_all(),
            Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn refuse<T>(reason: String) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
}
