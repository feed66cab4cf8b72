use std::{io::Cursor, os::unix::fs::PermissionsExt, time::UNIX_EPOCH};

use outrigger_wire::pb::google::protobuf::Any;

use super::{disk::Failed, *};
use crate::{
    ir::ConfigSource,
    xds::{
        decode::Notes,
        store::Keeping,
        testing::{decode, eds, endpoints, listener, routes},
    },
};

pub(super) fn owner() -> Owner {
    Owner { id: "n".into(), cluster: "c".into(), digest: vec![7] }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

const AGE: Duration = Duration::from_secs(100);

pub(super) fn entry(name: &str, any: Any) -> Keeping {
    let kind = Kind::from_type_url(&any.type_url).unwrap();
    // What is not understood has to get into a file somehow.
    let resource = decode(&any, &mut Notes::default());
    let resource = resource.unwrap_or_else(|_| decode(&endpoints("x", 1), &mut Notes::default()).unwrap());
    let (source, version) = (ConfigSource::Ads, "1".into());
    Keeping { kind, source, name: name.into(), version, resource, raw: any.value.into() }
}

/// Out of order on purpose.
fn entries() -> Vec<Keeping> {
    vec![
        entry("r", routes("r", "a")),
        entry("l", listener("l", "rds=r")),
        entry("a", endpoints("a", 1)),
        entry("a", eds("a", 1, "")),
        Keeping { source: ConfigSource::Grpc { cluster: "x".into(), delta: true }, ..entry("b", endpoints("b", 1)) },
    ]
}

fn encode(owner: &Owner, entries: &[Keeping], last_word: SystemTime) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    format::write(owner, entries, last_word, &mut file).unwrap();
    file.into_inner()
}

fn read(file: &[u8], owner: &Owner, now: u64) -> Result<Restorable, String> {
    format::read(file, owner, AGE, at(now), decode)
}

#[test]
fn what_is_written_is_read_in_the_order_of_use() {
    let file = encode(&owner(), &entries(), at(1000));
    let read = read(&file, &owner(), 1100).unwrap();
    assert_eq!(read.last_word, at(1000));
    let names = |place: usize| read.kept[place].iter().map(|k| (k.source.clone(), &**k.resource.name())).collect();
    let got: [Vec<_>; 4] = std::array::from_fn(names);
    let other = ConfigSource::Grpc { cluster: "x".into(), delta: true };
    let ads = || ConfigSource::Ads;
    assert_eq!(got, [vec![(ads(), "a")], vec![(ads(), "a"), (other, "b")], vec![(ads(), "l")], vec![(ads(), "r")]]);
    assert_eq!(*read.kept[0][0].raw, *eds("a", 1, "").value);
}

#[test]
fn a_file_that_is_not_exactly_what_was_written_is_refused() {
    let file = encode(&owner(), &entries(), at(1000));
    for i in 0..file.len() {
        let mut changed = file.clone();
        changed[i] ^= 1;
        assert!(read(&changed, &owner(), 1000).is_err(), "byte {i}");
        assert!(read(&file[..i], &owner(), 1000).is_err(), "cut at {i}");
    }
    let longer = [&file[..], &[0]].concat();
    assert!(read(&longer, &owner(), 1000).unwrap_err().contains("checksum"));
    let mut other = file;
    other[11] = 9;
    assert!(read(&other, &owner(), 1000).unwrap_err().contains("format is 9"));
}

#[test]
fn age_clock_node_and_content_are_judged() {
    let file = encode(&owner(), &entries(), at(1000));
    assert!(read(&file, &owner(), 1101).unwrap_err().contains("101 s old"));
    assert!(read(&file, &owner(), 900).is_ok(), "a clock may be a little off");
    assert!(read(&file, &owner(), 600).unwrap_err().contains("clock"));
    for other in [Owner { id: "m".into(), ..owner() }, Owner { cluster: "d".into(), ..owner() }] {
        assert!(read(&file, &other, 1000).unwrap_err().contains("another node"));
    }
    let other = Owner { digest: vec![8], ..owner() };
    assert!(read(&file, &other, 1000).unwrap_err().contains("was another one"));
    let mut twice = entries();
    twice.push(entry("a", eds("a", 2, "")));
    assert!(read(&encode(&owner(), &twice, at(1000)), &owner(), 1000).unwrap_err().contains("two resources"));
    // One resource that this program does not take spoils all: without it the rest may let in more.
    let mut with_bad = entries();
    with_bad.push(entry("bad", listener("bad", "")));
    let refused = read(&encode(&owner(), &with_bad, at(1000)), &owner(), 1000).unwrap_err();
    assert!(refused.contains("bad by name"), "{refused}");
    with_bad.pop();
    with_bad.push(entry("other", listener("l2", "")));
    let refused = read(&encode(&owner(), &with_bad, at(1000)), &owner(), 1000).unwrap_err();
    assert!(refused.contains("named `other`"), "{refused}");
}

