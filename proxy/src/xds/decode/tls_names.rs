//! Names of cipher suites and key exchange groups: which are spoken, which are known and never spoken, which are none.

/// What a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Spoken,
    /// Others speak it.
    Unspoken,
    Nothing,
}

const SUITES: [&str; 15] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
];

/// By OpenSSL's or IANA's name.
pub(super) fn suite(name: &str) -> Known {
    let kinds = ["AES128-", "AES256-", "CAMELLIA", "DES-", "PSK-", "ECDHE-", "DHE-", "SEED-", "ARIA", "RC4-", "NULL-"];
    if SUITES.contains(&name) {
        Known::Spoken
    } else if kinds.iter().any(|kind| name.starts_with(kind)) || (name.starts_with("TLS_") && name.contains("_WITH_")) {
        Known::Unspoken
    } else {
        Known::Nothing
    }
}

/// By the name BoringSSL or IANA gives it.
pub(super) fn group(name: &str) -> Known {
    match name.to_ascii_lowercase().as_str() {
        "x25519" | "p-256" | "p256" | "secp256r1" | "prime256v1" | "p-384" | "p384" | "secp384r1"
        | "x25519mlkem768" | "secp256r1mlkem768" | "p256mlkem768" | "mlkem768" | "mlkem1024" => Known::Spoken,
        "p-521" | "p521" | "secp521r1" | "p-224" | "p224" | "secp224r1" | "x448" | "x25519kyber768draft00" => {
            Known::Unspoken
        }
        _ => Known::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        for spoken in SUITES {
            assert_eq!(suite(spoken), Known::Spoken);
        }
        for weak in ["AES128-SHA", "ECDHE-RSA-AES128-SHA", "TLS_RSA_WITH_AES_128_CBC_SHA", "DES-CBC3-SHA"] {
            assert_eq!(suite(weak), Known::Unspoken, "{weak}");
        }
        assert_eq!(suite("AES-ROT13"), Known::Nothing);
        assert_eq!((group("X25519"), group("P-521"), group("P-1")), (Known::Spoken, Known::Unspoken, Known::Nothing));
    }
}
