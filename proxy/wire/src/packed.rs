//! Bytes that are rarely looked at, kept small: configuration repeats itself, so a fast compression takes nearly all.

use std::{
    fmt,
    io::{Read, Write},
    sync::Arc,
};

use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};

/// Compressed bytes. Cheap to clone.
#[derive(Clone, Default)]
pub struct Packed {
    deflated: Arc<[u8]>,
    length: usize,
}

impl Packed {
    pub fn pack(bytes: &[u8]) -> Self {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        // Writing to memory does not fail; if it did, what is missing would be missing from dumps.
        let written = encoder.write_all(bytes).is_ok();
        let deflated = encoder.finish().unwrap_or_default();
        Self { deflated: deflated.into(), length: if written { bytes.len() } else { 0 } }
    }

    pub fn unpack(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.length);
        match DeflateDecoder::new(&*self.deflated).take(self.length as u64).read_to_end(&mut bytes) {
            Ok(_) => bytes,
            Err(_) => Vec::new(),
        }
    }

    /// Bytes of memory that it takes.
    pub fn size(&self) -> usize {
        self.deflated.len()
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes packed to {}", self.length, self.deflated.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unpacked_is_what_was_packed() {
        let repetitive = "configuration repeats itself; ".repeat(1000).into_bytes();
        let packed = Packed::pack(&repetitive);
        assert!(packed.size() < repetitive.len() / 20, "{packed:?}");
        assert_eq!(packed.unpack(), repetitive);
        assert!(Packed::default().unpack().is_empty());
        assert!(Packed::pack(&[]).unpack().is_empty());
    }
}
