//! Attacks on HTTP/2: work that costs the sender nothing. Against the client's proxy, the server's behind mutual TLS
//! never sees them, and against the control plane.

use std::{io::Write, net::TcpStream, time::Duration};

use outrigger_tests::{Exchange, exchange::patient, need, pair::by4};

use crate::{
    frames::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, PRIORITY, RST_STREAM,
        SETTINGS, WINDOW_UPDATE, frame, get, greet, indexed_literal, literal, next,
    },
    target::{Target, local, throw},
};

/// An attack: what is sent after the greeting.
type Attack = (&'static str, fn() -> Vec<u8>);

/// Connections per attack: one after the other.
const ROUNDS: usize = 3;

const ATTACKS: &[Attack] = &[
    ("rapid reset", rapid_reset),
    ("settings", || frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]).repeat(50_000)),
    ("pings", || frame(PING, 0, 0, b"12345678").repeat(100_000)),
    ("priorities", || frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 7]).repeat(100_000)),
    ("empty data", || [frame(HEADERS, END_HEADERS, 1, &get("/")), frame(DATA, 0, 1, &[]).repeat(100_000)].concat()),
    ("padding only", || {
        let padding = [&[255][..], &[0; 255]].concat();
        [frame(HEADERS, END_HEADERS, 1, &get("/")), frame(DATA, 8, 1, &padding).repeat(20_000)].concat()
    }),
    ("endless continuation", || {
        let more = frame(CONTINUATION, 0, 1, &literal("x-more", &"m".repeat(1000)));
        [frame(HEADERS, 0, 1, &get("/")), more.repeat(20_000)].concat()
    }),
    ("empty continuation", || {
        [frame(HEADERS, 0, 1, &get("/")), frame(CONTINUATION, 0, 1, &[]).repeat(100_000)].concat()
    }),
    ("header list bomb", header_bomb),
    ("window overflow", || {
        [
            frame(HEADERS, END_HEADERS, 1, &get("/")),
            frame(WINDOW_UPDATE, 0, 1, &0x7fff_ffff_u32.to_be_bytes()),
            frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()),
        ]
        .concat()
    }),
    ("zero window update", || frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
    ("huge table", || frame(SETTINGS, 0, 0, &[0, 1, 0xff, 0xff, 0xff, 0xff])),
    ("huge frame", || [&[0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1][..], &[0; 1 << 20]].concat()),
    ("garbage in the header block", || frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 200])),
    ("data on no stream", || frame(DATA, 0, 77, b"who asked").repeat(1000)),
    ("stream numbers of the server", || frame(HEADERS, END_HEADERS | END_STREAM, 2, &get("/"))),
    ("stream numbers that go back", || {
        [5, 3, 1].map(|id| frame(HEADERS, END_HEADERS | END_STREAM, id, &get("/"))).concat()
    }),
    ("no path", || frame(HEADERS, END_HEADERS | END_STREAM, 1, &literal(":method", "GET"))),
    ("two paths", || frame(HEADERS, END_HEADERS | END_STREAM, 1, &[get("/a"), literal(":path", "/b")].concat())),
    ("upper case", || frame(HEADERS, END_HEADERS | END_STREAM, 1, &[get("/a"), literal("X-Upper", "b")].concat())),
    ("line feed in a value", || {
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &[get("/a"), literal("x", "a\r\nhost: b")].concat())
    }),
    ("transfer-encoding", || {
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &[get("/a"), literal("transfer-encoding", "chunked")].concat())
    }),
    ("a length that lies", || {
        let head = [get("/a"), literal("content-length", "3")].concat();
        [frame(HEADERS, END_HEADERS, 1, &head), frame(DATA, END_STREAM, 1, b"more than three")].concat()
    }),
    ("goaway again and again", || frame(GOAWAY, 0, 0, &[0; 8]).repeat(20_000)),
    ("unknown frames", || frame(0xbb, 0xff, 0, &[1; 100]).repeat(20_000)),
    ("settings acknowledged that nobody sent", || frame(SETTINGS, ACK, 0, &[]).repeat(20_000)),
];

