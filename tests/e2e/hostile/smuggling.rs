//! Requests whose end two readers could see at different places. Behind the proxies stands an application that is as
//! naive as any: it believes either length and every line ending. It must never see a second request that the client
//! had hidden in the first.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use outrigger_tests::{
    Exchange, need,
    pair::{by4, pair},
    wait::PATIENCE,
};

use crate::target::throw;

/// Hidden in what a naive reader takes for the body, or for what follows it.
const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: app\r\n\r\n";

/// Sent in the same segment before the attempt.
const BEFORE: &str = "GET /before HTTP/1.1\r\nHost: app\r\n\r\n";

#[derive(Clone, Copy, Debug)]
enum Believes {
    ContentLength,
    Chunked,
}

/// All request lines that the application has seen.
type Seen = Arc<Mutex<Vec<String>>>;

/// Serves until told to stop; believes what it is told to believe.
fn naive(listener: TcpListener, believes: Believes, seen: Seen, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => {
                    let seen = seen.clone();
                    stream.set_nonblocking(false).unwrap();
                    std::thread::spawn(move || naive_connection(stream, believes, &seen));
                }
                Err(_) => std::thread::park_timeout(Duration::from_millis(2)),
            }
        }
    })
}

fn naive_connection(stream: TcpStream, believes: Believes, seen: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        (reader.read_until(b'\n', &mut line).ok()? > 0).then_some(())?;
        let request = String::from_utf8_lossy(&line).trim().to_owned();
        if request.is_empty() {
            continue;
        }
        seen.lock().unwrap().push(request);
        let (mut length, mut chunked) = (None, false);
        loop {
            let mut line = Vec::new();
            (reader.read_until(b'\n', &mut line).ok()? > 0).then_some(())?;
            let line = String::from_utf8_lossy(&line).trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            match name.trim() {
                "content-length" => length = value.split(',').next_back().and_then(|v| v.trim().parse::<u64>().ok()),
                "transfer-encoding" => chunked = value.contains("chunked"),
                _ => {}
            }
        }
        let take_length = length.is_some() && (matches!(believes, Believes::ContentLength) || !chunked);
        if take_length {
            std::io::copy(&mut (&mut reader).take(length.unwrap()), &mut std::io::sink()).ok()?;
        } else if chunked {
            loop {
                let mut line = Vec::new();
                (reader.read_until(b'\n', &mut line).ok()? > 0).then_some(())?;
                let line = String::from_utf8_lossy(&line);
                let size = u64::from_str_radix(line.trim().split(';').next().unwrap_or("").trim(), 16).ok()?;
                std::io::copy(&mut (&mut reader).take(size), &mut std::io::sink()).ok()?;
                reader.read_until(b'\n', &mut Vec::new()).ok()?;
                if size == 0 {
                    break;
                }
            }
        }
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").ok()?;
    }
}

