//! Rules files in the form of lyft/ratelimit: one domain and its tree of descriptors per YAML document.
//!
//! Beside its fields `rate_limit` takes `algorithm` (`fixed_window`, the default, or `gcra`) and, for GCRA, `burst`.
//! What is not understood is refused with its path. Pure: reading the file is the caller's.

use std::sync::Arc;

use serde::Deserialize;

use super::{
    rate::{Algorithm, Rate, Unit},
    rules::{Branch, DOMAIN, Domains},
};

const MAX_NODES: usize = 100_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    domain: String,
    #[serde(default)]
    descriptors: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Descriptor {
    key: String,
    /// A `*` at its end stands for anything that follows.
    #[serde(default)]
    value: String,
    rate_limit: Option<Limit>,
    #[serde(default)]
    shadow_mode: bool,
    #[serde(default)]
    descriptors: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    unit: Option<String>,
    requests_per_unit: Option<u32>,
    #[serde(default)]
    unlimited: bool,
    name: Option<String>,
    algorithm: Option<String>,
    burst: Option<u32>,
}

/// All domains of one file's text, or everything that is wrong with it.
pub fn parse(text: &str) -> Result<Domains, String> {
    let options = serde_saphyr::options! { with_snippet: false };
    let files: Vec<serde_json::Value> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|e| format!("not valid YAML: {e}"))?;
    let mut domains = Domains::new();
    let mut nodes = 0;
    for (index, value) in files.into_iter().enumerate() {
        let at = |reason: String| format!("document {}: {reason}", index + 1);
        if value.is_null() {
            continue;
        }
        if !value.is_object() {
            return Err(at("is not a mapping with domain and descriptors".to_owned()));
        }
        let file: File =
            serde_path_to_error::deserialize(&value).map_err(|e| at(format!("{}: {}", e.path(), e.inner())))?;
        if file.domain.is_empty() || file.domain == DOMAIN {
            return Err(at(format!("domain: `{}` is not for rules files", file.domain)));
        }
        let mut root = Branch { name: file.domain.as_str().into(), ..Branch::default() };
        fill(&mut root, file.descriptors, "descriptors", &mut nodes).map_err(at)?;
        if domains.insert(file.domain.clone(), root).is_some() {
            return Err(at(format!("domain: `{}` is there twice", file.domain)));
        }
    }
    Ok(domains)
}

fn fill(parent: &mut Branch, descriptors: Vec<Descriptor>, path: &str, nodes: &mut usize) -> Result<(), String> {
    for (index, descriptor) in descriptors.into_iter().enumerate() {
        let path = format!("{path}[{index}]");
        *nodes += 1;
        if *nodes > MAX_NODES {
            return Err(format!("{path}: more than {MAX_NODES} descriptors"));
        }
        if descriptor.key.is_empty() {
            return Err(format!("{path}.key: must not be empty"));
        }
        let shown = match descriptor.value.as_str() {
            "" => format!("{}.{}", parent.name, descriptor.key),
            value => format!("{}.{}_{value}", parent.name, descriptor.key),
        };
        let (rate, name) = match descriptor.rate_limit {
            None => (None, None),
            Some(limit) => {
                let name = limit.name.clone();
                (rate(limit).map_err(|reason| format!("{path}.rate_limit{reason}"))?, name)
            }
        };
        let mut branch = Branch { name: shown.into(), rate, shadow: descriptor.shadow_mode, ..Branch::default() };
        fill(&mut branch, descriptor.descriptors, &format!("{path}.descriptors"), nodes)?;
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            branch.name = Arc::from(name);
        }
        let twice = || format!("{path}: key and value are there twice");
        let (key, value) = (descriptor.key, descriptor.value);
        match value.strip_suffix('*') {
            Some(prefix) => {
                if parent.prefixes.iter().any(|(k, p, _)| *k == key && p == prefix) {
                    return Err(twice());
                }
                parent.prefixes.push((key, prefix.to_owned(), branch));
            }
            None if value.is_empty() => {
                if parent.any.insert(key, branch).is_some() {
                    return Err(twice());
                }
            }
            None => {
                if parent.exact.insert((key, value), branch).is_some() {
                    return Err(twice());
                }
            }
        }
    }
    parent.prefixes.sort_by(|(_, a, _), (_, b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    Ok(())
}

fn rate(limit: Limit) -> Result<Option<Rate>, String> {
    if limit.unlimited {
        return match (&limit.unit, limit.requests_per_unit, &limit.algorithm, limit.burst) {
            (None, None, None, None) => Ok(None),
            _ => Err(".unlimited: takes no unit, requests_per_unit, algorithm or burst".to_owned()),
        };
    }
    let unit = match limit.unit.as_deref().map(str::to_ascii_lowercase).as_deref() {
        Some("second") => Unit::Second,
        Some("minute") => Unit::Minute,
        Some("hour") => Unit::Hour,
        Some("day") => Unit::Day,
        Some("week") => Unit::Week,
        Some("month") => Unit::Month,
        Some("year") => Unit::Year,
        Some(other) => {
            return Err(format!(".unit: `{other}` is not one of second, minute, hour, day, week, month, year"));
        }
        None => return Err(".unit: is missing".to_owned()),
    };
    let requests = limit.requests_per_unit.ok_or(".requests_per_unit: is missing")?;
    let algorithm = match limit.algorithm.as_deref() {
        None | Some("fixed_window") => Algorithm::FixedWindow,
        Some("gcra") => Algorithm::Gcra,
        Some(other) => return Err(format!(".algorithm: `{other}` is neither fixed_window nor gcra")),
    };
    match (algorithm, limit.burst) {
        (Algorithm::FixedWindow, Some(_)) => Err(".burst: a fixed window has none".to_owned()),
        (Algorithm::Gcra, Some(0)) => Err(".burst: must be at least 1".to_owned()),
        (_, burst) => Ok(Some(Rate { requests, unit, burst: burst.unwrap_or(requests), algorithm })),
    }
}
