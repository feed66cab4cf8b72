//! Global limits that one filter asks about in one call: those that are asked of the same service in the same way.

use super::{
    super::pb::{self, core},
    clusters, filter_name,
};
use crate::{
    model::{Failure, LimitMode, Object, RateLimit, Selector},
    ratelimit::rules::DOMAIN,
};
use outrigger_wire::pb::envoy::config::ratelimit::v3::RateLimitServiceConfig;

/// Limits of one filter. Never empty.
pub(super) struct Group<'a> {
    pub(super) objects: Vec<&'a Object<RateLimit>>,
}

impl<'a> Group<'a> {
    /// Parts limits into groups, in the order of their names, those that are enforced before the others.
    pub(super) fn of(objects: impl Iterator<Item = &'a Object<RateLimit>>) -> Vec<Self> {
        let mut groups: Vec<Self> = Vec::new();
        for object in objects {
            match groups.iter_mut().find(|group| group.takes(object)) {
                Some(group) => group.objects.push(object),
                None => groups.push(Self { objects: vec![object] }),
            }
        }
        groups.sort_by_key(|group| group.first().mode == LimitMode::DryRun);
        groups
    }

    fn takes(&self, object: &Object<RateLimit>) -> bool {
        // Of several selectors each has other replicas to share a limit while the service is away.
        let labels = |selector: &Option<Selector>| selector.clone().unwrap_or_default().match_labels;
        let (own, other) = (self.objects[0], object);
        let place = |object: &Object<RateLimit>| (object.meta.namespace.clone(), labels(&object.spec.selector));
        (own.spec.mode, own.spec.response, &own.spec.global)
            == (other.spec.mode, other.spec.response, &other.spec.global)
            && place(own) == place(other)
    }

    pub(super) fn first(&self) -> &'a RateLimit {
        &self.objects[0].spec
    }

    pub(super) fn name(&self) -> String {
        filter_name(self.objects[0])
    }

    pub(super) fn domain(&self) -> String {
        self.first().global.service.as_ref().map_or(DOMAIN, |service| &service.domain).to_owned()
    }

    /// Nothing is denied by a limit that only counts.
    pub(super) fn denies_on_failure(&self) -> bool {
        self.first().global.failure_mode == Failure::Deny && self.first().mode == LimitMode::Enforce
    }

    pub(super) fn has_fallback(&self) -> bool {
        self.first().global.failure_mode == Failure::LocalShare && self.first().mode == LimitMode::Enforce
    }

    pub(super) fn service(&self) -> RateLimitServiceConfig {
        let envoy =
            core::grpc_service::EnvoyGrpc { cluster_name: clusters::of_service(self.first()), ..Default::default() };
        RateLimitServiceConfig {
            grpc_service: Some(core::GrpcService {
                target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(envoy)),
                ..Default::default()
            }),
            transport_api_version: core::ApiVersion::V3 as i32,
        }
    }

    pub(super) fn timeout(&self) -> Option<pb::Duration> {
        pb::duration(self.first().global.timeout())
    }
}