/// What is sent, by name. `@` is the hidden request, `#` its length.
const ATTEMPTS: &[(&str, &str)] = &[
    ("CL.TE", "POST /a HTTP/1.1\r\nHost: app\r\nContent-Length: 43\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n@"),
    (
        "TE.CL",
        "POST /a HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n26\r\n@\r\n0\r\n\r\n",
    ),
    ("two lengths", "POST /a HTTP/1.1\r\nHost: app\r\nContent-Length: #\r\nContent-Length: 0\r\n\r\n@"),
    ("two lengths in one", "POST /a HTTP/1.1\r\nHost: app\r\nContent-Length: #, 0\r\n\r\n@"),
    ("two lengths in one, turned", "POST /a HTTP/1.1\r\nHost: app\r\nContent-Length: 0, #\r\n\r\n@"),
    ("plus", "POST /a HTTP/1.1\r\nHost: app\r\nContent-Length: +#\r\n\r\n@"),
    ("hexadecimal length", "POST /a HTTP/1.1\r\nHost: app\r\nContent-Length: 0x0\r\n\r\n@"),
    ("negative", "POST /a HTTP/1.1\r\nHost: app\r\nContent-Length: -1\r\n\r\n@"),
    ("overflow", "POST /a HTTP/1.1\r\nHost: app\r\nContent-Length: 18446744073709551616\r\n\r\n@"),
    ("space before the colon", "POST /a HTTP/1.1\r\nHost: app\r\nContent-Length : #\r\n\r\n@"),
    (
        "space before the colon, TE",
        "POST /a HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\nTransfer-Encoding : chunked\r\n\r\n@",
    ),
    ("tab before the colon", "POST /a HTTP/1.1\r\nHost: app\r\nContent-Length\t: #\r\n\r\n@"),
    ("folded value", "POST /a HTTP/1.1\r\nHost: app\r\nContent-Length:\r\n #\r\n\r\n@"),
    (
        "folded TE",
        "POST /a HTTP/1.1\r\nHost: app\r\nTransfer-Encoding:\r\n chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n@",
    ),
    ("fold after the length", "POST /a HTTP/1.1\r\nHost: app\r\nX: y\r\n Content-Length: #\r\n\r\n@"),
    ("bare LF hides a header", "POST /a HTTP/1.1\r\nHost: app\r\nX: y\nContent-Length: #\r\n\r\n@"),
    ("bare LF ends the head", "GET /a HTTP/1.1\r\nHost: app\r\nX: y\n\n@"),
    ("bare CR hides a header", "POST /a HTTP/1.1\r\nHost: app\r\nX: y\rContent-Length: #\r\n\r\n@"),
    ("NUL in a header", "POST /a HTTP/1.1\r\nHost: app\r\nX: y\0\r\nContent-Length: 0\r\n\r\n"),
    ("xchunked", "POST /a HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: xchunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n@"),
    ("chunked twice", "POST /a HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n@"),
    ("chunked not last", "POST /a HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n@"),
    (
        "two TE lines",
        "POST /a HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n@",
    ),
    (
        "vertical tab in TE",
        "POST /a HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: \x0bchunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n@",
    ),
    (
        "TE in HTTP/1.0",
        "POST /a HTTP/1.0\r\nHost: app\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n@",
    ),
    (
        "chunk size overflow",
        "POST /a HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n@",
    ),
    ("chunk size with a sign", "POST /a HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n@"),
    ("chunk size with a prefix", "POST /a HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n0x26\r\n@"),
    (
        "chunk extension with LF",
        "POST /a HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n2;\n26\r\n@\r\n0\r\n\r\n",
    ),
    ("chunk without its end", "POST /a HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n1\r\naX0\r\n\r\n@"),
    ("two hosts", "GET /a HTTP/1.1\r\nHost: app\r\nHost: other\r\n\r\n"),
    ("no host", "GET /a HTTP/1.1\r\n\r\n"),
    ("space in the target", "GET /a HTTP/1.1\r\n/smuggled HTTP/1.1\r\nHost: app\r\n\r\n"),
    ("no colon", "GET /a HTTP/1.1\r\nHost: app\r\nGET /smuggled HTTP/1.1\r\n\r\n"),
    ("header name with a control", "GET /a HTTP/1.1\r\nHost: app\r\nX\x01Y: z\r\n\r\n"),
    (
        "upgrade that hides",
        "GET /a HTTP/1.1\r\nHost: app\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: #\r\n\r\n@",
    ),
    (
        "Connection names the length",
        "POST /a HTTP/1.1\r\nHost: app\r\nConnection: close, Content-Length\r\nContent-Length: #\r\n\r\n@",
    ),
    (
        "Connection names TE",
        "POST /a HTTP/1.1\r\nHost: app\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n26\r\n@\r\n0\r\n\r\n",
    ),
    ("body of GET", "GET /a HTTP/1.1\r\nHost: app\r\nContent-Length: #\r\n\r\n@"),
    ("HTTP/0.9", "GET /smuggled\r\n\r\n"),
    ("version 1.2", "GET /smuggled HTTP/1.2\r\nHost: app\r\n\r\n"),
    ("version 3", "GET /smuggled HTTP/3.0\r\nHost: app\r\n\r\n"),
];

/// Framing that two readers understand differently: never forwarded, whatever the reading.
const MUST_BE_REFUSED: &[&str] = &[
    "CL.TE",
    "TE.CL",
    "folded TE",
    "chunked twice",
    "two TE lines",
    "TE in HTTP/1.0",
    "two lengths",
    "two lengths in one",
    "two lengths in one, turned",
    "plus",
    "hexadecimal length",
    "negative",
    "overflow",
    "space before the colon",
    "space before the colon, TE",
    "tab before the colon",
    "bare CR hides a header",
    "NUL in a header",
    "xchunked",
    "chunked not last",
    "vertical tab in TE",
    "two hosts",
    "space in the target",
    "no colon",
    "header name with a control",
    "version 3",
];

