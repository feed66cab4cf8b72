//! The connection manager's options on headers, paths and client certificates.

use http::HeaderValue;
use outrigger_wire::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager as Pb,
    http_connection_manager::{
        ForwardClientCertDetails, ForwardClientCertFormat, InternalAddressConfig, PathWithEscapedSlashesAction,
        ServerHeaderTransformation, SetCurrentClientCertDetails, StripPortMode,
    },
};

use super::{
    address::cidr,
    at::At,
    fields::fields,
    report::Reject,
    scalar::{bool_or, enumeration},
};
use crate::ir::{
    http::{ClientCertDetails, EscapedSlashes, ForwardClientCert, ServerHeader, StripPort},
    matcher::Cidr,
};

/// Envoy's default for `server_name`.
const SERVER_NAME: &str = "envoy";

pub(crate) fn server_name(message: &Pb, at: &At<'_>) -> Result<HeaderValue, Reject> {
    match message.server_name.as_str() {
        "" => Ok(HeaderValue::from_static(SERVER_NAME)),
        name => HeaderValue::from_str(name).map_err(|_| at.field("server_name").reject("is not a header value")),
    }
}

/// The networks whose clients are internal; none without a configuration, as Envoy has it since 1.33.
pub(crate) fn internal_networks(message: &Pb, at: &At<'_>) -> Result<Vec<Cidr>, Reject> {
    let Some(config) = &message.internal_address_config else { return Ok(Vec::new()) };
    let at = at.field("internal_address_config");
    fields!(&at, config => InternalAddressConfig { read: [cidr_ranges], harmless: [unix_sockets] });
    at.each("cidr_ranges", &config.cidr_ranges, cidr)
}

pub(crate) fn header_value(text: &str, at: &At<'_>) -> Result<Box<str>, Reject> {
    match HeaderValue::from_str(text) {
        Ok(_) => Ok(text.into()),
        Err(_) => Err(at.reject("is not a header value")),
    }
}

pub(crate) fn server_header(message: &Pb, at: &At<'_>) -> Result<ServerHeader, Reject> {
    use ServerHeaderTransformation as T;
    let at = at.field("server_header_transformation");
    Ok(match enumeration(message.server_header_transformation, &at)? {
        T::Overwrite => ServerHeader::Overwrite,
        T::AppendIfAbsent => ServerHeader::AppendIfAbsent,
        T::PassThrough => ServerHeader::PassThrough,
    })
}

pub(crate) fn escaped_slashes(message: &Pb, at: &At<'_>) -> Result<EscapedSlashes, Reject> {
    use PathWithEscapedSlashesAction as A;
    let at = at.field("path_with_escaped_slashes_action");
    Ok(match enumeration(message.path_with_escaped_slashes_action, &at)? {
        A::ImplementationSpecificDefault | A::KeepUnchanged => EscapedSlashes::Keep,
        A::RejectRequest => EscapedSlashes::Reject,
        A::UnescapeAndRedirect => EscapedSlashes::UnescapeAndRedirect,
        A::UnescapeAndForward => EscapedSlashes::UnescapeAndForward,
    })
}

pub(crate) fn strip_port(message: &Pb, at: &At<'_>) -> Result<StripPort, Reject> {
    let any = matches!(message.strip_port_mode, Some(StripPortMode::StripAnyHostPort(true)));
    match (any, message.strip_matching_host_port) {
        (true, true) => Err(at.field("strip_matching_host_port").reject("excludes strip_any_host_port")),
        (true, false) => Ok(StripPort::Any),
        (false, true) => Ok(StripPort::Matching),
        (false, false) => Ok(StripPort::No),
    }
}

pub(crate) fn client_cert(message: &Pb, at: &At<'_>) -> Result<(ForwardClientCert, ClientCertDetails), Reject> {
    use ForwardClientCertDetails as F;
    let forward = match enumeration(message.forward_client_cert_details, &at.field("forward_client_cert_details"))? {
        F::Sanitize => ForwardClientCert::Sanitize,
        F::ForwardOnly => ForwardClientCert::ForwardOnly,
        F::AppendForward => ForwardClientCert::AppendForward,
        F::SanitizeSet => ForwardClientCert::SanitizeSet,
        F::AlwaysForwardOnly => ForwardClientCert::AlwaysForwardOnly,
    };
    let Some(m) = &message.set_current_client_cert_details else {
        return Ok((forward, ClientCertDetails::default()));
    };
    let at = at.field("set_current_client_cert_details");
    fields!(&at, m => SetCurrentClientCertDetails {
        read: [subject, cert, chain, dns, uri, format],
        unsupported: [issuer],
    });
    let format: ForwardClientCertFormat = enumeration(m.format, &at.field("format"))?;
    if format != ForwardClientCertFormat::Text {
        return Err(at.field("format").reject("only the text form of x-forwarded-client-cert is supported"));
    }
    let subject = bool_or(&m.subject, false);
    Ok((forward, ClientCertDetails { subject, cert: m.cert, chain: m.chain, dns: m.dns, uri: m.uri }))
}
