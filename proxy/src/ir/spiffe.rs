//! SPIFFE ids: `spiffe://<trust domain>/<path>`, with the mesh's `/ns/<namespace>/sa/<service account>` form.
//!
//! Pure parsing by the SPIFFE standard; what it does not accept is not an identity.

/// A SPIFFE id, borrowed from the URI it was parsed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpiffeId<'a> {
    trust_domain: &'a str,
    path: &'a str,
}

impl<'a> SpiffeId<'a> {
    /// Parses a URI; `None` when it is no valid SPIFFE id.
    pub fn parse(uri: &'a str) -> Option<Self> {
        if uri.len() > 2048 {
            return None;
        }
        let rest = uri.strip_prefix("spiffe://")?;
        let (trust_domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
        if trust_domain.is_empty() || trust_domain.len() > 255 || !trust_domain.bytes().all(label) {
            return None;
        }
        let segment = |s: &str| {
            let known = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            !s.is_empty() && s != "." && s != ".." && s.bytes().all(known)
        };
        match path.strip_prefix('/') {
            Some(path) if !path.split('/').all(segment) => None,
            _ => Some(Self { trust_domain, path }),
        }
    }

    pub fn trust_domain(self) -> &'a str {
        self.trust_domain
    }

    /// With its leading slash; empty for the id of a trust domain.
    pub fn path(self) -> &'a str {
        self.path
    }

    /// Namespace and service account of a workload's id.
    pub fn workload(self) -> Option<(&'a str, &'a str)> {
        self.path.strip_prefix("/ns/")?.split_once("/sa/").filter(|(ns, sa)| !ns.contains('/') && !sa.contains('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads() {
        let id = SpiffeId::parse("spiffe://cluster.local/ns/default/sa/reviews").unwrap();
        assert_eq!(id.trust_domain(), "cluster.local");
        assert_eq!(id.path(), "/ns/default/sa/reviews");
        assert_eq!(id.workload(), Some(("default", "reviews")));
        assert_eq!(SpiffeId::parse("spiffe://td").unwrap().workload(), None);
        assert_eq!(SpiffeId::parse("spiffe://td/ns/a/sa/b/c").unwrap().workload(), None);
        assert_eq!(SpiffeId::parse("spiffe://td/x").unwrap().workload(), None);
    }

    #[test]
    fn what_is_no_identity() {
        for bad in [
            "",
            "spiffe://",
            "spiffe:///ns/a/sa/b",
            "https://td/ns/a/sa/b",
            "SPIFFE://td/ns/a/sa/b",
            "spiffe://TD/x",
            "spiffe://td:80/x",
            "spiffe://user@td/x",
            "spiffe://td/",
            "spiffe://td//x",
            "spiffe://td/x/",
            "spiffe://td/../x",
            "spiffe://td/x?y",
            "spiffe://td/x#y",
            "spiffe://td/%41",
            "spiffe://td/\u{e9}",
        ] {
            assert_eq!(SpiffeId::parse(bad), None, "{bad}");
        }
        assert!(SpiffeId::parse(&format!("spiffe://td/{}", "x".repeat(2048))).is_none());
    }
}
