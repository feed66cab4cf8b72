//! The static resources apart from the rest of a bootstrap: they are decoded one at a time.
//!
//! Decoded messages are several times the size of what is made of them; thousands of clusters are never all there at once.

use outrigger_wire::{
    pb::envoy::config::bootstrap::v3::Bootstrap as Pb,
    scan::{Content, fields},
};
use prost::{DecodeError, Message};

use crate::xds::decode::{Reject, at::At};

/// Field of the bootstrap.
const STATIC_RESOURCES: u32 = 2;

/// The encoded resources in their order.
#[derive(Debug, Default)]
pub(super) struct Statics<'a> {
    pub(super) listeners: Vec<&'a [u8]>,
    pub(super) clusters: Vec<&'a [u8]>,
    pub(super) secrets: Vec<&'a [u8]>,
}

impl<'a> Statics<'a> {
    /// The bootstrap without its static resources, and these.
    pub(super) fn of(bootstrap: &'a [u8]) -> Result<(Pb, Self), DecodeError> {
        let mut statics = Self::default();
        let mut rest = Vec::new();
        for field in fields(bootstrap) {
            let field = field?;
            match field.content {
                Content::Bytes(message) if field.number == STATIC_RESOURCES => statics.add(message)?,
                _ => rest.extend_from_slice(field.whole),
            }
        }
        Ok((Pb::decode(rest.as_slice())?, statics))
    }

    fn add(&mut self, resources: &'a [u8]) -> Result<(), DecodeError> {
        for field in fields(resources) {
            let field = field?;
            match (field.number, field.content) {
                (1, Content::Bytes(listener)) => self.listeners.push(listener),
                (2, Content::Bytes(cluster)) => self.clusters.push(cluster),
                (3, Content::Bytes(secret)) => self.secrets.push(secret),
                _ => {}
            }
        }
        Ok(())
    }
}

/// As [`At::each`], over resources that are still encoded.
pub(super) fn each<M: Message + Default, T>(
    at: &At<'_>,
    list: &str,
    resources: &[&[u8]],
    decode: impl Fn(&M, &At<'_>) -> Result<T, Reject>,
) -> Result<Vec<T>, Reject> {
    let decode = |(i, resource): (usize, &&[u8])| {
        let at = at.index(list, i);
        let message = M::decode(*resource).map_err(|e| at.reject(e.to_string()))?;
        decode(&message, &at)
    };
    resources.iter().enumerate().map(decode).collect()
}
