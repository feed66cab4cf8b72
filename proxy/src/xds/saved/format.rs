//! What a file looks like: a magic number, the version of the format, a SHA-256 of all that follows, then messages with
//! their lengths in front: one about the file, and one per resource. Knows nothing of where a file is.

use std::{
    collections::BTreeSet,
    io::{self, Seek, SeekFrom, Write},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN, digest};
use bytes::Buf;
use outrigger_wire::pb::google::protobuf::Any;
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};

use super::{
    super::{
        kind::Kind,
        store::{Decode, Keeping, Kept, kind_of},
    },
    KINDS, Owner, Restorable,
};
use crate::{ir::ConfigSource, xds::decode::Notes};

const MAGIC: &[u8; 8] = b"OUTRLAST";
/// Another one is not read: what its fields mean is not known.
const SCHEMA: u32 = 2;
const PREFIX: usize = MAGIC.len() + 4 + SHA256_OUTPUT_LEN;
/// How far the clock may have gone back since the file was written.
const SKEW: Duration = Duration::from_secs(300);

/// For whom, and how old.
#[derive(Clone, PartialEq, Message)]
struct Head {
    #[prost(string, tag = "1")]
    node_id: String,
    #[prost(string, tag = "2")]
    node_cluster: String,
    /// Of the control plane, in seconds since 1970: the age is counted from here, whenever the file was written.
    #[prost(uint64, tag = "3")]
    last_word: u64,
    /// Version of the program, for people.
    #[prost(string, tag = "4")]
    program: String,
    #[prost(uint64, tag = "5")]
    resources: u64,
    #[prost(bytes = "vec", tag = "6")]
    owner: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Item {
    #[prost(string, tag = "1")]
    type_url: String,
    /// Cluster of a stream of its own; empty for the aggregated one.
    #[prost(string, tag = "2")]
    cluster: String,
    #[prost(bool, tag = "3")]
    delta: bool,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "5")]
    version: String,
    #[prost(bytes = "vec", tag = "6")]
    raw: Vec<u8>,
}

/// The field of [`Item`] that is written from where it is, not from a copy.
const RAW: u32 = 6;

/// Adds up what it writes.
struct Summed<W> {
    out: W,
    sum: Context,
}

impl<W: Write> Summed<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.out.write_all(bytes)
    }
}

/// Writes a file. `last_word`: when the control plane confirmed last what is in it.
pub(super) fn write(
    owner: &Owner,
    entries: &[Keeping],
    last_word: SystemTime,
    out: &mut (impl Write + Seek),
) -> io::Result<()> {
    let head = Head {
        node_id: owner.id.clone(),
        node_cluster: owner.cluster.clone(),
        last_word: last_word.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        resources: entries.len() as u64,
        owner: owner.digest.clone(),
    };
    out.write_all(MAGIC)?;
    out.write_all(&SCHEMA.to_be_bytes())?;
    out.write_all(&[0; SHA256_OUTPUT_LEN])?;
    let mut summed = Summed { out: &mut *out, sum: Context::new(&SHA256) };
    summed.put(&head.encode_length_delimited_to_vec())?;
    let mut scratch = Vec::new();
    for entry in entries {
        let (cluster, delta) = match &entry.source {
            ConfigSource::Grpc { cluster, delta } => (cluster.to_string(), *delta),
            _ => (String::new(), false),
        };
        let item = Item {
            type_url: entry.kind.type_url().to_owned(),
            cluster,
            delta,
            name: entry.name.to_string(),
            version: entry.version.to_string(),
            raw: Vec::new(),
        };
        scratch.clear();
        let raw = entry.raw.len();
        let length = item.encoded_len() + key_len(RAW) + encoded_len_varint(raw as u64) + raw;
        encode_varint(length as u64, &mut scratch);
        // Memory is all that an encoding into a `Vec` may lack.
        item.encode_raw(&mut scratch);
        encode_key(RAW, WireType::LengthDelimited, &mut scratch);
        encode_varint(raw as u64, &mut scratch);
        summed.put(&scratch)?;
        summed.put(&entry.raw)?;
    }
    let sum = summed.sum.finish();
    out.seek(SeekFrom::Start((PREFIX - SHA256_OUTPUT_LEN) as u64))?;
    out.write_all(sum.as_ref())?;
    out.flush()
}

