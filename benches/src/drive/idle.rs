//! Connections that said one thing and then nothing.

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, ensure};

use super::http1;

/// Opens `count` connections, each with one answered request; dropping them closes them. Call within the Pod.
pub(crate) fn open(to: SocketAddr, count: usize, request: &[u8]) -> anyhow::Result<Vec<TcpStream>> {
    raise_open_files()?;
    let mut streams = Vec::with_capacity(count);
    for n in 0..count {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(10))
            .with_context(|| format!("connection {n} of {count}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let status = http1::on(&mut stream, request).with_context(|| format!("request on connection {n}"))?;
        ensure!(status == 200, "connection {n} was answered with status {status}");
        streams.push(stream);
    }
    Ok(streams)
}

/// How many of the connections the other side has closed.
pub(crate) fn closed(streams: &[TcpStream]) -> usize {
    let is_closed = |stream: &&TcpStream| {
        let _ = stream.set_nonblocking(true);
        !matches!(stream.peek(&mut [0]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
    };
    streams.iter().filter(is_closed).count()
}

fn raise_open_files() -> anyhow::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}
