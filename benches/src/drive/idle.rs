//! Connections that said one thing and then nothing.

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, ensure};

use super::http1;

/// So many are opened at the same time: a proxy that is slow to answer would take minutes one by one.
const OPENERS: usize = 8;

/// Opens `count` connections, each with one answered request; dropping them closes them. Call within the Pod.
pub(crate) fn open(to: SocketAddr, count: usize, request: &[u8]) -> anyhow::Result<Vec<TcpStream>> {
    raise_open_files()?;
    std::thread::scope(|scope| {
        // Threads start in the network namespace of the one that starts them.
        let part = |opener: usize| count / OPENERS + usize::from(opener < count % OPENERS);
        let openers: Vec<_> =
            (0..OPENERS).map(|opener| scope.spawn(move || in_turn(to, part(opener), request))).collect();
        let mut streams = Vec::with_capacity(count);
        for opener in openers {
            streams.extend(opener.join().map_err(|_| anyhow::anyhow!("a thread that opens connections panicked"))??);
        }
        Ok(streams)
    })
}

fn in_turn(to: SocketAddr, count: usize, request: &[u8]) -> anyhow::Result<Vec<TcpStream>> {
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

/// As many as this process may have.
pub(crate) fn raise_open_files() -> anyhow::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn all_of_them_are_open_and_a_closed_one_is_seen() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let mut kept = Vec::new();
            for mut stream in listener.incoming().take(19).map(Result::unwrap) {
                let read = stream.read(&mut [0; 200]).unwrap();
                assert!(read > 0);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
                kept.push(stream);
            }
            kept
        });
        let streams = open(to, 19, &http1::request("GET", "/", "h", "")).unwrap();
        let kept = server.join().unwrap();
        assert_eq!((streams.len(), closed(&streams)), (19, 0));
        drop(kept);
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while closed(&streams) < 19 {
            assert!(std::time::Instant::now() < deadline, "closing shows");
            std::thread::yield_now();
        }
    }
}
