//! Where a request would go and under which terms, by the plan that forwarding makes of it. Nothing is sent or counted.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Forwarding, Plan};
use crate::{
    ir::{balancing::Criteria, cluster::Discovery},
    l7::{client::Protocol, pipeline::Inbound, respond::Reply, upgrade},
    upstream::{Cluster, PickContext},
};

/// Hosts that are listed.
const MOST_HOSTS: usize = 128;

fn millis(duration: Option<Duration>) -> Option<u64> {
    duration.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

impl<'a> Forwarding<'a> {
    /// The plan in words, or the answer that the request gets instead. The request gets the form it would go on in.
    pub(in crate::l7) fn foretell(&self, request: &mut Inbound) -> Result<Value, Reply> {
        let (cluster, weighted) = self.target(request)?;
        upgrade::allowed(&self.conn.hcm.config, self.route, &request.sane.tunnel)?;
        let plan = self.plan(cluster, weighted, request);
        let timeouts = &plan.timeouts;
        let retry = plan.rules.as_ref().map(|rules| {
            json!({
                "conditions": rules.on.names(),
                "max_retries": rules.max_retries,
                "per_try_timeout_ms": millis(timeouts.per_try),
                "per_try_idle_timeout_ms": millis(timeouts.per_try_idle),
                "hedged": plan.hedged,
            })
        });
        Ok(json!({
            "cluster": *cluster.config.name,
            "chosen_by_weight": weighted.is_some(),
            "upstream_request": {
                "method": request.parts.method.as_str(),
                "authority": request.authority(),
                "path": request.path(),
                "protocol": match plan.protocol {
                    Protocol::Http1 => "HTTP/1.1",
                    Protocol::Http2 => "HTTP/2",
                    Protocol::Auto => "by ALPN",
                },
                "sni": plan.sni.as_deref(),
            },
            "timeouts": {
                "response_ms": millis(timeouts.response),
                "stream_ms": millis(timeouts.stream),
                "request_ms": millis(timeouts.request),
                "upstream_stream_ms": millis(timeouts.upstream),
                "idle_ms": millis(self.route.idle_timeout.unwrap_or(self.conn.hcm.config.stream_idle_timeout)),
            },
            "retry": retry,
            "internal_redirects": self.route.internal_redirect.as_ref().map(|policy| policy.max),
            "mirrors": self.route.mirrors.len(),
            "subset": self.criteria(&plan).map(labels),
            "hash": plan.key.hash.map(|hash| format!("{hash:016x}")),
            "makes_cookie": !plan.key.cookies.is_empty(),
            "endpoints": self.endpoints(cluster, &plan),
        }))
    }

    /// The hosts of the cluster, and which of them the balancer can choose for this request.
    fn endpoints(&self, cluster: &Cluster, plan: &Plan<'_>) -> Value {
        let original_dst = self.conn.scope.conn.original_dst;
        if let Discovery::OriginalDst { port_override } = cluster.config.discovery {
            let address = original_dst.map(|mut address| {
                address.set_port(port_override.unwrap_or(address.port()));
                address.to_string()
            });
            return json!({"policy": "ORIGINAL_DST", "eligible": address.is_some() as u32, "hosts": address.into_iter().collect::<Vec<_>>()});
        }
        let context = PickContext {
            original_dst,
            random: self.random,
            hash: plan.key.hash,
            criteria: self.criteria(plan),
            ..PickContext::default()
        };
        let (eligible, picks) = cluster.eligible(&context);
        let parts = cluster.inspect();
        let hosts: Vec<Value> = parts
            .members()
            .iter()
            .enumerate()
            .take(MOST_HOSTS)
            .map(|(place, member)| {
                let locality = &parts.localities()[member.locality as usize];
                json!({
                    "address": &*member.endpoint.label,
                    "eligible": eligible.binary_search(&place).is_ok(),
                    "health": format!("{:?}", member.endpoint.health(member.health)).to_uppercase(),
                    "weight": member.weight,
                    "zone": &*locality.zone,
                    "priority": locality.priority,
                })
            })
            .collect();
        json!({
            "policy": format!("{:?}", cluster.config.lb).split(['(', '{', ' ']).next(),
            "total": parts.members().len(),
            "eligible": eligible.len(),
            // Who is eligible is found by trying: one that is chosen once in thousands of times may be missed.
            "picks": picks,
            "hosts": hosts,
        })
    }
}

fn labels(criteria: &Criteria) -> Value {
    format!("{criteria:?}").into()
}