/// Reads a file for `owner`, or says why it must not be used. Every resource is decoded here, so that a file with one
/// that is not understood is refused before anything of it is in force.
pub(super) fn read(
    file: &[u8],
    owner: &Owner,
    max_age: Duration,
    now: SystemTime,
    decode: Decode,
) -> Result<Restorable, String> {
    let (prefix, mut body) = file.split_at_checked(PREFIX).ok_or("it is too short")?;
    let (magic, rest) = prefix.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err("it is no kept configuration".to_owned());
    }
    let (schema, sum) = rest.split_at(4);
    if schema != SCHEMA.to_be_bytes() {
        let schema = schema.iter().fold(0u32, |n, byte| (n << 8) | u32::from(*byte));
        return Err(format!("its format is {schema}, this program reads {SCHEMA}"));
    }
    if digest(&SHA256, body).as_ref() != sum {
        return Err("its checksum is wrong".to_owned());
    }
    let broken = |e: prost::DecodeError| format!("it is broken: {e}");
    let head = Head::decode_length_delimited(&mut body).map_err(broken)?;
    if (&head.node_id, &head.node_cluster) != (&owner.id, &owner.cluster) {
        return Err(format!("it is another node's, {} of {}", head.node_id, head.node_cluster));
    }
    if head.owner != owner.digest {
        return Err("this node's metadata, locality, control plane or identity was another one".to_owned());
    }
    let last_word = age(head.last_word, max_age, now)?;
    let mut kept: [Vec<Kept>; KINDS.len()] = Default::default();
    let (mut read, mut seen) = (0, BTreeSet::new());
    while body.has_remaining() {
        let (place, item) = item(Item::decode_length_delimited(&mut body).map_err(broken)?, decode)?;
        if !seen.insert((place, Arc::clone(item.resource.name()))) {
            return Err(format!("it has two resources named `{}`", item.resource.name()));
        }
        read += 1;
        kept[place].push(item);
    }
    if read != head.resources {
        return Err(format!("it has {read} of {} resources", head.resources));
    }
    Ok(Restorable { last_word, kept })
}

fn age(last_word: u64, max_age: Duration, now: SystemTime) -> Result<SystemTime, String> {
    let at = UNIX_EPOCH.checked_add(Duration::from_secs(last_word)).ok_or("its time is none")?;
    match now.duration_since(at) {
        Ok(age) if age > max_age => {
            Err(format!("it is {} s old, and at most {} s are allowed", age.as_secs(), max_age.as_secs()))
        }
        Ok(_) => Ok(at),
        Err(ahead) if ahead.duration() > SKEW => {
            Err(format!("it was written {} s from now: one of the clocks is wrong", ahead.duration().as_secs()))
        }
        Err(_) => Ok(at),
    }
}

fn item(item: Item, decode: Decode) -> Result<(usize, Kept), String> {
    let kind = Kind::from_type_url(&item.type_url);
    let place = KINDS.iter().position(|k| Some(*k) == kind);
    let Some(place) = place else { return Err(format!("it has a resource of type `{}`", item.type_url)) };
    let source = match item.cluster.is_empty() {
        true => ConfigSource::Ads,
        false => ConfigSource::Grpc { cluster: item.cluster.as_str().into(), delta: item.delta },
    };
    let (body, mut notes) = (Any { type_url: item.type_url, value: item.raw }, Notes::default());
    let resource = decode(&body, &mut notes).map_err(|reject| reject.to_string())?;
    if kind_of(&resource) != KINDS[place] || **resource.name() != *item.name {
        return Err(format!("the resource `{}` is named `{}` in it", resource.name(), item.name));
    }
    Ok((place, Kept { source, resource, raw: body.value.into(), notes }))
}
