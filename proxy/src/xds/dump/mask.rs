//! `google.protobuf.FieldMask` over rendered JSON: which fields of a message are left.
//!
//! As Envoy applies one: names as in the `.proto` files, no way through repeated fields, the path goes on inside an `Any`.
//! Invariant: `@type` stays, so what is left can still be read.

use outrigger_wire::json::{Member, member};
use serde_json::{Map, Value};

/// Paths of a mask at most, and their parts: more is no question a person asks.
const MOST: usize = 256;
const DEEPEST: usize = 64;

const ANY: &str = "google.protobuf.Any";

/// The paths as a tree; a leaf stands for all below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mask(Vec<(Box<str>, Mask)>);

impl Mask {
    /// Comma-separated paths. `None` where there are too many.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut root = Self::default();
        for (count, path) in text.split(',').filter(|p| !p.is_empty()).enumerate() {
            if count >= MOST || path.split('.').count() > DEEPEST {
                return None;
            }
            root.add(path);
        }
        Some(root)
    }

    /// Whether it leaves everything.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it leaves nothing beside this field.
    pub(super) fn is_of(&self, field: &str) -> bool {
        !self.is_empty() && self.0.iter().all(|(name, _)| **name == *field)
    }

    fn add(&mut self, path: &str) {
        let mut node = self;
        let mut new = false;
        for part in path.split('.') {
            let at = node.0.iter().position(|(name, _)| **name == *part);
            // What a shorter path names is left whole.
            if at.is_some_and(|at| node.0[at].1.is_empty() && !new) {
                return;
            }
            new |= at.is_none();
            let at = at.unwrap_or_else(|| {
                node.0.push((part.into(), Self::default()));
                node.0.len() - 1
            });
            node = &mut node.0[at].1;
        }
        node.0.clear();
    }

    /// Leaves what the mask names of a `message`; `false`, and nothing is changed, where it names what cannot be there.
    pub(super) fn trim(&self, message: &str, value: &mut Value) -> bool {
        let fits = self.fits(message, value);
        if fits {
            self.keep(value);
        }
        fits
    }

    fn fits(&self, message: &str, value: &Value) -> bool {
        self.0.iter().all(|(name, below)| {
            if below.is_empty() && message != ANY {
                return member(message, name).is_some();
            }
            let inner = value.get(&**name);
            match message {
                // What is not there has no type to check against.
                ANY => match value.get("@type").and_then(Value::as_str) {
                    Some(url) => self.fits(url.rsplit('/').next().unwrap_or_default(), value),
                    None => true,
                },
                _ => match member(message, name) {
                    Some(Member::Message(of)) => below.fits(of, inner.unwrap_or(&Value::Null)),
                    Some(Member::Messages(_) | Member::Other) | None => false,
                },
            }
        })
    }

    fn keep(&self, value: &mut Value) {
        if self.is_empty() {
            return;
        }
        let Value::Object(fields) = value else { return };
        let kept = std::mem::take(fields).into_iter().filter_map(|(name, mut inner)| {
            if name == "@type" {
                return Some((name, inner));
            }
            let (_, below) = self.0.iter().find(|(known, _)| **known == *name)?;
            below.keep(&mut inner);
            Some((name, inner))
        });
        *fields = kept.collect::<Map<_, _>>();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn trimmed(mask: &str, message: &str, mut value: Value) -> Option<Value> {
        Mask::parse(mask).unwrap().trim(message, &mut value).then_some(value)
    }

    const STATIC: &str = "envoy.admin.v3.ClustersConfigDump.StaticCluster";

    fn cluster() -> Value {
        json!({
            "cluster": {
                "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
                "name": "a",
                "load_assignment": {"cluster_name": "a", "endpoints": [{}]},
            },
            "last_updated": "2026-11-20T16:31:11Z",
        })
    }

    #[test]
    fn paths_go_on_inside_what_has_a_type_of_its_own() {
        let left = trimmed("cluster.load_assignment.cluster_name,last_updated", STATIC, cluster()).unwrap();
        let url = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
        assert_eq!(
            left,
            json!({
                "cluster": {"@type": url, "load_assignment": {"cluster_name": "a"}},
                "last_updated": "2026-11-20T16:31:11Z",
            })
        );
        assert_eq!(trimmed("cluster.name,cluster", STATIC, cluster()).unwrap()["cluster"], cluster()["cluster"]);
        assert_eq!(trimmed("cluster,cluster.name", STATIC, cluster()).unwrap()["cluster"], cluster()["cluster"]);
        assert_eq!(trimmed("", STATIC, cluster()).unwrap(), cluster());
        assert_eq!(trimmed("last_updated", STATIC, json!({"cluster": {}})).unwrap(), json!({}));
    }

    #[test]
    fn what_cannot_be_there_is_refused() {
        for wrong in
            ["nope", "cluster.nope", "cluster.load_assignment.endpoints.locality", "lastUpdated", "cluster..name"]
        {
            assert_eq!(trimmed(wrong, STATIC, cluster()), None, "{wrong}");
        }
        let all = "envoy.admin.v3.ClustersConfigDump";
        assert_eq!(trimmed("static_clusters.cluster.name", all, json!({"static_clusters": [cluster()]})), None);
        assert!(Mask::parse(&vec!["a"; 300].join(",")).is_none());
        assert!(Mask::parse(&vec!["a"; 100].join(".")).is_none());
    }
}
