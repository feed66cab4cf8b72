//! Faults, mirrors and CORS of a VirtualService's routes.

use super::routes::Report;
use crate::model::{CorsPolicy, Fault, HttpRoute, StringMatch};

impl Report<'_> {
    pub(super) fn traffic(&mut self, path: &str, route: &HttpRoute) {
        if let Some(fault) = &route.fault {
            self.fault(&format!("{path}.fault"), fault);
        }
        if let Some(cors) = &route.cors_policy {
            self.cors(&format!("{path}.corsPolicy"), cors);
        }
        if let Some(mirror) = &route.mirror {
            self.destination(&format!("{path}.mirror"), mirror);
            if !route.mirrors.is_empty() {
                self.problem(format!("{path}.mirrors"), "give mirror or mirrors, not both");
            }
        }
        for (index, mirror) in route.mirrors.iter().enumerate() {
            self.destination(&format!("{path}.mirrors[{index}].destination"), &mirror.destination);
        }
        let share = route.mirror_percentage.is_some() || route.mirror_percent.is_some();
        if share && route.mirror.is_none() && route.delegate.is_none() && !self.object.spec.hosts.is_empty() {
            self.problem(format!("{path}.mirrorPercentage"), "is a share of what mirror sends: there is none");
        }
        if route.mirror_percentage.is_some() && route.mirror_percent.is_some() {
            self.problem(format!("{path}.mirrorPercent"), "give mirrorPercentage or mirrorPercent, not both");
        }
    }

    fn fault(&mut self, path: &str, fault: &Fault) {
        if fault.delay.is_none() && fault.abort.is_none() {
            self.problem(path, "needs delay, abort or both");
        }
        if let Some(delay) = &fault.delay {
            if delay.fixed_delay.is_none() {
                self.problem(format!("{path}.delay.fixedDelay"), "is missing: how long to wait");
            }
            if delay.percentage.is_some() && delay.percent.is_some() {
                self.problem(format!("{path}.delay.percent"), "give percentage or percent, not both");
            } else if delay.percentage.is_none() && delay.percent.is_none() {
                let reason = "is missing: without it no request is delayed; give the share, such as {value: 10}";
                self.problem(format!("{path}.delay.percentage"), reason);
            }
        }
        if let Some(abort) = &fault.abort {
            if abort.http_status.is_some() == abort.grpc_status.is_some() {
                self.problem(format!("{path}.abort"), "needs exactly one of httpStatus, grpcStatus");
            }
            if abort.percentage.is_none() {
                let reason = "is missing: without it no request is aborted; give the share, such as {value: 10}";
                self.problem(format!("{path}.abort.percentage"), reason);
            }
        }
    }

    fn cors(&mut self, path: &str, cors: &CorsPolicy) {
        if !cors.allow_origin.is_empty() && !cors.allow_origins.is_empty() {
            self.problem(format!("{path}.allowOrigin"), "give allowOrigins or allowOrigin, not both");
        }
        for (index, origin) in cors.allow_origins.iter().enumerate() {
            if *origin == StringMatch::Present {
                let reason = "give one of exact, prefix, regex (regex `.*` allows every origin)";
                self.problem(format!("{path}.allowOrigins[{index}]"), reason);
            }
        }
        let lists = [("allowMethods", &cors.allow_methods), ("allowHeaders", &cors.allow_headers)];
        for (field, list) in lists.into_iter().chain([("exposeHeaders", &cors.expose_headers)]) {
            for (index, text) in list.iter().enumerate() {
                // A comma would make two of one; a method is a token as a header's name is.
                if text != "*" && http::HeaderName::from_bytes(text.as_bytes()).is_err() {
                    let reason = format!("`{text}` is neither a name nor `*`");
                    self.problem(format!("{path}.{field}[{index}]"), reason);
                }
            }
        }
        if cors.max_age.is_some_and(|age| age.0.subsec_nanos() != 0) {
            self.problem(format!("{path}.maxAge"), "must be whole seconds");
        }
    }
}
