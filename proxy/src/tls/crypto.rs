//! Protocol versions, cipher suites, groups and ALPN: configuration names to rustls values.
//!
//! A name nobody knows is an error; one that is known but weak or unsupported here is skipped with a warning, and an
//! empty outcome is an error.

use std::sync::Arc;

use rustls::{
    CipherSuite, NamedGroup, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    version::{TLS12, TLS13},
};

use super::TlsError;
use crate::ir::secret::{CommonTls, TlsVersion};

/// Istio's metadata exchange: who negotiates it must speak it inside the session, which nothing here does.
const PEER_EXCHANGE: &str = "istio-peer-exchange";

/// The enabled protocol versions, newest first.
pub(super) fn versions(common: &CommonTls) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
    let enabled = |v| common.min_version <= v && v <= common.max_version;
    let versions: Vec<_> = [(TlsVersion::V1_3, &TLS13), (TlsVersion::V1_2, &TLS12)]
        .into_iter()
        .filter(|(v, _)| enabled(*v))
        .map(|(_, s)| s)
        .collect();
    if versions.is_empty() {
        return Err(TlsError::new("the minimum TLS version is above the maximum"));
    }
    Ok(versions)
}

/// The provider restricted to the configured suites and groups.
pub(super) fn provider(common: &CommonTls) -> Result<Arc<CryptoProvider>, TlsError> {
    let mut provider = aws_lc_rs::default_provider();
    // AES-128 first, as every other mesh stack has it: as safe for sessions of this length, and cheaper per byte.
    provider.cipher_suites.sort_by_key(|s| match s.suite() {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => 0,
        CipherSuite::TLS13_AES_256_GCM_SHA384 | CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => 1,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 2,
        _ => 3,
    });
    if !common.cipher_suites.is_empty() {
        // TLS 1.3 suites are not configurable, in Envoy as here.
        let is_13 = |s: &rustls::SupportedCipherSuite| s.tls13().is_some();
        let mut suites: Vec<_> = provider.cipher_suites.iter().copied().filter(is_13).collect();
        // `[A|B]` marks suites of equal preference.
        let names = common.cipher_suites.iter().flat_map(|n| n.trim_matches(['[', ']']).split('|')).map(str::trim);
        for name in names.filter(|n| !n.is_empty()) {
            let wanted = match suite(name) {
                Some(suite) => suite,
                None if looks_like_suite(name) => {
                    tracing::warn!(suite = name, "this cipher suite is not supported and is skipped");
                    continue;
                }
                None => return Err(TlsError::new(format!("unknown cipher suite '{name}'"))),
            };
            let found = aws_lc_rs::ALL_CIPHER_SUITES.iter().find(|s| s.suite() == wanted);
            suites.extend(found.filter(|s| !is_13(s)));
        }
        if common.max_version == TlsVersion::V1_2 && suites.iter().all(is_13) {
            return Err(TlsError::new("none of the cipher suites is supported"));
        }
        provider.cipher_suites = suites;
    }
    if !common.groups.is_empty() {
        let mut groups = Vec::new();
        for name in common.groups.iter().map(|n| n.trim()) {
            let wanted = group(name).ok_or_else(|| TlsError::new(format!("unknown key exchange group '{name}'")))?;
            match aws_lc_rs::ALL_KX_GROUPS.iter().find(|g| g.name() == wanted) {
                Some(group) => groups.push(*group),
                None => tracing::warn!(group = name, "this key exchange group is not supported and is skipped"),
            }
        }
        if groups.is_empty() {
            return Err(TlsError::new("none of the key exchange groups is supported"));
        }
        provider.kx_groups = groups;
    }
    Ok(Arc::new(provider))
}

/// Protocol names as the handshake carries them.
pub(super) fn alpn(names: &[Box<str>]) -> Result<Vec<Vec<u8>>, TlsError> {
    if let Some(bad) = names.iter().find(|n| n.is_empty() || n.len() > 255) {
        return Err(TlsError::new(format!("an ALPN protocol has 1 to 255 bytes, '{bad}' does not")));
    }
    Ok(names.iter().filter(|n| ***n != *PEER_EXCHANGE).map(|n| n.as_bytes().to_vec()).collect())
}

fn suite(name: &str) -> Option<CipherSuite> {
    use CipherSuite as S;
    Some(match name {
        "ECDHE-ECDSA-AES128-GCM-SHA256" | "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => {
            S::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        }
        "ECDHE-ECDSA-AES256-GCM-SHA384" | "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => {
            S::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        }
        "ECDHE-ECDSA-CHACHA20-POLY1305" | "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => {
            S::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        }
        "ECDHE-RSA-AES128-GCM-SHA256" | "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => {
            S::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        }
        "ECDHE-RSA-AES256-GCM-SHA384" | "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => {
            S::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
        }
        "ECDHE-RSA-CHACHA20-POLY1305" | "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => {
            S::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        }
        "TLS_AES_128_GCM_SHA256" => S::TLS13_AES_128_GCM_SHA256,
        "TLS_AES_256_GCM_SHA384" => S::TLS13_AES_256_GCM_SHA384,
        "TLS_CHACHA20_POLY1305_SHA256" => S::TLS13_CHACHA20_POLY1305_SHA256,
        _ => return None,
    })
}

