use std::{fs, path::Path};

use super::*;
use crate::{
    ir::secret::{Certificate, CommonTls, DataSource, DownstreamTls, Validation, ValidationSource},
    tls::{ServerContext, testing::*},
};

fn write(directory: &Path, certificate: &Certificate) {
    fs::write(directory.join("cert.pem"), bytes(&certificate.chain)).unwrap();
    fs::write(directory.join("key.pem"), bytes(&certificate.key)).unwrap();
}

fn from_files(directory: &Path, watched: Option<&Path>) -> CommonTls {
    let certificate = Certificate {
        chain: DataSource::File(directory.join("cert.pem")),
        key: DataSource::File(directory.join("key.pem")),
        watched_directory: watched.map(Into::into),
    };
    common(Some(&Arc::new(certificate)), None)
}

fn context(common: CommonTls, secrets: &Arc<Secrets>) -> Arc<ServerContext> {
    let config = DownstreamTls { common, require_client_certificate: false, resumption: true };
    ServerContext::new(Arc::new(config), secrets.clone()).unwrap()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

async fn served(context: &ServerContext) -> Vec<Box<str>> {
    handshake(&client(None, None), context).await.0.unwrap().1.uri_sans.clone()
}

#[tokio::test]
async fn rewritten_files_are_reloaded_when_they_fit_together() {
    let ca = Ca::new("root");
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &ca.spiffe("one"));
    let secrets = Arc::new(Secrets::default());
    let watcher = tokio::spawn(FileWatcher::new(secrets.clone()).run());
    // Registered while the watcher runs, as contexts of later updates are.
    let context = context(from_files(directory.path(), None), &secrets);
    assert_eq!(served(&context).await, [spiffe("one").into()]);
    let two = ca.spiffe("two");
    until("the directory is watched", || {
        // Renamed: a look in mid-write would find another fault, an empty file.
        fs::write(directory.path().join("new"), bytes(&two.chain)).unwrap();
        fs::rename(directory.path().join("new"), directory.path().join("cert.pem")).unwrap();
        context.problem().is_some()
    })
    .await;
    assert!(context.problem().unwrap().contains("does not belong"));
    assert_eq!(served(&context).await, [spiffe("one").into()], "half a pair changes nothing");
    fs::write(directory.path().join("key.pem"), bytes(&two.key)).unwrap();
    until("the pair is complete", || context.problem().is_none() && context.generation() == 2).await;
    assert_eq!(served(&context).await, [spiffe("two").into()]);
    watcher.abort();
}

/// The way Kubernetes mounts secrets: files link into `..data`, which is replaced by a rename.
#[tokio::test]
async fn a_data_directory_is_swapped_at_once() {
    let ca = Ca::new("root");
    let mount = tempfile::tempdir().unwrap();
    let mount = mount.path();
    let publish = |name: &str, certificate: &Certificate| {
        fs::create_dir(mount.join(name)).unwrap();
        write(&mount.join(name), certificate);
        std::os::unix::fs::symlink(name, mount.join("..tmp")).unwrap();
        fs::rename(mount.join("..tmp"), mount.join("..data")).unwrap();
    };
    publish("..v1", &ca.spiffe("one"));
    for file in ["cert.pem", "key.pem"] {
        std::os::unix::fs::symlink(format!("..data/{file}"), mount.join(file)).unwrap();
    }
    let secrets = Arc::new(Secrets::default());
    let context = context(from_files(mount, Some(mount)), &secrets);
    let mut watcher = FileWatcher::new(secrets.clone());
    watcher.watch(&watcher.dependents());
    assert!(watcher.watched.contains(mount));
    let watcher = tokio::spawn(watcher.run());
    publish("..v2", &ca.spiffe("two"));
    until("the swap is seen", || context.generation() == 2).await;
    assert_eq!(served(&context).await, [spiffe("two").into()]);
    assert_eq!(context.failures(), 0, "never half a pair");
    watcher.abort();
}

#[tokio::test]
async fn trust_files_are_watched_too_and_forgotten_with_their_context() {
    let ca = Ca::new("root");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    fs::write(&path, &ca.pem).unwrap();
    let secrets = Arc::new(Secrets::default());
    let mut common = common(Some(&ca.spiffe("one")), None);
    let trust = Validation { trusted_ca: Some(DataSource::File(path.clone())), ..Validation::default() };
    common.validation = ValidationSource::Static(Arc::new(trust));
    let context = context(common, &secrets);
    let mut watcher = FileWatcher::new(secrets.clone());
    watcher.watch(&watcher.dependents());
    assert_eq!(watcher.watched.len(), 1);
    let other = Ca::new("other");
    fs::write(&path, &other.pem).unwrap();
    watcher.dependents().iter().for_each(|d| d.refresh());
    assert_eq!(context.generation(), 2);
    let stranger = client(Some(&ca.spiffe("x")), None);
    assert!(handshake(&stranger, &context).await.1.is_err());
    assert!(handshake(&client(Some(&other.spiffe("x")), None), &context).await.1.is_ok());
    drop(context);
    watcher.watch(&watcher.dependents());
    assert!(watcher.watched.is_empty());
}
