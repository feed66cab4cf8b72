//! What tells requests apart: each combination of values has a limit of its own.

use serde::{Deserialize, Deserializer, de::Error};

use crate::model::scalars::header_name;

/// One part of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitKey {
    /// The SPIFFE identity of the caller's certificate; all callers without one are one.
    SourceIdentity,
    /// Requests without it are told apart from those with it.
    Header(String),
    /// Without the query.
    Path,
    RemoteAddress {
        /// As `x-forwarded-for` says, which anybody can write; else the address of the connection.
        forwarded: bool,
    },
}

impl LimitKey {
    /// Its name in descriptors.
    pub fn name(&self) -> String {
        match self {
            Self::SourceIdentity => "source_identity".to_owned(),
            Self::Header(name) => format!("header:{name}"),
            Self::Path => "path".to_owned(),
            Self::RemoteAddress { .. } => "remote_address".to_owned(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Address {
    #[serde(default)]
    forwarded: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Raw {
    source_identity: Option<Empty>,
    header: Option<String>,
    path: Option<Empty>,
    remote_address: Option<Address>,
}

impl<'de> Deserialize<'de> for LimitKey {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        match Raw::deserialize(de)? {
            Raw { source_identity: Some(Empty {}), header: None, path: None, remote_address: None } => {
                Ok(Self::SourceIdentity)
            }
            Raw { source_identity: None, header: Some(name), path: None, remote_address: None } => {
                header_name(&name).map_err(D::Error::custom)?;
                Ok(Self::Header(name.to_ascii_lowercase()))
            }
            Raw { source_identity: None, header: None, path: Some(Empty {}), remote_address: None } => Ok(Self::Path),
            Raw { source_identity: None, header: None, path: None, remote_address: Some(Address { forwarded }) } => {
                Ok(Self::RemoteAddress { forwarded })
            }
            Raw { .. } => Err(D::Error::custom(
                "give exactly one of sourceIdentity: {}, header: NAME, path: {}, remoteAddress: {}",
            )),
        }
    }
}

/// Each part once, and not too many headers.
pub(super) fn check(keys: &[LimitKey], max_headers: usize) -> Result<(), String> {
    for (index, key) in keys.iter().enumerate() {
        if keys[..index].iter().any(|other| other.name() == key.name()) {
            return Err(format!("`key` has {} twice", key.name()));
        }
    }
    let headers = keys.iter().filter(|key| matches!(key, LimitKey::Header(_))).count();
    if headers > max_headers {
        return Err(format!("`key` has {headers} headers, more than {max_headers}"));
    }
    Ok(())
}
