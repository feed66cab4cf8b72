//! RateLimits of a workload: filters on its inbound chains, the cluster of the rate limit service, and what that service
//! is to know of them.
//!
//! Every descriptor begins with the object's name. What its key is made of that no action of Envoy's gives unspoofed (the
//! caller's identity, the path without the query, the address of the connection) is written into headers by a filter
//! before, whatever a client sent in them, and taken out again before the application.

mod clusters;
mod descriptors;
mod global;
mod http;
mod tcp;

use std::{collections::HashSet, sync::Arc};

use super::{pb, scope::Scope};
use crate::{
    model::{LimitKey, LimitMode, Object, RateLimit, Scope as LimitScope, Workload, World},
    ratelimit::rules::{Account, Accounts, ObjectRule, Objects},
};

pub(super) use self::clusters::generate;
use self::global::Group;

/// What the rate limit service is to hold requests against.
pub fn limits(world: &World) -> Objects {
    let global = world
        .rate_limits
        .iter()
        .filter(|object| object.spec.scope == LimitScope::Global && object.spec.global.service.is_none());
    let account = |w: &Workload| (w.namespace.clone(), w.service_account.clone());
    let known: Arc<HashSet<Account>> = Arc::new(world.workloads.iter().map(account).collect());
    let accounts = |object: &Object<RateLimit>| Accounts {
        selected: world
            .workloads
            .iter()
            .filter(|w| world.limits(object, &w.namespace, &w.labels))
            .map(account)
            .collect(),
        known: Arc::clone(&known),
    };
    let rule = |object: &Object<RateLimit>| ObjectRule {
        accounts: object.spec.selector.is_some().then(|| accounts(object)),
        namespace: (!world.settings.is_root(&object.meta.namespace)).then(|| object.meta.namespace.clone()),
        rate: object.spec.rate,
        enforced: object.spec.mode == LimitMode::Enforce,
        keys: object.spec.key.iter().map(LimitKey::name).collect(),
    };
    global.map(|object| (name(object), rule(object))).collect()
}

fn name(object: &Object<RateLimit>) -> String {
    format!("{}/{}", object.meta.namespace, object.meta.name)
}

/// The name of the filter of `object`, and of statistics.
fn filter_name(object: &Object<RateLimit>) -> String {
    format!("outrigger.ratelimit.{}", name(object))
}

/// The limits of one port of the workload.
pub(super) struct Limits<'a> {
    scope: &'a Scope<'a>,
    objects: Vec<&'a Object<RateLimit>>,
}

impl<'a> Limits<'a> {
    /// Those of `port`; of every port that is not listed apart, if none.
    pub(super) fn of(scope: &'a Scope<'a>, port: Option<u16>) -> Self {
        let here = |object: &&Object<RateLimit>| object.spec.matching.port.is_none_or(|wanted| Some(wanted) == port);
        Self { scope, objects: selected(scope).filter(here).collect() }
    }

    /// The filters of a chain that carries HTTP, in order. `mutual_tls`: callers have identities.
    pub(super) fn http(&self, mutual_tls: bool) -> Vec<pb::hcm::HttpFilter> {
        let mut filters: Vec<_> = http::sources(&self.objects, mutual_tls).into_iter().collect();
        filters.extend(self.local().map(http::local));
        for group in self.groups(|_| true) {
            filters.push(http::global(&group));
            filters.extend(http::fallback(&group, self.scope.kind));
        }
        filters
    }

    /// The headers that the above write, which are nothing for the application.
    pub(super) fn headers(&self) -> Vec<String> {
        http::headers(&self.objects)
    }

    /// The filters of a chain that carries no HTTP.
    pub(super) fn tcp(&self) -> Vec<pb::listener::Filter> {
        let local = self.local().filter(|object| object.spec.counts_connections());
        let enforced = local.filter(|object| object.spec.mode == LimitMode::Enforce);
        let mut filters: Vec<_> = enforced.map(tcp::local).collect();
        filters.extend(self.groups(|limit| limit.counts_connections()).iter().filter_map(tcp::global));
        filters
    }

    fn local(&self) -> impl Iterator<Item = &'a Object<RateLimit>> {
        self.objects.iter().copied().filter(|object| object.spec.scope == LimitScope::Local)
    }

    fn groups(&self, wanted: impl Fn(&RateLimit) -> bool) -> Vec<Group<'a>> {
        let global = self.objects.iter().copied().filter(|object| object.spec.scope == LimitScope::Global);
        Group::of(global.filter(|object| wanted(&object.spec)))
    }
}

/// All RateLimits of the workload.
fn selected<'a>(scope: &'a Scope<'a>) -> impl Iterator<Item = &'a Object<RateLimit>> {
    scope.world.rate_limits(scope.namespace, scope.labels)
}

/// Ports that some RateLimit names, so that they have chains of their own.
pub(super) fn ports(scope: &Scope<'_>) -> std::collections::BTreeSet<u16> {
    selected(scope).filter_map(|object| object.spec.matching.port).collect()
}
