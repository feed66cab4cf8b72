//! The same files, the same wire, a real Envoy on either side; and our control plane with clients that are not ours.

#![allow(clippy::unwrap_used)]

mod control_plane;
mod grpc_xds;
mod origination;
mod static_files;
