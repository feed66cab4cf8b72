//! Whether header values look at what is noted of an exchange only where somebody asks for it.
//!
//! Access loggers always do. Without one, a configuration with such values says so once, when it is compiled.

use super::{
    filters::{Mutation, Mutations, Overrides, Setting},
    format::{MetadataPath, MetadataSource, Operator, Segment, Template},
    route::{Action, Forward, HeaderAdd, HeaderOps, HostRewrite, PathRewrite, Route, RouteConfiguration, Target},
};

impl Operator {
    /// Whether its value is noted on demand only.
    fn is_noted(&self) -> bool {
        matches!(
            self,
            Self::Metadata(MetadataPath { source: MetadataSource::Route, .. })
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

impl Mutations {
    /// Whether some value is noted on demand only.
    pub fn look_at_notes(&self) -> bool {
        [&self.request, &self.response, &self.request_trailers, &self.response_trailers].iter().any(|l| list(l))
    }
}

impl Overrides {
    fn look_at_notes(&self) -> bool {
        self.filters.iter().any(|o| matches!(&o.setting, Setting::HeaderMutation(m) if m.look_at_notes()))
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
