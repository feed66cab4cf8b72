//! The base64 form of gRPC-Web bodies, a piece at a time.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};

use crate::l7::incoming::{Incoming, IncomingError};

/// Encodes groups of three bytes; what is left of one waits for the next piece.
#[derive(Default)]
pub(super) struct Encoder(BytesMut);

impl Encoder {
    pub(super) fn encode(&mut self, data: &[u8], last: bool) -> Bytes {
        self.0.extend_from_slice(data);
        let whole = if last { self.0.len() } else { self.0.len() / 3 * 3 };
        STANDARD.encode(self.0.split_to(whole)).into()
    }
}

/// A request body whose base64 is undone.
pub struct Decoded {
    body: Incoming,
    /// Less than a group of four.
    rest: BytesMut,
    ended: bool,
}

impl Decoded {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, rest: BytesMut::new(), ended: false }
    }

    pub(in crate::l7) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, IncomingError>>> {
        while !self.ended {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                self.ended = true;
                // Padding is part of the form: something is missing.
                return Poll::Ready((!self.rest.is_empty()).then_some(Err(IncomingError::Base64)));
            };
            match frame?.into_data() {
                Err(trailers) if self.rest.is_empty() => {
                    self.ended = true;
                    return Poll::Ready(Some(Ok(trailers)));
                }
                Err(_) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(IncomingError::Base64)));
                }
                Ok(data) => {
                    self.rest.extend_from_slice(&data);
                    let whole = self.rest.len() / 4 * 4;
                    let decoded = decode(&self.rest.split_to(whole));
                    match decoded {
                        Some(data) if data.is_empty() => {}
                        Some(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                        None => {
                            self.ended = true;
                            return Poll::Ready(Some(Err(IncomingError::Base64)));
                        }
                    }
                }
            }
        }
        Poll::Ready(None)
    }

    pub(in crate::l7) fn is_end_stream(&self) -> bool {
        self.ended
    }

    pub(in crate::l7) fn size_hint(&self) -> SizeHint {
        if self.ended { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}

impl fmt::Debug for Decoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decoded({:?})", self.body)
    }
}

/// Whole groups; padding may be between them too, where messages were encoded one by one.
fn decode(text: &[u8]) -> Option<Bytes> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let mut from = 0;
    while from < text.len() {
        let padded = text[from..].chunks(4).position(|group| group.ends_with(b"="));
        let to = padded.map_or(text.len(), |group| from + (group + 1) * 4);
        STANDARD.decode_vec(&text[from..to], &mut out).ok()?;
        from = to;
    }
    Some(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_one_text() {
        let data: Vec<u8> = (0..100).collect();
        for size in 1..20 {
            let mut encoder = Encoder::default();
            let mut text = Vec::new();
            data.chunks(size).for_each(|piece| text.extend_from_slice(&encoder.encode(piece, false)));
            text.extend_from_slice(&encoder.encode(b"", true));
            assert_eq!(STANDARD.decode(&text).unwrap(), data);
        }
    }

    #[test]
    fn padding_between_messages_is_understood_and_garbage_is_not() {
        let text = [STANDARD.encode("a"), STANDARD.encode("bcd"), STANDARD.encode("ef")].concat();
        assert_eq!(decode(text.as_bytes()).unwrap(), "abcdef");
        assert_eq!(decode(b"").unwrap(), "");
        assert!(decode(b"a*bc").is_none() && decode(b"=abc").is_none() && decode(b"====").is_none());
    }
}
