//! The harness: the same file and the same script on two proxies, observed alike.

pub(crate) mod authz;
mod bootstrap;
pub(crate) mod case;
mod client;
mod client_http2;
mod compare;
mod explained;
mod host;
mod observe;
pub(crate) mod reply;
pub(crate) mod request;
mod run;
mod server_http1;
mod server_http2;
mod server_tcp;
mod stage;
pub(crate) mod table;
mod tls;
pub(crate) mod tokens;
mod wire;

pub(crate) use self::{
    case::{Case, Group, case, group},
    explained::Agreement,
    reply::*,
    request::*,
    run::{explained, run},
};
