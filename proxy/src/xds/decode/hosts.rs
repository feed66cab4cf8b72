//! Virtual hosts apart from the route configuration they are in: they are decoded one at a time.
//!
//! Messages are several times the size of what is made of them; thousands of virtual hosts are never all there at once.

use outrigger_wire::{
    pb::envoy::{
        config::route::v3::RouteConfiguration,
        extensions::filters::network::http_connection_manager::v3::HttpConnectionManager,
    },
    scan::{Content, fields},
};
use prost::{
    DecodeError, Message,
    encoding::{WireType, encode_key, encode_varint},
};

/// Field of a route configuration.
const VIRTUAL_HOSTS: u32 = 2;
/// The members of a connection manager's oneof `route_specifier`: `rds`, `route_config`, `scoped_routes`.
const RDS: u32 = 3;
const ROUTE_CONFIG: u32 = 4;
const SCOPED_ROUTES: u32 = 31;

/// A message without the virtual hosts in it, and these, encoded.
#[derive(Debug)]
pub(crate) struct Apart<'a, M> {
    pub(crate) message: M,
    pub(crate) hosts: Vec<&'a [u8]>,
}

impl<'a> Apart<'a, RouteConfiguration> {
    pub(crate) fn routes(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut hosts = Vec::new();
        let rest = split(bytes, &mut hosts)?;
        Ok(Self { message: RouteConfiguration::decode(rest.as_slice())?, hosts })
    }
}

impl<'a> Apart<'a, HttpConnectionManager> {
    pub(crate) fn manager(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut hosts = Vec::new();
        let mut rest = Vec::new();
        for field in fields(bytes) {
            let field = field?;
            match (field.number, field.content) {
                (ROUTE_CONFIG, Content::Bytes(routes)) => {
                    let routes = split(routes, &mut hosts)?;
                    encode_key(ROUTE_CONFIG, WireType::LengthDelimited, &mut rest);
                    encode_varint(routes.len() as u64, &mut rest);
                    rest.extend(routes);
                    continue;
                }
                // Another member of the oneof takes the place of the one before.
                (RDS | SCOPED_ROUTES, _) => hosts.clear(),
                _ => {}
            }
            rest.extend_from_slice(field.whole);
        }
        Ok(Self { message: HttpConnectionManager::decode(rest.as_slice())?, hosts })
    }
}

/// The route configuration without its virtual hosts, which are added to `hosts`.
fn split<'a>(routes: &'a [u8], hosts: &mut Vec<&'a [u8]>) -> Result<Vec<u8>, DecodeError> {
    let mut rest = Vec::new();
    for field in fields(routes) {
        let field = field?;
        match field.content {
            Content::Bytes(host) if field.number == VIRTUAL_HOSTS => hosts.push(host),
            _ => rest.extend_from_slice(field.whole),
        }
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use outrigger_wire::pb::envoy::{
        config::route::v3::VirtualHost,
        extensions::filters::network::http_connection_manager::v3::{
            Rds, http_connection_manager::RouteSpecifier as Specifier,
        },
    };

    use super::*;

    fn routes(name: &str, hosts: &[&str]) -> RouteConfiguration {
        let host = |name: &&str| VirtualHost { name: (*name).to_owned(), ..Default::default() };
        RouteConfiguration {
            name: name.into(),
            virtual_hosts: hosts.iter().map(host).collect(),
            ignore_port_in_host_matching: true,
            ..Default::default()
        }
    }

    fn manager(specifier: Specifier) -> Vec<u8> {
        let manager =
            HttpConnectionManager { stat_prefix: "s".into(), route_specifier: Some(specifier), ..Default::default() };
        manager.encode_to_vec()
    }

    fn names(hosts: &[&[u8]]) -> Vec<String> {
        hosts.iter().map(|host| VirtualHost::decode(*host).unwrap().name).collect()
    }

    #[test]
    fn nothing_is_lost() {
        let bytes = routes("r", &["a", "b"]).encode_to_vec();
        let apart = Apart::routes(&bytes).unwrap();
        assert_eq!((apart.message, names(&apart.hosts)), (routes("r", &[]), vec!["a".to_owned(), "b".to_owned()]));

        let bytes = manager(Specifier::RouteConfig(routes("r", &["a"])));
        let apart = Apart::manager(&bytes).unwrap();
        assert_eq!(apart.message.stat_prefix, "s");
        assert_eq!(apart.message.route_specifier, Some(Specifier::RouteConfig(routes("r", &[]))));
        assert_eq!(names(&apart.hosts), ["a"]);
    }

    #[test]
    fn the_last_member_of_the_oneof_counts() {
        let inline = |host| manager(Specifier::RouteConfig(routes("r", &[host])));
        let rds = manager(Specifier::Rds(Rds { route_config_name: "n".into(), ..Default::default() }));
        let bytes = [inline("a"), rds.clone()].concat();
        let apart = Apart::manager(&bytes).unwrap();
        assert!(matches!(apart.message.route_specifier, Some(Specifier::Rds(_))) && apart.hosts.is_empty());
        let bytes = [inline("a"), rds, inline("b")].concat();
        assert_eq!(names(&Apart::manager(&bytes).unwrap().hosts), ["b"]);
        let bytes = [inline("a"), inline("b")].concat();
        assert_eq!(names(&Apart::manager(&bytes).unwrap().hosts), ["a", "b"]);
    }

    #[test]
    fn what_is_cut_short_is_an_error() {
        let bytes = manager(Specifier::RouteConfig(routes("r", &["abc"])));
        assert!((4..bytes.len()).all(|end| Apart::manager(&bytes[..end]).is_err()));
    }
}