#[test]
fn no_second_request_reaches_the_application() {
    need!("ip", "curl");
    let mut pair = pair(&[("http-a", 80, 9080), ("http-b", 81, 9081)]);
    let stop = Arc::new(AtomicBool::new(false));
    let applications =
        [(80, 9080, Believes::ContentLength), (81, 9081, Believes::Chunked)].map(|(port, to, believes)| {
            let seen = Seen::default();
            let thread = naive(pair.server.pod.listen(to), believes, seen.clone(), stop.clone());
            (port, believes, seen, thread)
        });
    for (port, believes, seen, _) in &applications {
        let mut told = Vec::new();
        // Each on its own, and right behind a request that is in order.
        let attempts = ATTEMPTS.iter().flat_map(|(name, attempt)| [(*name, *attempt, ""), (*name, *attempt, BEFORE)]);
        for (number, (name, attempt, before)) in attempts.enumerate() {
            // A busy machine may show the application a request only after the next attempt was made: each has a number.
            let mark = |text: &str| {
                let text = text.replace("/smuggled", &format!("/smug-{number:03}"));
                text.replace("/a ", &format!("/a-{number:03} ")).replace("/before", &format!("/before-{number:03}"))
            };
            let hidden = mark(HIDDEN);
            assert_eq!(hidden.len(), HIDDEN.len(), "lengths of the attempts are those of what is hidden");
            let bytes = mark(before) + &mark(attempt).replace('@', &hidden).replace('#', &hidden.len().to_string());
            let mut stream = pair.client.pod.connect(by4(*port));
            let _ = stream.write_all(bytes.as_bytes());
            // Who waits for more than there is gets the end of the input after a moment, so that he gives up.
            stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            let _ = stream.peek(&mut [0]);
            let _ = stream.shutdown(Shutdown::Write);
            let answer = throw(stream, b"", PATIENCE);
            let answer = answer.unwrap_or_else(|heard| {
                panic!("{name}: the connection still stands after {:?}", String::from_utf8_lossy(&heard))
            });
            // A request of our own on the same upstream connections shows what is stuck in them.
            let mut marker = pair.client.pod.connect(by4(*port));
            marker.say(format!("GET /marker-{number:03} HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n"));
            let marked = String::from_utf8(marker.hear_end()).unwrap();
            assert!(marked.starts_with("HTTP/1.1 200"), "{name} ({believes:?}): the next request got {marked}");
            told.push((name, before, String::from_utf8_lossy(&answer).into_owned()));
        }
        let seen = seen.lock().unwrap().clone();
        let known = ["/a-", "/smug-", "/marker-", "/before-"];
        assert!(
            seen.iter().all(|line| known.iter().any(|path| line.contains(path))),
            "({believes:?}): something else was seen: {seen:?}"
        );
        for (number, (name, before, answer)) in told.iter().enumerate() {
            let count = |path: &str| {
                let path = format!("/{path}-{number:03}");
                seen.iter().filter(|line| line.contains(&path)).count()
            };
            let (first, smuggled) = (count("a"), count("smug"));
            // The proxies may see two requests in what was sent; then they are two, for everybody, each with an answer.
            // A body that turns out wrong after its head was passed on ends that request, whose answer is then ours.
            let honest = answer.matches("HTTP/1.1 200").count().saturating_sub(count("before"));
            let fine = first <= 1 && (smuggled == 0 || first + smuggled <= honest);
            assert!(fine, "{name} ({believes:?}): saw {first} and {smuggled}, answered {answer}: {seen:?}");
            assert_eq!(count("marker"), 1, "{name}: {seen:?}");
            if MUST_BE_REFUSED.contains(name) && before.is_empty() {
                assert_eq!((first, smuggled), (0, 0), "{name} ({believes:?}) was forwarded: {seen:?}, {answer}");
                assert!(
                    answer.is_empty() || ["HTTP/1.1 4", "HTTP/1.1 501 "].iter().any(|s| answer.starts_with(s)),
                    "{name}: {answer}"
                );
            }
        }
    }
    pair.assert_sound();
    stop.store(true, Ordering::Relaxed);
    applications.into_iter().for_each(|(.., thread)| thread.join().unwrap());
}
