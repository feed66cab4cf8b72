//! Statistics of HTTP filters and mirrors, `http.<stat_prefix>.*` under Envoy's names where it has any.

use super::metrics::{Block, Counter, Gauge, Kind};

macro_rules! filter_stats {
    ($(#[$doc:meta])* $name:ident; counters { $($c:ident = $cn:literal),* $(,)? } gauges { $($g:ident = $gn:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct $name {
            $(pub $c: Counter,)*
            $(pub $g: Gauge,)*
        }

        impl Block for $name {
            fn visit(&self, visitor: &mut dyn FnMut(&'static str, Kind, u64)) {
                $(visitor($cn, Kind::Counter, self.$c.get());)*
                $(visitor($gn, Kind::Gauge, self.$g.get());)*
            }
        }
    };
}

filter_stats! {
    /// Of all filters of the connection managers with one stat prefix.
    FilterStats;
    counters {
        delays_injected = "fault.delays_injected",
        aborts_injected = "fault.aborts_injected",
        response_rl_injected = "fault.response_rl_injected",
        faults_overflow = "fault.faults_overflow",
        origin_valid = "cors.origin_valid",
        origin_invalid = "cors.origin_invalid",
        redirect_bad_location = "passthrough_internal_redirect_bad_location",
        redirect_unsafe_scheme = "passthrough_internal_redirect_unsafe_scheme",
        redirect_too_many = "passthrough_internal_redirect_too_many_redirects",
        redirect_no_route = "passthrough_internal_redirect_no_route",
        redirect_predicate = "passthrough_internal_redirect_predicate",
        // Ours: Envoy counts copies at their cluster only.
        mirrored = "rq_mirrored",
        mirror_dropped = "rq_mirror_dropped",
    }
    gauges { active_faults = "fault.active_faults" }
}

filter_stats! {
    /// Of one external authorization filter, or of several with one stat prefix.
    ExtAuthzStats;
    counters {
        ok = "ext_authz.ok",
        denied = "ext_authz.denied",
        error = "ext_authz.error",
        disabled = "ext_authz.disabled",
        failure_mode_allowed = "ext_authz.failure_mode_allowed",
        invalid = "ext_authz.invalid",
        ignored_dynamic_metadata = "ext_authz.ignored_dynamic_metadata",
        omitted_response_headers = "ext_authz.omitted_response_headers",
    }
    gauges {}
}

filter_stats! {
    /// Of one JWT filter, or of several with one stat prefix.
    JwtStats;
    counters {
        allowed = "jwt_authn.allowed",
        denied = "jwt_authn.denied",
        cors_preflight_bypassed = "jwt_authn.cors_preflight_bypassed",
        jwks_fetch_success = "jwt_authn.jwks_fetch_success",
        jwks_fetch_failed = "jwt_authn.jwks_fetch_failed",
    }
    gauges {}
}

filter_stats! {
    /// Of the adaptive concurrency filters of the connection managers with one stat prefix.
    GradientStats;
    counters { rq_blocked = "adaptive_concurrency.gradient_controller.rq_blocked" }
    gauges {
        burst_queue_size = "adaptive_concurrency.gradient_controller.burst_queue_size",
        concurrency_limit = "adaptive_concurrency.gradient_controller.concurrency_limit",
        gradient = "adaptive_concurrency.gradient_controller.gradient",
        min_rtt_calculation_active = "adaptive_concurrency.gradient_controller.min_rtt_calculation_active",
        min_rtt_msecs = "adaptive_concurrency.gradient_controller.min_rtt_msecs",
        sample_rtt_msecs = "adaptive_concurrency.gradient_controller.sample_rtt_msecs",
    }
}
