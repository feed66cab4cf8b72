use std::{sync::mpsc, thread, time::Duration};

use nix::{sys::stat::Mode, unistd::mkfifo};

use super::*;

#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let (said, heard) = mpsc::channel();
    thread::spawn(move || said.send(read(&DataSource::File(path))));
    let error = heard.recv_timeout(Duration::from_secs(60)).expect("it waits for a writer").unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
}
