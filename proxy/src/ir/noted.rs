//! Whether header values look at what is noted of an exchange only where somebody asks for it.
//!
//! Access loggers always do. Without one, a configuration with such values says so once, when it is compiled.

use super::{
    ext_authz::{AuthService, AuthzPerRoute},
    filters::{Mutation, Mutations, Overrides, Setting},
    format::{AccessLog, JsonField, LogFormat, MetadataPath, MetadataSource, Operator, Segment, Template},
    rate_limit::{Action as RateAction, GlobalRateLimit, Hits, HitsNumber, LocalRateLimit, Rule},
    route::{Action, Forward, HeaderAdd, HeaderOps, HostRewrite, PathRewrite, Route, RouteConfiguration, Target},
};

impl Operator {
    /// Whether its value is noted on demand only.
    fn is_noted(&self) -> bool {
        matches!(
            self,
            Self::Metadata(MetadataPath { source: MetadataSource::Route | MetadataSource::Dynamic, .. })
                | Self::RouteName
                | Self::UpstreamHost
                | Self::UpstreamCluster
                | Self::UpstreamLocalAddress
                | Self::UpstreamRemoteAddress
                | Self::UpstreamTransportFailureReason
                | Self::UpstreamProtocol
                | Self::DownstreamRemoteAddress
                | Self::DownstreamRemoteAddressWithoutPort
                | Self::DownstreamRemotePort
                | Self::ResponseDuration
                | Self::ResponseTxDuration
                | Self::StreamId
        )
    }
}

fn template(template: &Template) -> bool {
    template.segments.iter().any(|segment| matches!(segment, Segment::Op { op, .. } if op.is_noted()))
}

fn adds(adds: &[HeaderAdd]) -> bool {
    adds.iter().any(|add| template(&add.value))
}

fn ops(ops: &HeaderOps) -> bool {
    adds(&ops.request_add) || adds(&ops.response_add)
}

fn list(mutations: &[Mutation]) -> bool {
    mutations.iter().any(|mutation| match mutation {
        Mutation::Add(add) => template(&add.value),
        Mutation::Remove(_) | Mutation::RemoveMatching(_) => false,
    })
}

impl AccessLog {
    /// Whether lines hold what filters noted of a stream.
    pub fn reads_metadata(&self) -> bool {
        fn reads(template: &Template) -> bool {
            let is_metadata = |segment: &Segment| matches!(segment, Segment::Op { op: Operator::Metadata(_), .. });
            template.segments.iter().any(is_metadata)
        }
        fn fields(all: &[(Box<str>, JsonField)]) -> bool {
            all.iter().any(|(_, field)| match field {
                JsonField::Value(template) => reads(template),
                JsonField::Object(all) => fields(all),
            })
        }
        match &self.format {
            LogFormat::Text(template) => reads(template),
            LogFormat::Json(all) => fields(all),
        }
    }
}

impl Mutations {
    /// Whether some value is noted on demand only.
    pub fn look_at_notes(&self) -> bool {
        [&self.request, &self.response, &self.request_trailers, &self.response_trailers].iter().any(|l| list(l))
    }
}

fn rules(rules: &[Rule]) -> bool {
    rules.iter().any(|rule| {
        let hits = matches!(&rule.hits, Some(Hits { number: HitsNumber::Format(t), .. }) if template(t));
        hits || rule.actions.iter().any(|a| matches!(a, RateAction::AddressMatch { value, .. } if template(value)))
    })
}

impl GlobalRateLimit {
    /// Whether some value is noted on demand only.
    pub fn look_at_notes(&self) -> bool {
        adds(&self.response_headers) || rules(&self.rules) || self.service.metadata.iter().any(|(_, t)| template(t))
    }
}

impl LocalRateLimit {
    /// Whether some value is noted on demand only.
    pub fn look_at_notes(&self) -> bool {
        adds(&self.request_headers) || adds(&self.response_headers) || rules(&self.rules)
    }
}

impl AuthService {
    /// Whether some value is noted on demand only.
    pub fn look_at_notes(&self) -> bool {
        match self {
            Self::Grpc(service) => service.metadata.iter().any(|(_, t)| template(t)),
            Self::Http(service) => service.headers_to_add.iter().any(|(_, t)| template(t)),
        }
    }
}

impl Overrides {
    fn look_at_notes(&self) -> bool {
        self.filters.iter().any(|o| match &o.setting {
            Setting::HeaderMutation(m) => m.look_at_notes(),
            Setting::LocalRateLimit(l) => l.look_at_notes(),
            Setting::RateLimit(l) => rules(&l.rules),
            Setting::Rbac(Some(rbac)) => rbac.reads_metadata(),
            Setting::Disabled
            | Setting::Enabled
            | Setting::Fault(_)
            | Setting::Cors(_)
            | Setting::Buffer(_)
            | Setting::Rbac(None)
            | Setting::JwtAuthn(_) => false,
            Setting::ExtAuthz(authz) => match &**authz {
                AuthzPerRoute::Check(check) => check.service.as_ref().is_some_and(AuthService::look_at_notes),
                AuthzPerRoute::Disabled => false,
            },
        }) || self.rate_limits.as_ref().is_some_and(|limits| rules(&limits.rules))
    }
}

impl RouteConfiguration {
    /// Whether some header value is noted on demand only.
    pub fn looks_at_notes(&self) -> bool {
        let overrides = |o: &Option<std::sync::Arc<Overrides>>| o.as_ref().is_some_and(|o| o.look_at_notes());
        let forward = |forward: &Forward| {
            let weighted = match &forward.target {
                Target::Weighted(targets) => targets.iter().any(|t| ops(&t.headers) || overrides(&t.overrides)),
                Target::Cluster(_) | Target::Header(_) => false,
            };
            let path = matches!(&forward.path_rewrite, Some(PathRewrite::Format(t)) if template(t));
            let host = matches!(&forward.host_rewrite, Some(HostRewrite::Format(t)) if template(t));
            weighted || path || host || forward.mirrors.iter().any(|mirror| list(&mirror.mutations))
        };
        let route = |route: &Route| {
            let action = match &route.action {
                Action::Forward(f) => forward(f),
                Action::Redirect(r) => matches!(&r.rewrite, Some(PathRewrite::Format(t)) if template(t)),
                Action::Direct(_) | Action::NonForwarding => false,
            };
            ops(&route.headers) || overrides(&route.overrides) || action
        };
        ops(&self.headers)
            || overrides(&self.overrides)
            || self
                .virtual_hosts
                .iter()
                .any(|host| ops(&host.headers) || overrides(&host.overrides) || host.routes.iter().any(|r| route(r)))
    }
}
