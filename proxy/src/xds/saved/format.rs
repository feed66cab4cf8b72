//! What a file looks like: a magic number, the version of the format, a SHA-256 of all that follows, then messages with
//! their lengths in front: one about the file, and one per resource. Pure.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use bytes::Buf;
use outrigger_wire::pb::google::protobuf::Any;
use prost::Message;

use super::{
    super::{
        client::{Item, Update},
        kind::Kind,
        store::Decode,
    },
    KINDS, Restorable, VERSION,
};
use crate::{
    ir::{ConfigSource, Name},
    xds::{decode::Notes, store::kind_of},
};

const MAGIC: &[u8; 8] = b"OUTRLAST";
/// Another one is not read: what its fields mean is not known.
const SCHEMA: u32 = 1;
const PREFIX: usize = MAGIC.len() + 4 + SHA256_OUTPUT_LEN;
/// How far the clock may have gone back since the file was written.
const SKEW: Duration = Duration::from_secs(300);

/// Who wrote, and for whom.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Head {
    #[prost(string, tag = "1")]
    pub(super) node_id: String,
    #[prost(string, tag = "2")]
    pub(super) node_cluster: String,
    /// Seconds since 1970.
    #[prost(uint64, tag = "3")]
    pub(super) written: u64,
    /// Version of the program, for people.
    #[prost(string, tag = "4")]
    pub(super) program: String,
    #[prost(uint64, tag = "5")]
    pub(super) resources: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Kept {
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

/// A resource to be written.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) source: ConfigSource,
    pub(super) name: Name,
    pub(super) version: Arc<str>,
    pub(super) raw: Arc<[u8]>,
}

/// The node a file is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::xds) struct Owner {
    pub(in crate::xds) id: String,
    pub(in crate::xds) cluster: String,
}

/// The bytes of a file.
pub(super) fn encode(owner: &Owner, entries: &[Entry], now: SystemTime) -> Vec<u8> {
    let written = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let head = Head {
        node_id: owner.id.clone(),
        node_cluster: owner.cluster.clone(),
        written,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        resources: entries.len() as u64,
    };
    let mut file = Vec::with_capacity(PREFIX + entries.iter().map(|e| e.raw.len() + 256).sum::<usize>());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&SCHEMA.to_be_bytes());
    file.extend_from_slice(&[0; SHA256_OUTPUT_LEN]);
    // Memory is all that an encoding into a `Vec` may lack.
    let mut put = |encoded: Vec<u8>| file.extend_from_slice(&encoded);
    put(head.encode_length_delimited_to_vec());
    for entry in entries {
        let (cluster, delta) = match &entry.source {
            ConfigSource::Grpc { cluster, delta } => (cluster.to_string(), *delta),
            _ => (String::new(), false),
        };
        let kept = Kept {
            type_url: entry.kind.type_url().to_owned(),
            cluster,
            delta,
            name: entry.name.to_string(),
            version: entry.version.to_string(),
            raw: entry.raw.to_vec(),
        };
        put(kept.encode_length_delimited_to_vec());
    }
    let sum = digest(&SHA256, &file[PREFIX..]);
    file[PREFIX - SHA256_OUTPUT_LEN..PREFIX].copy_from_slice(sum.as_ref());
    file
}

/// Reads a file for `owner`, or says why it must not be used. Every resource is decoded here once, so that a file with
/// one that is not understood is refused before anything of it is in force.
pub(super) fn decode(
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
    let written = age(head.written, max_age, now)?;
    let mut updates: BTreeMap<(usize, ConfigSource), Vec<Item>> = BTreeMap::new();
    let mut read = 0;
    while body.has_remaining() {
        let kept = Kept::decode_length_delimited(&mut body).map_err(broken)?;
        read += 1;
        let (place, source, item) = item(kept, decode)?;
        updates.entry((place, source)).or_default().push(item);
    }
    if read != head.resources {
        return Err(format!("it has {read} of {} resources", head.resources));
    }
    let update = |((place, source), items)| {
        let (version, nonce) = (VERSION.to_owned(), String::new());
        (source, Update { kind: KINDS[place], full: true, version, nonce, items, removed: Vec::new() })
    };
    Ok(Restorable { written, updates: updates.into_iter().map(update).collect() })
}

fn age(written: u64, max_age: Duration, now: SystemTime) -> Result<SystemTime, String> {
    let at = UNIX_EPOCH.checked_add(Duration::from_secs(written)).ok_or("its time is none")?;
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

fn item(kept: Kept, decode: Decode) -> Result<(usize, ConfigSource, Item), String> {
    let kind = Kind::from_type_url(&kept.type_url);
    let place = KINDS.iter().position(|k| Some(*k) == kind);
    let Some(place) = place else { return Err(format!("it has a resource of type `{}`", kept.type_url)) };
    let source = match kept.cluster.is_empty() {
        true => ConfigSource::Ads,
        false => ConfigSource::Grpc { cluster: kept.cluster.as_str().into(), delta: kept.delta },
    };
    let body = Any { type_url: kept.type_url, value: kept.raw };
    let known = decode(&body, &mut Notes::default()).map_err(|reject| reject.to_string())?;
    if kind_of(&known) != KINDS[place] || **known.name() != *kept.name {
        return Err(format!("the resource `{}` is named `{}` in it", known.name(), kept.name));
    }
    let item = Item { name: kept.name, version: VERSION.to_owned(), ..Item::bare(body) };
    Ok((place, source, item))
}