fn rapid_reset() -> Vec<u8> {
    let mut all = Vec::new();
    for n in 0..20_000_u32 {
        let id = 2 * n + 1;
        all.extend(frame(HEADERS, END_HEADERS | END_STREAM, id, &get("/reset")));
        all.extend(frame(RST_STREAM, 0, id, &[0, 0, 0, 8]));
    }
    all
}

/// 4 kB enter the table once and are then named 60000 times: 240 MB for a few bytes each stream.
fn header_bomb() -> Vec<u8> {
    let mut all = Vec::new();
    for stream in 0..4 {
        let first = [get("/bomb"), indexed_literal("x-bomb", &"b".repeat(3900))].concat();
        all.extend(frame(HEADERS, END_STREAM, 2 * stream + 1, &first));
        // 62 is the newest entry of the dynamic table.
        for last in [false, false, false, true] {
            all.extend(frame(CONTINUATION, if last { END_HEADERS } else { 0 }, 2 * stream + 1, &[0x80 | 62; 15_000]));
        }
    }
    all
}

#[test]
fn attacks_cost_the_attacker_only() {
    need!("ip", "curl");
    let mut target = Target::new();
    // A request in progress on another connection must live through all of it.
    let mut bystander = target.pair.client.pod.connect(by4(80));
    greet(&mut bystander);
    for (name, attack) in ATTACKS {
        let bytes = attack();
        for _ in 0..ROUNDS {
            let mut stream = target.pair.client.pod.connect(by4(80));
            greet(&mut stream);
            let _ = throw(stream, &bytes, Duration::from_millis(300));
        }
        target.unharmed(name);
    }
    stalled_readers(&mut target);
    bystander.say(frame(HEADERS, END_HEADERS | END_STREAM, 1, &get("/bystander")));
    let (head, ended) = response(&mut bystander, 1);
    assert!(head.first() == Some(&OK) && ended, "the bystander got {head:02x?}, ended {ended}");
    target.unharmed("all attacks of a client");

    // Behind mutual TLS nobody got in; the control plane's own ports are open to whoever reaches them.
    let control = target.pair.mesh.control().resident_kb();
    for (name, attack) in ATTACKS {
        let bytes = attack();
        let mut stream = patient(target.pair.mesh.control_pod().connect(local(15010)));
        greet(&mut stream);
        let _ = throw(stream, &bytes, Duration::from_millis(200));
        assert!(target.pair.mesh.control().is_running(), "{name}: {}", target.pair.mesh.control().output());
    }
    let now = target.pair.mesh.control().resident_kb();
    assert!(now < control + 60 * 1024, "the control plane went from {control} to {now} kB");
    target.pair.mesh.settle();
    target.unharmed("attacks on the control plane");
}

/// Many requests for answers that nobody reads: what is held back is bounded by the windows, not by the answers.
fn stalled_readers(target: &mut Target) {
    let streams: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = target.pair.client.pod.connect(by4(80));
            // No window at all for data.
            let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat();
            for n in 0..100_u32 {
                bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &get("/stalled")));
            }
            let _ = stream.write_all(&bytes);
            // Wait for the first head, so that the requests are known to be in the proxy.
            while let Some((kind, ..)) = next(&mut stream) {
                if kind == HEADERS {
                    break;
                }
            }
            stream
        })
        .collect();
    target.answers("2000 answers that nobody reads");
    drop(streams);
    target.unharmed("2000 answers that nobody reads");
}

/// `:status: 200` in a header block.
const OK: u8 = 0x88;

/// The stream's header block and whether the stream ended properly.
fn response(stream: &mut TcpStream, id: u32) -> (Vec<u8>, bool) {
    let mut head = Vec::new();
    while let Some((kind, flags, on, payload)) = next(stream) {
        match kind {
            SETTINGS if flags & ACK == 0 => stream.say(frame(SETTINGS, ACK, 0, &[])),
            HEADERS if on == id && head.is_empty() => head = payload,
            RST_STREAM | GOAWAY => return (head, false),
            _ => {}
        }
        if on == id && matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            return (head, true);
        }
    }
    (head, false)
}
