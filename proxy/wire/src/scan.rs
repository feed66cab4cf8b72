//! The fields of an encoded message, one after the other, without its type: for those who want only a part of it.

use prost::{
    DecodeError,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

/// A field as it lies in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    pub number: u32,
    pub content: Content<'a>,
    /// The field with its head: messages are concatenations of these.
    pub whole: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    /// Text, bytes, a message, or numbers packed.
    Bytes(&'a [u8]),
    /// proto2's groups are passed over.
    Group,
}

/// The fields of `message` in their order; nothing comes after an error.
pub fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

/// See [`fields`].
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Result<Field<'a>, DecodeError> {
        let start = self.rest;
        let (number, kind) = decode_key(&mut self.rest)?;
        let content = match kind {
            WireType::Varint => Content::Varint(decode_varint(&mut self.rest)?),
            WireType::SixtyFourBit => Content::Fixed64(self.fixed(number, kind)?),
            WireType::ThirtyTwoBit => Content::Fixed32(self.fixed(number, kind)?),
            WireType::LengthDelimited => {
                let mut after = self.rest;
                skip_field(kind, number, &mut after, DecodeContext::default())?;
                let mut content = &self.rest[..self.rest.len() - after.len()];
                decode_varint(&mut content)?;
                self.rest = after;
                Content::Bytes(content)
            }
            WireType::StartGroup | WireType::EndGroup => {
                skip_field(kind, number, &mut self.rest, DecodeContext::default())?;
                Content::Group
            }
        };
        Ok(Field { number, content, whole: &start[..start.len() - self.rest.len()] })
    }

    fn fixed<const N: usize>(&mut self, number: u32, kind: WireType) -> Result<[u8; N], DecodeError> {
        let bytes = self.rest.first_chunk().copied();
        skip_field(kind, number, &mut self.rest, DecodeContext::default())?;
        Ok(bytes.unwrap_or([0; N]))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::pb::google::protobuf::{Any, DoubleValue, FloatValue};

    #[test]
    fn fields_are_found_whole() {
        let any = Any { type_url: "a".into(), value: vec![7; 300] }.encode_to_vec();
        let found: Vec<_> = fields(&any).collect::<Result<_, _>>().unwrap();
        assert_eq!(found[0], Field { number: 1, content: Content::Bytes(b"a"), whole: &any[..3] });
        assert_eq!(found[1], Field { number: 2, content: Content::Bytes(&[7; 300]), whole: &any[3..] });
        let double = DoubleValue { value: 1.5 }.encode_to_vec();
        assert_eq!(fields(&double).next().unwrap().unwrap().content, Content::Fixed64(1.5_f64.to_le_bytes()));
        let float = FloatValue { value: 1.5 }.encode_to_vec();
        assert_eq!(fields(&float).next().unwrap().unwrap().content, Content::Fixed32(1.5_f32.to_le_bytes()));
    }

    #[test]
    fn what_is_cut_short_is_an_error_and_the_end() {
        let any = Any { type_url: "abc".into(), value: vec![7; 300] }.encode_to_vec();
        for end in 1..any.len() {
            let mut rest = fields(&any[..end]);
            let outcome: Result<Vec<_>, _> = rest.by_ref().collect();
            assert!(outcome.is_err() || end == 5, "{end}");
            assert!(rest.next().is_none());
        }
        for hostile in [&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01][..], &[0x0c], &[0x00], &[0x0b]] {
            assert!(fields(hostile).any(|f| f.is_err()), "{hostile:?}");
        }
    }
}
