//! The last good configuration as a file has it. The input's first byte says whether the frame around the rest is made
//! right, as only somebody could who may write the file.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use outrigger_proxy::xds::read_saved;

const NODE: (&str, &str) = ("node", "cluster");

pub(super) fn run(data: &[u8]) {
    let Some((&framed, body)) = data.split_first() else { return };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let file = if framed & 1 == 0 { body.to_vec() } else { frame(body) };
    if let Ok(resources) = read_saved(&file, NODE, Duration::from_secs(3600), now) {
        assert!(resources <= body.len(), "more resources than bytes");
        // One bit of it, anywhere, and it is not used.
        let mut other = file.clone();
        let at = other.len() / 2;
        other[at] ^= 1;
        assert!(read_saved(&other, NODE, Duration::from_secs(3600), now).is_err(), "a damaged file is used");
    }
}

fn frame(body: &[u8]) -> Vec<u8> {
    [b"OUTRLAST\0\0\0\x02", digest(&SHA256, body).as_ref(), body].concat()
}
