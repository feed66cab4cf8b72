use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::*;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

async fn listener(at: &str, options: &ListenOptions) -> tokio::net::TcpListener {
    tokio::net::TcpListener::from_std(bind_listener(address(at), options).unwrap()).unwrap()
}

#[tokio::test]
async fn without_redirection_the_destination_is_the_local_address() {
    let dual = listener("[::]:0", &ListenOptions::default()).await;
    let port = dual.local_addr().unwrap().port();
    for ip in ["127.0.0.1", "[::1]"] {
        let target = address(&format!("{ip}:{port}"));
        let (client, accepted) = tokio::join!(TcpStream::connect(target), dual.accept());
        let accepted = accepted.unwrap().0;
        assert!(accepted.nodelay().unwrap(), "as inherited");
        assert_eq!(original_dst(&accepted, canonical(accepted.local_addr().unwrap())).unwrap(), target);
        drop(client);
    }
}

#[tokio::test]
async fn several_workers_share_a_port_and_v6only_leaves_v4_free() {
    let shared = ListenOptions { reuse_port: true, backlog: 5, ..Default::default() };
    let first = listener("127.0.0.1:0", &shared).await;
    let at = first.local_addr().unwrap();
    bind_listener(at, &shared).unwrap();
    assert_eq!(bind_listener(at, &ListenOptions::default()).unwrap_err().kind(), io::ErrorKind::AddrInUse);

    let v6 = listener("[::]:0", &ListenOptions { v6only: true, ..Default::default() }).await;
    let port = v6.local_addr().unwrap().port();
    bind_listener(address(&format!("0.0.0.0:{port}")), &ListenOptions::default()).unwrap();
    let free = ListenOptions { freebind: true, ..Default::default() };
    assert!(bind_listener(address("192.0.2.1:0"), &ListenOptions::default()).is_err());
    bind_listener(address("192.0.2.1:0"), &free).unwrap();
    bind_listener(address("[2001:db8::1]:0"), &free).unwrap();
}

#[tokio::test]
async fn connecting_from_a_chosen_address_with_options_set() {
    let keepalive =
        Keepalive { probes: Some(3), time: Some(Duration::from_secs(77)), interval: Some(Duration::from_secs(11)) };
    for (at, from) in [("127.0.0.1:0", "127.0.0.6:0"), ("[::1]:0", "[::1]:0")] {
        let target = listener(at, &ListenOptions::default()).await;
        let peer = target.local_addr().unwrap();
        let options =
            ConnectSocketOptions { bind: Some(address(from)), keepalive: Some(keepalive), ..Default::default() };
        let socket = connect_socket(peer, &options).unwrap();
        let (stream, accepted) = tokio::join!(socket.connect(peer), target.accept());
        let stream = stream.unwrap();
        assert_eq!(accepted.unwrap().1.ip(), address(from).ip());
        assert!(stream.nodelay().unwrap());
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(77));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(11));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
    }
    let mixed = ConnectSocketOptions { bind: Some(address("[::1]:0")), ..Default::default() };
    assert_eq!(connect_socket(address("127.0.0.1:1"), &mixed).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    let foreign = ConnectSocketOptions { bind: Some(address("192.0.2.1:0")), ..Default::default() };
    assert!(connect_socket(address("127.0.0.1:1"), &foreign).is_err());
    connect_socket(address("127.0.0.1:1"), &ConnectSocketOptions { freebind: true, ..foreign }).unwrap();
}

#[tokio::test]
async fn unacknowledged_bytes_are_counted() {
    let target = listener("127.0.0.1:0", &ListenOptions::default()).await;
    let (near, far) = tokio::join!(TcpStream::connect(target.local_addr().unwrap()), target.accept());
    let (mut near, _far) = (near.unwrap(), far.unwrap().0);
    set_nodelay(&near).unwrap();
    assert_eq!(unacknowledged(&near).unwrap(), 0);
    while near.try_write(&[0; 1 << 16]).is_ok() {}
    assert!(unacknowledged(&near).unwrap() > 0, "more than the peer's window cannot be acknowledged");
    near.shutdown().await.unwrap();
}

#[test]
fn the_descriptor_limit_only_rises() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert_eq!(raise_fd_limit().unwrap(), hard.max(soft));
    assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
}