/// Suites other stacks have: static RSA and CBC ones, and PSK.
fn looks_like_suite(name: &str) -> bool {
    matches!(
        name,
        "ECDHE-ECDSA-AES128-SHA"
            | "ECDHE-ECDSA-AES256-SHA"
            | "ECDHE-ECDSA-AES128-SHA256"
            | "ECDHE-ECDSA-AES256-SHA384"
            | "ECDHE-RSA-AES128-SHA"
            | "ECDHE-RSA-AES256-SHA"
            | "ECDHE-RSA-AES128-SHA256"
            | "ECDHE-RSA-AES256-SHA384"
            | "ECDHE-PSK-AES128-CBC-SHA"
            | "ECDHE-PSK-AES256-CBC-SHA"
            | "ECDHE-PSK-CHACHA20-POLY1305"
            | "AES128-GCM-SHA256"
            | "AES256-GCM-SHA384"
            | "AES128-SHA"
            | "AES256-SHA"
            | "AES128-SHA256"
            | "AES256-SHA256"
            | "PSK-AES128-CBC-SHA"
            | "PSK-AES256-CBC-SHA"
            | "DES-CBC3-SHA"
    ) || (name.starts_with("TLS_") && name.contains("_WITH_"))
}

fn group(name: &str) -> Option<NamedGroup> {
    Some(match name.to_ascii_lowercase().as_str() {
        "x25519" => NamedGroup::X25519,
        "p-256" | "p256" | "secp256r1" | "prime256v1" => NamedGroup::secp256r1,
        "p-384" | "p384" | "secp384r1" => NamedGroup::secp384r1,
        "p-521" | "p521" | "secp521r1" => NamedGroup::secp521r1,
        "x448" => NamedGroup::X448,
        "x25519mlkem768" => NamedGroup::X25519MLKEM768,
        "secp256r1mlkem768" | "p256mlkem768" => NamedGroup::secp256r1MLKEM768,
        "mlkem768" => NamedGroup::MLKEM768,
        "mlkem1024" => NamedGroup::MLKEM1024,
        "x25519kyber768draft00" => NamedGroup::Unknown(0x6399),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common(suites: &[&str], groups: &[&str]) -> CommonTls {
        CommonTls {
            cipher_suites: suites.iter().map(|s| Box::from(*s)).collect(),
            groups: groups.iter().map(|s| Box::from(*s)).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn suites_in_both_spellings_and_order() {
        let config =
            common(&["[ECDHE-RSA-CHACHA20-POLY1305|TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]", "AES128-SHA"], &[]);
        let suites = provider(&config).unwrap().cipher_suites.clone();
        let tls12: Vec<_> = suites.iter().filter(|s| s.tls13().is_none()).map(|s| s.suite()).collect();
        assert_eq!(
            tls12,
            [
                CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
                CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            ]
        );
        assert!(suites.len() > tls12.len(), "the TLS 1.3 suites stay");
        assert!(provider(&common(&["NOT-A-SUITE"], &[])).unwrap_err().0.contains("NOT-A-SUITE"));
        let only_weak = CommonTls { max_version: TlsVersion::V1_2, ..common(&["AES128-SHA"], &[]) };
        assert!(provider(&only_weak).is_err());
    }

    #[test]
    fn the_default_suites_begin_with_the_cheapest() {
        let provider = provider(&common(&[], &[])).unwrap();
        let all: Vec<_> = provider.cipher_suites.iter().map(|s| s.suite()).collect();
        assert_eq!(all.len(), aws_lc_rs::DEFAULT_CIPHER_SUITES.len());
        assert_eq!(all[0], CipherSuite::TLS13_AES_128_GCM_SHA256);
        assert_eq!(all[3], CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
    }

    #[test]
    fn groups_prefer_the_post_quantum_hybrid_by_default() {
        let names = |c: &CommonTls| provider(c).unwrap().kx_groups.iter().map(|g| g.name()).collect::<Vec<_>>();
        assert_eq!(names(&common(&[], &[]))[0], NamedGroup::X25519MLKEM768);
        assert_eq!(names(&common(&[], &["P-384", "x25519"])), [NamedGroup::secp384r1, NamedGroup::X25519]);
        assert_eq!(names(&common(&[], &["P-521", "P-256"])), [NamedGroup::secp256r1]);
        assert!(provider(&common(&[], &["P-521"])).is_err());
        assert!(provider(&common(&[], &["curve25519"])).unwrap_err().0.contains("curve25519"));
    }

    #[test]
    fn versions_and_alpn() {
        let only_13 = CommonTls { min_version: TlsVersion::V1_3, ..Default::default() };
        assert_eq!(versions(&only_13).unwrap(), [&TLS13]);
        assert_eq!(versions(&CommonTls::default()).unwrap(), [&TLS13, &TLS12]);
        let none = CommonTls { max_version: TlsVersion::V1_2, ..only_13 };
        assert!(versions(&none).is_err());
        assert_eq!(alpn(&["istio-peer-exchange".into(), "h2".into()]).unwrap(), [b"h2".to_vec()]);
        assert!(alpn(&["".into()]).is_err() && alpn(&["x".repeat(256).into()]).is_err());
    }

    #[test]
    fn post_quantum_key_exchange_is_offered_first_and_never_required() {
        let provider = provider(&CommonTls::default()).unwrap();
        let groups: Vec<_> = provider.kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(groups[0], NamedGroup::X25519MLKEM768);
        assert!(groups.contains(&NamedGroup::X25519) && groups.contains(&NamedGroup::secp256r1));
    }
}
