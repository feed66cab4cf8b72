//! Where a cluster's endpoints come from.

use std::{sync::Arc, time::Duration};

use outrigger_wire::pb::envoy::{
    config::cluster::v3::{
        Cluster as Pb,
        cluster::{
            ClusterDiscoveryType, CustomClusterType, DiscoveryType, DnsLookupFamily, LbConfig, OriginalDstLbConfig,
        },
    },
    extensions::clusters::{common::dns::v3 as common, dns::v3::DnsCluster},
};

use super::{
    at::At,
    endpoint::{self, Hosts},
    extension,
    fields::fields,
    report::Reject,
    scalar::{enumeration, port},
    source::config_source,
};
use crate::ir::{
    cluster::{Discovery, DnsOptions, LookupFamily},
    endpoint::Assignment,
};

const REFRESH_RATE: Duration = Duration::from_secs(5);

pub(crate) fn discovery(message: &Pb, at: &At<'_>) -> Result<Discovery, Reject> {
    let kind = match &message.cluster_discovery_type {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(kind)) => enumeration(*kind, &at.field("type"))?,
        Some(ClusterDiscoveryType::ClusterType(custom)) => return extension_cluster(message, custom, at),
    };
    if kind != DiscoveryType::Eds && message.eds_cluster_config.is_some() {
        return Err(at.field("eds_cluster_config").reject("belongs to clusters of type EDS"));
    }
    let options = || dns_options(message, at);
    Ok(match kind {
        DiscoveryType::Static => Discovery::Static(hosts(message, at, Hosts::Addresses)?),
        DiscoveryType::StrictDns => Discovery::StrictDns(hosts(message, at, Hosts::Names)?, options()?),
        DiscoveryType::LogicalDns => Discovery::LogicalDns(single(hosts(message, at, Hosts::Names)?, at)?, options()?),
        DiscoveryType::Eds => {
            if message.load_assignment.is_some() {
                return Err(at.field("load_assignment").reject("the endpoints of an EDS cluster come from EDS"));
            }
            let eds = at.required("eds_cluster_config", &message.eds_cluster_config)?;
            let at = at.field("eds_cluster_config");
            let source = config_source(at.required("eds_config", &eds.eds_config)?, &at.field("eds_config"))?;
            let service = if eds.service_name.is_empty() { &message.name } else { &eds.service_name };
            Discovery::Eds { service_name: service.as_str().into(), source }
        }
        DiscoveryType::OriginalDst => {
            if message.load_assignment.is_some() {
                return Err(at.field("load_assignment").reject("an ORIGINAL_DST cluster has no endpoints of its own"));
            }
            Discovery::OriginalDst { port_override: port_override(message, at)? }
        }
    })
}

fn port_override(message: &Pb, at: &At<'_>) -> Result<Option<u16>, Reject> {
    let Some(LbConfig::OriginalDstLbConfig(m)) = &message.lb_config else { return Ok(None) };
    let at = at.field("original_dst_lb_config");
    fields!(&at, m => OriginalDstLbConfig {
        read: [upstream_port_override],
        // The client would choose where it is sent.
        refuse: [use_http_header, http_header_name, metadata_key],
    });
    let value = m.upstream_port_override.as_ref().map(|p| port(p.value, &at.field("upstream_port_override")));
    value.transpose()
}

/// `cluster_type`: a DNS cluster in its newer clothes.
fn extension_cluster(message: &Pb, custom: &CustomClusterType, at: &At<'_>) -> Result<Discovery, Reject> {
    let at_type = at.field("cluster_type");
    let any = at_type.required("typed_config", &custom.typed_config)?;
    let inner = at_type.field("typed_config");
    let extension = extension::open(any, &inner)?;
    if !extension.is::<DnsCluster>() {
        return Err(extension.refuse("cluster type", &inner));
    }
    let dns: DnsCluster = extension.message(&inner)?;
    fields!(&inner, &dns => DnsCluster {
        read: [dns_refresh_rate, respect_dns_ttl, dns_lookup_family, all_addresses_in_single_endpoint],
        unsupported: [dns_failure_refresh_rate, dns_jitter, typed_dns_resolver_config, dns_min_refresh_rate],
    });
    let refresh = inner.duration("dns_refresh_rate", &dns.dns_refresh_rate)?;
    let options = DnsOptions {
        family: match enumeration(dns.dns_lookup_family, &inner.field("dns_lookup_family"))? {
            common::DnsLookupFamily::Unspecified | common::DnsLookupFamily::Auto => LookupFamily::Auto,
            common::DnsLookupFamily::V4Only => LookupFamily::V4Only,
            common::DnsLookupFamily::V6Only => LookupFamily::V6Only,
            common::DnsLookupFamily::V4Preferred => LookupFamily::V4Preferred,
            common::DnsLookupFamily::All => LookupFamily::All,
        },
        refresh_rate: rate(refresh, &inner.field("dns_refresh_rate"))?,
        respect_ttl: dns.respect_dns_ttl,
    };
    let hosts = hosts(message, at, Hosts::Names)?;
    Ok(if dns.all_addresses_in_single_endpoint {
        Discovery::LogicalDns(single(hosts, at)?, options)
    } else {
        Discovery::StrictDns(hosts, options)
    })
}

fn dns_options(message: &Pb, at: &At<'_>) -> Result<DnsOptions, Reject> {
    let refresh = at.duration("dns_refresh_rate", &message.dns_refresh_rate)?;
    Ok(DnsOptions {
        family: match enumeration(message.dns_lookup_family, &at.field("dns_lookup_family"))? {
            DnsLookupFamily::Auto => LookupFamily::Auto,
            DnsLookupFamily::V4Only => LookupFamily::V4Only,
            DnsLookupFamily::V6Only => LookupFamily::V6Only,
            DnsLookupFamily::V4Preferred => LookupFamily::V4Preferred,
            DnsLookupFamily::All => LookupFamily::All,
        },
        refresh_rate: rate(refresh, &at.field("dns_refresh_rate"))?,
        respect_ttl: message.respect_dns_ttl,
    })
}

/// Envoy wants more than a millisecond.
fn rate(value: Option<Duration>, at: &At<'_>) -> Result<Duration, Reject> {
    match value {
        Some(rate) if rate <= Duration::from_millis(1) => Err(at.reject("must be longer than 1 ms")),
        rate => Ok(rate.unwrap_or(REFRESH_RATE)),
    }
}

/// A cluster without endpoints is complete: that is how a control plane writes a black hole.
fn hosts(message: &Pb, at: &At<'_>, hosts: Hosts) -> Result<Arc<Assignment>, Reject> {
    let Some(load) = &message.load_assignment else {
        return Ok(Arc::new(Assignment { localities: Vec::new(), overprovisioning: 140 }));
    };
    endpoint::assignment(load, &at.field("load_assignment"), hosts).map(Arc::new)
}

fn single(assignment: Arc<Assignment>, at: &At<'_>) -> Result<Arc<Assignment>, Reject> {
    if assignment.localities.iter().map(|l| l.endpoints.len()).sum::<usize>() == 1 {
        return Ok(assignment);
    }
    Err(at
        .field("load_assignment")
        .reject("must have a single locality with a single endpoint in a LOGICAL_DNS cluster"))
}