/// A folder, what is read from it at 1000, and what writes to it.
struct Disk(tempfile::TempDir, SavedConfig);

impl Disk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = SavedConfig { dir: dir.path().join("a/b"), max_age: AGE, patience: Duration::ZERO };
        Self(dir, config)
    }

    fn load(&self) -> Option<Result<Restorable, String>> {
        disk::load(&self.1, &owner(), decode, at(1000))
    }

    fn write(&self) -> Result<(), Failed> {
        disk::replace(&self.1.dir, true, |out| format::write(&owner(), &entries(), at(1000), out))
    }

    fn folder(&self) -> PathBuf {
        self.1.dir.join("outrigger")
    }

    fn file(&self) -> PathBuf {
        self.folder().join("last-good.bin")
    }
}

fn chmod(path: &std::path::Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn only_a_file_that_nobody_else_could_write_is_read() {
    let disk = Disk::new();
    assert!(disk.load().is_none());
    for _ in 0..2 {
        disk.write().unwrap();
    }
    let path = disk.file();
    assert_eq!((mode(&path), mode(&disk.folder())), (0o600, 0o700));
    assert_eq!(std::fs::read_dir(disk.folder()).unwrap().count(), 1, "nothing is left over");
    assert_eq!(disk.load().unwrap().unwrap().kept.iter().flatten().count(), 5);
    for mode in [0o620, 0o602] {
        chmod(&path, mode);
        assert!(disk.load().unwrap().unwrap_err().contains("others may write"));
    }
    chmod(&path, 0o600);
    let elsewhere = disk.0.path().join("elsewhere");
    std::fs::rename(&path, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    assert!(disk.load().unwrap().is_err(), "a link");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(disk.load().unwrap().is_err(), "a folder");
}

#[test]
fn only_a_folder_that_nobody_else_may_enter_is_used() {
    let disk = Disk::new();
    disk.write().unwrap();
    // The volume may be anybody's: what is in it may not.
    chmod(&disk.1.dir, 0o777);
    assert!(disk.load().unwrap().is_ok());
    for mode in [0o770, 0o705, 0o701] {
        chmod(&disk.folder(), mode);
        assert!(disk.load().unwrap().unwrap_err().contains("others may enter"), "{mode:o}");
    }
    // What others could have left in it is gone as soon as it is ours alone.
    let failed = disk::replace(&disk.1.dir, false, |_| Err(std::io::Error::other("full")));
    assert!(failed.unwrap_err().to_string().contains("full"));
    assert_eq!((disk.load().is_none(), mode(&disk.folder())), (true, 0o700));
    disk.write().unwrap();
    let elsewhere = disk.0.path().join("elsewhere");
    std::fs::rename(disk.folder(), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, disk.folder()).unwrap();
    assert!(disk.load().unwrap().is_err() && disk.write().is_err(), "a link");
}

#[test]
fn what_cannot_be_replaced_is_removed() {
    let disk = Disk::new();
    let broken = |outdated| {
        disk::replace(&disk.1.dir, outdated, |out| {
            std::io::Write::write_all(out, &[0; 100_000])?;
            Err(std::io::Error::other("full"))
        })
    };
    disk.write().unwrap();
    assert!(broken(false).is_err());
    assert!(disk.load().unwrap().is_ok(), "what is still right stays");
    assert_eq!(std::fs::read_dir(disk.folder()).unwrap().count(), 1, "nothing is left over");
    assert!(matches!(broken(true), Err(Failed::NotWritten(_))));
    assert!(disk.load().is_none(), "an older one may let in more");
    disk.write().unwrap();
    let why = disk::remove(&disk.1.dir, std::io::Error::other("a key"), true);
    assert!(why.to_string() == "a key" && disk.load().is_none());
    // Of a process that died over it.
    std::fs::write(disk.folder().join("last-good.bin.new"), "half").unwrap();
    disk.write().unwrap();
    assert_eq!(std::fs::read_dir(disk.folder()).unwrap().count(), 1);
}

#[test]
fn processes_write_one_after_the_other() {
    let disk = std::sync::Arc::new(Disk::new());
    disk.write().unwrap();
    let (inside, entered) = std::sync::mpsc::channel();
    let (leave, left) = std::sync::mpsc::channel::<()>();
    let first = {
        let disk = disk.clone();
        std::thread::spawn(move || {
            disk::replace(&disk.1.dir, true, |out| {
                inside.send(()).unwrap();
                left.recv().unwrap();
                format::write(&owner(), &entries()[..1], at(1000), out)
            })
        })
    };
    entered.recv().unwrap();
    let second = std::thread::spawn({
        let disk = disk.clone();
        move || disk.write()
    });
    leave.send(()).unwrap();
    first.join().unwrap().unwrap();
    second.join().unwrap().unwrap();
    assert_eq!(disk.load().unwrap().unwrap().kept.iter().flatten().count(), 5, "the last one counts");
}
