use std::io::Write;

use super::*;

fn options() -> ListenOptions {
    ListenOptions { reuse_port: true, backlog: 7, transparent: true, freebind: false, v6only: true }
}

fn pair() -> (Channel, Channel) {
    let (one, other) = UnixStream::pair().unwrap();
    (Channel::new(one), Channel::new(other))
}

#[tokio::test]
async fn every_message_arrives_as_it_was_sent() {
    let address = "[::1]:15006".parse().unwrap();
    let messages = [
        Message::Hello { version: 1, program: "outrigger-proxy".into() },
        Message::Refused("no".into()),
        Message::Offer { version: 1, epoch: 3, parts: 2 },
        Message::Listener { address, bound: address, options: options(), sockets: 0 },
        Message::Server(AdminAddress::Tcp(address)),
        Message::Server(AdminAddress::Pipe("/run/admin.sock".into())),
        Message::TakeOver { drain: Duration::from_secs(900) },
        Message::HandedOver,
        Message::Draining { connections: 5 },
    ];
    let (one, mut other) = pair();
    for message in &messages {
        one.say(message, &[]).await.unwrap();
    }
    for message in messages {
        assert_eq!(other.hear().await.unwrap(), Some(message));
    }
    drop(one);
    assert_eq!(other.hear().await.unwrap(), None);
}

#[tokio::test]
async fn sockets_come_with_their_message() {
    let (one, mut other) = pair();
    let sockets: Vec<_> = (0..MOST_PASSED).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let handles: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    let hear = async {
        for socket in &sockets {
            assert_eq!(other.hear().await.unwrap(), Some(Message::HandedOver));
            let received = std::net::TcpListener::from(other.take(1).unwrap().pop().unwrap());
            assert_eq!(received.local_addr().unwrap(), socket.local_addr().unwrap());
            assert!(socket::listens_at(&received, socket.local_addr().unwrap()));
            assert!(!socket::listens_at(&received, "127.0.0.1:1".parse().unwrap()));
        }
        assert_eq!(other.hear().await.unwrap(), Some(Message::HandedOver));
        assert_eq!(other.take(MOST_PASSED).unwrap().len(), MOST_PASSED);
        assert!(other.take(1).is_err(), "there are no more");
    };
    let say = async {
        for handle in &handles {
            one.say(&Message::HandedOver, &[*handle]).await.unwrap();
        }
        one.say(&Message::HandedOver, &handles).await.unwrap();
    };
    tokio::join!(hear, say);
}

#[tokio::test]
async fn what_is_not_understood_or_too_much_ends_the_conversation() {
    let frame = |text: &[u8]| [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat();
    for bytes in [
        u32::MAX.to_be_bytes().to_vec(),
        u32::try_from(LONGEST + 1).unwrap().to_be_bytes().to_vec(),
        frame(b""),
        frame(b"{}"),
        frame(b"[1]"),
        frame(b"\xff\xff"),
        frame(br#"{"hello": {}}"#),
        frame(br#"{"hello": 1}"#),
        frame(br#"{"hello": {"version": -1, "program": ""}}"#),
        frame(br#"{"hello": {"version": 1, "program": ""}, "refused": {"reason": ""}}"#),
        frame(br#"{"listener": {"address": "x", "bound": "x", "sockets": 1}}"#),
        frame(br#"{"format_disk": {}}"#),
        // Cut off.
        vec![0, 0],
        frame(br#"{"handed_over": {}}"#)[..9].to_vec(),
    ] {
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        other.set_nonblocking(true).unwrap();
        let mut channel = Channel::new(UnixStream::from_std(other).unwrap());
        (&one).write_all(&bytes).unwrap();
        drop(one);
        assert!(channel.hear().await.is_err(), "{bytes:?}");
    }
    let (one, _other) = pair();
    assert!(one.say(&Message::Refused("x".repeat(LONGEST)), &[]).await.is_err());
}
