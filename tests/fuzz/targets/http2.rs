//! HTTP/2 through the proxy: a hostile client, and a hostile upstream. Frames only: the preface is there.

use super::{
    http::one_answer,
    stage::{Upstream, play},
};

const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const LARGEST: usize = 16_384;

/// The first byte chooses the configuration, the rest are the client's frames.
pub(super) fn request(data: &[u8]) {
    let Some((&options, frames)) = data.split_first() else { return };
    let told = play(options, &[OPENING, frames].concat(), Upstream::Strict);
    frames_only(&told.bytes);
}

/// The first byte chooses the configuration, the rest are the upstream's frames.
pub(super) fn response(data: &[u8]) {
    let Some((&options, frames)) = data.split_first() else { return };
    let (method, request): (_, &[u8]) = match options >> 1 & 3 {
        0 => ("GET", b"GET /h2 HTTP/1.1\r\nhost: a\r\n\r\n"),
        1 => ("POST", b"POST /h2 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n"),
        2 => ("HEAD", b"HEAD /h2 HTTP/1.1\r\nhost: a\r\n\r\n"),
        _ => ("POST", b"POST /h2 HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web\r\ncontent-length: 5\r\n\r\n\0\0\0\0\0"),
    };
    let upstream = [&OPENING[OPENING.len() - 9..], frames].concat();
    let told = play(options, request, Upstream::Says(upstream.into()));
    one_answer(&told.bytes, method);
}

fn frames_only(mut bytes: &[u8]) {
    while bytes.len() >= 9 {
        let length = usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]);
        let stream = u32::from_be_bytes([bytes[5] & 0x7f, bytes[6], bytes[7], bytes[8]]);
        assert!(length <= LARGEST, "a frame of {length} bytes");
        assert!(bytes[3] <= 9, "a frame of an unknown kind");
        match bytes[3] {
            0 | 1 | 9 => assert!(stream % 2 == 1, "on a stream that nobody opened"),
            // Whatever stream was named may be refused.
            3 => assert!(stream != 0, "the connection is no stream"),
            4 | 6 | 7 => assert!(stream == 0, "of a stream, and not of the connection"),
            _ => {}
        }
        bytes = bytes.get(9 + length..).unwrap_or_default();
    }
}
