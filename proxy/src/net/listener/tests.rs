use super::*;
use crate::net::socket::{ListenOptions, bind_listener};

#[test]
fn exhaustion_backs_off_and_reports_once_per_interval() {
    let emfile = io::Error::from_raw_os_error(libc::EMFILE);
    let aborted = io::Error::from_raw_os_error(libc::ECONNABORTED);
    let start = Instant::now();
    let mut backoff = Backoff::default();
    assert_eq!(backoff.failure(&aborted, start), Some(1));
    assert_eq!(backoff.until, None, "one lost connection is no reason to wait");
    let mut pauses = Vec::new();
    for _ in 0..10 {
        assert_eq!(backoff.failure(&emfile, start), None);
        pauses.push(backoff.until.take().unwrap() - start);
    }
    assert_eq!(pauses[..3], [FIRST_PAUSE, FIRST_PAUSE * 2, FIRST_PAUSE * 4]);
    assert_eq!(pauses[9], LONGEST_PAUSE);
    assert_eq!(backoff.failure(&emfile, start + LOG_INTERVAL), Some(11), "none is left out of the count");
    backoff.success();
    backoff.failure(&emfile, start);
    assert_eq!(backoff.until.unwrap() - start, FIRST_PAUSE);
}

#[tokio::test]
async fn connections_and_their_peers() {
    let options = ListenOptions { reuse_port: true, ..Default::default() };
    let listener = bind_listener("[::]:0".parse().unwrap(), &options).unwrap();
    let mut acceptor = Acceptor::from_std(listener, |e| panic!("{e}")).unwrap();
    let port = acceptor.local_addr().unwrap().port();
    for ip in ["127.0.0.1", "::1"] {
        let ip: std::net::IpAddr = ip.parse().unwrap();
        let (client, (stream, peer)) = tokio::join!(TcpStream::connect((ip, port)), acceptor.accept());
        let client = client.unwrap();
        assert_eq!(peer, client.local_addr().unwrap(), "a mapped v4 peer is a v4 peer");
        assert_eq!(super::super::socket::canonical(stream.local_addr().unwrap()).ip(), ip);
    }
}
