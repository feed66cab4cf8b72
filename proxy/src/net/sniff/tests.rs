use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;

/// A ClientHello as a real client writes it.
fn client_hello(sni: Option<&str>, alpn: &[&str]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    config.enable_sni = sni.is_some();
    let name = sni.unwrap_or("unused").to_owned().try_into().unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

fn tls(sni: Option<&str>, alpn: &[&str]) -> Verdict {
    Verdict::Tls(ClientHello { sni: sni.map(Into::into), alpn: alpn.iter().map(|p| Box::from(*p)).collect() })
}

/// The same handshake bytes in records of at most `size` bytes.
fn refragment(hello: &[u8], size: usize) -> Vec<u8> {
    let chunks = hello[5..].chunks(size);
    chunks.flat_map(|c| [&[22, 3, 1], &(c.len() as u16).to_be_bytes()[..], c].concat()).collect()
}

fn fold(bytes: &[u8], expected: &Verdict) {
    let mut decided = false;
    for len in 0..=bytes.len() {
        match classify(&bytes[..len]) {
            Verdict::NeedMore => assert!(!decided, "undecided again after {len} bytes"),
            verdict => {
                assert_eq!(&verdict, expected, "after {len} bytes");
                decided = true;
            }
        }
    }
    assert!(decided, "undecided after everything");
}

#[test]
fn client_hellos_whole_and_in_pieces() {
    for (sni, alpn) in [
        (Some("reviews.default.svc"), &["istio-http/1.1", "istio", "http/1.1"][..]),
        (Some("EXAMPLE.com"), &["h2"]),
        (None, &["h2", "http/1.1"]),
        (None, &[]),
    ] {
        let lower = sni.map(str::to_ascii_lowercase);
        let expected = tls(lower.as_deref(), alpn);
        let hello = client_hello(sni, alpn);
        fold(&hello, &expected);
        for size in [1, 2, 3, 4, 5, 100, 700] {
            fold(&refragment(&hello, size), &expected);
        }
        let with_more = [&hello[..], b"\x14\x03\x03\x00\x01\x01"].concat();
        assert_eq!(classify(&with_more), expected);
        assert_eq!(classify_for(&hello, Interest { tls: false, http: true }), Verdict::Other);
    }
}

/// A hello made by hand: version, random, and what follows.
fn hand_made(extensions: Option<&[u8]>) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    if let Some(extensions) = extensions {
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
    }
    let len = body.len() as u32;
    let message = [&[1], &len.to_be_bytes()[1..], &body].concat();
    [&[22, 3, 1], &(message.len() as u16).to_be_bytes()[..], &message].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat()
}

#[test]
fn unusual_but_legal_hellos() {
    assert_eq!(classify(&hand_made(None)), tls(None, &[]));
    assert_eq!(classify(&hand_made(Some(&[]))), tls(None, &[]));
    let grease = [
        extension(0x0a0a, &[]),
        extension(16, &[0, 9, 2, 0x0a, 0x8a, 2, b'h', b'2', 2, 0x1a, 0x1a]),
        extension(0, b"\x00\x06\x01\x00\x03abc"),
        extension(0xfafa, &[1]),
    ];
    assert_eq!(classify(&hand_made(Some(&grease.concat()))), tls(None, &["h2", "\x1a\x1a"]));
    let control = extension(0, b"\x00\x06\x00\x00\x03a\x00b");
    assert_eq!(classify(&hand_made(Some(&control))), tls(None, &[]), "a name that cannot name a host is none");
}

#[test]
fn what_only_looks_like_tls_is_other_at_once() {
    for bad in [
        &b"\x16\x02"[..],
        b"\x16\x03\x05\x00\x10",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x50\x00",
        b"\x16\x03\x01\x00\x10\x02",
        b"\x16\x03\x01\x00\x10\x01\x00\x00\x10",
        b"\x16\x03\x01\x00\x10\x01\x01\x00\x00",
        b"\x16\x03\x01\x00\x01\x01\x15",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x80\x2e\x01\x00\x02",
    ] {
        assert_eq!(classify(bad), Verdict::Other, "{bad:02x?}");
    }
    let truncated = extension(0, b"\x00\x99\x00\x00\x03abc");
    assert_eq!(classify(&hand_made(Some(&truncated))), Verdict::Other);
}

