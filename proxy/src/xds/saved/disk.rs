//! The file: read if nobody else can have written it, replaced as a whole or not at all.

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions, rename},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    time::SystemTime,
};

use super::{
    super::store::Decode,
    Restorable, SavedConfig,
    format::{self, Owner},
};

const NAME: &str = "last-good.bin";
const TEMPORARY: &str = "last-good.bin.new";
/// More than any mesh: a larger file is not ours.
const LARGEST: u64 = 1 << 30;

/// What is kept for `owner`; `None` when there is nothing. Blocks.
pub(in crate::xds) fn load(
    config: &SavedConfig,
    owner: &Owner,
    decode: Decode,
    now: SystemTime,
) -> Option<Result<Restorable, String>> {
    let path = config.dir.join(NAME);
    let bytes = match read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        other => other.map_err(|e| e.to_string()),
    };
    let restorable = bytes.and_then(|bytes| format::decode(&bytes, owner, config.max_age, now, decode));
    Some(restorable.map_err(|reason| format!("{}: {reason}", path.display())))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let meta = file.metadata()?;
    let refuse = |reason: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    if !meta.is_file() {
        return refuse("it is no regular file".to_owned());
    }
    // Who may write it decides what is let in.
    let own = nix::unistd::geteuid().as_raw();
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

/// Replaces what is kept in `dir`. Blocks until it is on the disk.
pub(super) fn replace(dir: &Path, bytes: &[u8]) -> io::Result<()> {
    if !dir.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let temporary = dir.join(TEMPORARY);
    // Of a process that died over it.
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    // Whatever the umask says.
    file.set_permissions(Permissions::from_mode(0o600))?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(error) = written {
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    rename(&temporary, dir.join(NAME))?;
    File::open(dir)?.sync_all()
}
