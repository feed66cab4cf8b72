//! What filters do with the response, decided while they saw the request.

use std::{
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
};

use http::{HeaderMap, Method, Response};
use serde_json::Value;

use super::{
    debug,
    ext_authz::apply::{self, Ready},
    global_limit, grpc_web, local_limit,
    mutation::{self, All},
    throttle::Throttled,
};
use crate::l7::{
    body::Body,
    flow::Flow,
    headers::{Pseudo, RequestView},
    pipeline::Inbound,
    server::Connection,
};
use crate::policy::rate_limit::local::Drawn;

/// Response headers that Envoy allows where it limits them.
const MAX_HEADERS: usize = 100;

/// The steps over a response, in the order of the filters; they are taken in reverse.
#[derive(Default)]
pub(in crate::l7) struct After(Vec<Step>);

enum Step {
    /// Headers that replace what the response has of them.
    Grant(HeaderMap),
    Mutate(All, Option<Box<Head>>),
    /// With the place of the filter where there may be no more headers than so many.
    Change(Vec<Ready>, Option<usize>),
    /// KiB per second.
    Throttle(u64),
    /// In the text form or not.
    GrpcWeb(bool),
    /// Headers beside those that the response has.
    Add(HeaderMap),
    /// What is left in a token bucket.
    Announce(Arc<Drawn>),
    /// What was decided on the request.
    Trace(Box<Value>, Arc<AtomicBool>),
}

/// A request head that response mutations refer to.
struct Head {
    method: Method,
    path: String,
    scheme: &'static str,
    headers: HeaderMap,
}

impl After {
    pub(super) fn grant(&mut self, headers: HeaderMap) {
        self.0.push(Step::Grant(headers));
    }

    pub(super) fn add(&mut self, headers: HeaderMap) {
        if !headers.is_empty() {
            self.0.push(Step::Add(headers));
        }
    }

    pub(super) fn announce(&mut self, drawn: Arc<Drawn>) {
        self.0.push(Step::Announce(drawn));
    }

    /// `passed_on`: whether the upstream was asked for the same.
    pub(super) fn trace(&mut self, report: Value, passed_on: Arc<AtomicBool>) {
        self.0.push(Step::Trace(Box::new(report), passed_on));
    }

    pub(super) fn change(&mut self, changes: Vec<Ready>, limited: Option<usize>) {
        if !changes.is_empty() {
            self.0.push(Step::Change(changes, limited));
        }
    }

    pub(super) fn grpc_web(&mut self, text: bool) {
        self.0.push(Step::GrpcWeb(text));
    }

    pub(in crate::l7) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn throttle(&mut self, kbps: u64) {
        self.0.push(Step::Throttle(kbps));
    }

    pub(super) fn mutate(&mut self, all: &All, request: &Inbound) {
        if !mutation::has_response(all) {
            return;
        }
        let head = mutation::mentions_request(all).then(|| {
            Box::new(Head {
                method: request.parts.method.clone(),
                path: request.path().to_owned(),
                scheme: request.sane.origin.scheme,
                headers: request.parts.headers.clone(),
            })
        });
        self.0.push(Step::Mutate(all.clone(), head));
    }

    /// Takes the steps.
    pub(in crate::l7) async fn apply(
        self,
        conn: &Connection,
        flow: &Rc<Flow>,
        mut response: Response<Body>,
    ) -> Response<Body> {
        for step in self.0.into_iter().rev() {
            match step {
                Step::Grant(granted) => {
                    let headers = response.headers_mut();
                    for (name, value) in &granted {
                        headers.insert(name, value.clone());
                    }
                }
                Step::Change(changes, None) => apply::all(&changes, response.headers_mut()),
                Step::Change(changes, Some(place)) => {
                    let left_out = apply::within(MAX_HEADERS, &changes, response.headers_mut());
                    if left_out && let Some(stats) = conn.filters().ext_authz(place) {
                        stats.local().omitted_response_headers.inc();
                    }
                }
                Step::Mutate(all, head) => {
                    let view = head.as_deref().map(|h| RequestView {
                        pseudo: Pseudo { method: &h.method, path: &h.path, scheme: h.scheme },
                        headers: &h.headers,
                    });
                    let status = response.status();
                    mutation::response(&all, flow, view.as_ref(), status, response.headers_mut());
                    response = response.map(|body| mutation::response_trailers(body, &all, flow));
                }
                Step::Add(headers) => global_limit::append(response.headers_mut(), &headers),
                Step::Announce(drawn) => local_limit::announce(&drawn, response.headers_mut()),
                Step::Trace(report, passed_on) => {
                    let status = response.status().as_u16();
                    debug::tell(*report, &passed_on, flow, status, response.headers_mut());
                }
                Step::GrpcWeb(text) => response = grpc_web::response(response, text).await,
                Step::Throttle(kbps) => response = response.map(|body| Throttled::limit(body, kbps)),
            }
        }
        response
    }
}