#[test]
fn http_by_its_request_line() {
    let http11 = Verdict::Http1 { http10: false };
    for good in
        ["GET / HTTP/1.1\r\n", "OPTIONS * HTTP/1.1\n", "CONNECT a:443 HTTP/1.1\r\n", "PRINT /x HTTP/1.1\r\nHost: y"]
    {
        fold(good.as_bytes(), &http11);
    }
    fold(b"M-SEARCH http://a/b?c=\xc3\xa9 HTTP/1.0\r\n", &Verdict::Http1 { http10: true });
    fold(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04", &Verdict::Http2);
    assert_eq!(classify(b"GET /aaaa"), Verdict::NeedMore);
    assert_eq!(classify_for(b"GET / HTTP/1.1\r\n", Interest { tls: true, http: false }), Verdict::Other);
    assert_eq!(classify_for(b"", Interest { tls: false, http: false }), Verdict::Other);
    for other in [
        "GET\r\n",
        "GET /\r\n",
        "get key\r\n",
        "GET  / HTTP/1.1\r\n",
        "GET / HTTP/1.2\r\n",
        "GET / HTTP/2.0\r\n",
        "GET / HTTP/1.11\r\n",
        "PRI * HTTP/2.0\r\n\r\nXX",
        " GET",
        "*1\r\n$4\r\nPING\r\n",
        "\u{0}\u{0}\u{0}",
        "SSH-2.0-OpenSSH\r\n",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGH",
    ] {
        assert_eq!(classify(other.as_bytes()), Verdict::Other, "{other:?}");
    }
    assert_eq!(classify(b"*1\r"), Verdict::Other, "Redis is known by its third byte");
}

#[test]
fn nothing_is_awaited_for_ever() {
    let endless = [b"GET /".to_vec(), vec![b'a'; MAX_BYTES]].concat();
    assert_eq!(classify(&endless[..MAX_BYTES - 1]), Verdict::NeedMore);
    assert_eq!(classify(&endless), Verdict::Other);
    // A hello that promises the most and comes in the smallest records.
    let mut dribble = b"\x16\x03\x01\x00\x04\x01\x00\xff\xf0".to_vec();
    while dribble.len() < MAX_BYTES {
        dribble.extend(b"\x16\x03\x01\x00\x01\x00");
    }
    assert_eq!(classify(&dribble), Verdict::Other);
}

#[test]
fn random_bytes_and_broken_hellos_never_panic_or_waver() {
    let hello = client_hello(Some("a.example.com"), &["h2", "http/1.1"]);
    let seeds: [&[u8]; 4] = [&hello, b"GET /index.html HTTP/1.1\r\nHost: a\r\n\r\n", PREFACE, &[]];
    let mut seen = [0usize; 5];
    for seed in 0..6_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bytes = match seeds[rng.usize(0..seeds.len())] {
            [] => (0..rng.usize(0..64)).map(|_| rng.u8(..)).collect(),
            seed if seed[0] == 22 && rng.bool() => refragment(seed, rng.usize(1..300)),
            seed => seed.to_vec(),
        };
        for _ in 0..rng.usize(0..4) {
            if !bytes.is_empty() {
                let at = rng.usize(0..bytes.len());
                bytes[at] = if rng.bool() { rng.u8(..) } else { bytes[at] ^ (1 << rng.u8(0..8)) };
            }
        }
        if rng.bool() {
            bytes.truncate(rng.usize(0..=bytes.len()));
        }
        let last = classify(&bytes);
        seen[match &last {
            Verdict::NeedMore => 0,
            Verdict::Tls(_) => 1,
            Verdict::Http1 { .. } => 2,
            Verdict::Http2 => 3,
            Verdict::Other => 4,
        }] += 1;
        for _ in 0..8 {
            let len = rng.usize(0..=bytes.len());
            let early = classify(&bytes[..len]);
            assert!(early == Verdict::NeedMore || early == last, "seed {seed}, {len} bytes: {early:?}, then {last:?}");
        }
    }
    assert!(seen.iter().all(|n| *n > 50), "a lopsided fuzz: {seen:?}");
}
