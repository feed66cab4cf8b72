//! Identities of the two sides: ECDSA P-256 with SPIFFE URIs, as mesh control planes issue them.

use std::{os::unix::fs::PermissionsExt, path::Path};

use outrigger_tests::pki::Authority;

/// The server's identity, which the client's proxy insists on.
pub(super) const SERVER_ID: &str = "spiffe://cluster.local/ns/default/sa/server";
/// The client's identity.
pub(crate) const CLIENT_ID: &str = "spiffe://cluster.local/ns/default/sa/client";

/// Writes `root.pem`, and for `client` and `server` `.crt`, `.key` and (for HAProxy) `.pem` with both.
pub(super) fn write(dir: &Path) -> anyhow::Result<()> {
    let authority = Authority::new("bench");
    authority.write_root(dir, "root");
    for (name, id) in [("client", CLIENT_ID), ("server", SERVER_ID)] {
        let files = authority.issue(dir, name, id);
        let both = [std::fs::read(&files.certificate)?, std::fs::read(&files.key)?].concat();
        let joined = dir.join(format!("{name}.pem"));
        std::fs::write(&joined, both)?;
        // Throw-away keys of a throw-away authority, read by the proxies' user.
        for file in [files.certificate, files.key, joined] {
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644))?;
        }
    }
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o777))?;
    Ok(())
}
