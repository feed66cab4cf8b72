//! The admin interface's address and access log.

use outrigger_wire::pb::envoy::config::{
    bootstrap::v3::Admin as Pb,
    core::v3::{Address, address},
};

use super::{Admin, AdminAddress};
use crate::xds::decode::{
    NoteKind, Reject,
    access_log::{access_logs, to_file},
    address::local,
    at::At,
    fields::fields,
    scalar::not_empty,
};

pub(super) fn admin(message: &Option<Pb>, at: &At<'_>) -> Result<Option<Admin>, Reject> {
    let Some(message) = message else { return Ok(None) };
    let at = at.field("admin");
    fields!(&at, message => Pb {
        read: [access_log, access_log_path, address],
        harmless: [profile_path, ignore_global_conn_limit],
        unsupported: [socket_options],
        // It narrows what may be asked.
        refuse: [allow_paths],
    });
    let mut access_log = access_logs("access_log", &message.access_log, &at)?;
    if !message.access_log_path.is_empty() {
        at.field("access_log_path").note(NoteKind::Deprecated, "use access_log");
        if message.access_log_path != "/dev/null" {
            access_log.push(to_file(&message.access_log_path));
        }
    }
    let Some(address) = &message.address else {
        if !access_log.is_empty() {
            at.field("address").harmless("without an address there is no admin interface to log");
        }
        return Ok(None);
    };
    Ok(Some(Admin { address: listen(address, &at.field("address"))?, access_log }))
}

fn listen(message: &Address, at: &At<'_>) -> Result<AdminAddress, Reject> {
    match at.required("address", &message.address)? {
        address::Address::SocketAddress(socket) => Ok(AdminAddress::Tcp(local(socket, &at.field("socket_address"))?)),
        address::Address::Pipe(pipe) => {
            let at = at.field("pipe");
            let path = not_empty(&pipe.path, &at.field("path"))?;
            if pipe.mode != 0 {
                at.field("mode").unsupported("the socket gets the process's own mode");
            }
            Ok(AdminAddress::Pipe(path.into()))
        }
        address::Address::EnvoyInternalAddress(_) => {
            Err(at.field("envoy_internal_address").reject("the admin interface needs a real address"))
        }
    }
}
