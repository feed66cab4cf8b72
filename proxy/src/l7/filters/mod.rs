//! The HTTP filters of a connection manager, run in configured order before the route's action, and in reverse order
//! over the response.
//!
//! A closed enum: what a filter decides is in `policy`, here it is carried out. A chain in which nothing acts costs two
//! looks per request. Invariant: the response of a request sees every filter that saw the request.

mod admission;
mod buffer;
mod cors;
mod debug;
mod ext_authz;
mod fault;
mod foretell;
pub(crate) mod global_limit;
mod grpc_web;
mod jwt_authn;
mod local_limit;
mod mutation;
mod rbac;
mod response;
mod throttle;
mod trailers;

use std::{rc::Rc, sync::Arc};

use http::{Response, StatusCode};

pub use self::{
    buffer::{Gathered, Resumed},
    grpc_web::{Decoded, GrpcWeb},
    throttle::Throttled,
    trailers::Retrailed,
};
pub(in crate::l7) use self::{foretell::Foretold, jwt_authn::fetch_ahead, local_limit::OwnLimits, response::After};
use super::{
    body::Body,
    flow::Flow,
    headers::{Pseudo, RequestView},
    pipeline::Inbound,
    respond::Reply,
    server::Connection,
};
use crate::{
    ir::{
        filters::{Fault, Overrides, Setting},
        http::{FilterKind, HttpFilter},
        rbac::Rbac,
        route::{Action, Target, WeightedTarget},
    },
    live::{Live, LiveFilters},
    policy::router::{RouteTable, Selected, pick_weighted},
};

/// What the levels of a route override, the most specific one first.
pub(super) type Levels<'a> = [Option<&'a Overrides>; 4];

/// The levels of a route: weighted cluster, route, virtual host, route configuration.
pub(super) fn levels<'a>(
    table: Option<&'a RouteTable>,
    selected: Option<Selected<'a>>,
    weighted: Option<&'a WeightedTarget>,
) -> Levels<'a> {
    fn of(overrides: &Option<Arc<Overrides>>) -> Option<&Overrides> {
        overrides.as_deref()
    }
    [
        weighted.and_then(|w| of(&w.overrides)),
        selected.and_then(|s| of(&s.route.overrides)),
        selected.and_then(|s| of(&s.virtual_host.overrides)),
        table.and_then(|t| of(&t.config.overrides)),
    ]
}

/// What the levels say about a filter, the most specific one first.
fn settings<'a>(filter: &HttpFilter, levels: &Levels<'a>) -> impl DoubleEndedIterator<Item = &'a Setting> {
    levels.iter().flatten().filter_map(|level| level.get(&filter.name))
}

/// Whether a filter runs: as the most specific level that mentions it says, else as the chain does.
pub(super) fn is_on(filter: &HttpFilter, levels: &Levels<'_>) -> bool {
    match settings(filter, levels).next() {
        Some(setting) => !matches!(setting, Setting::Disabled),
        None => !filter.disabled,
    }
}

fn fault_in_force<'a>(base: &'a Arc<Fault>, filter: &HttpFilter, levels: &Levels<'a>) -> &'a Arc<Fault> {
    let setting = settings(filter, levels).find_map(|s| match s {
        Setting::Fault(fault) => Some(fault),
        _ => None,
    });
    setting.unwrap_or(base)
}

/// `None`: a level switches it off.
fn rbac_in_force<'a>(base: &'a Arc<Rbac>, filter: &HttpFilter, levels: &Levels<'a>) -> Option<&'a Arc<Rbac>> {
    let setting = settings(filter, levels).find_map(|s| match s {
        Setting::Rbac(rbac) => Some(rbac.as_ref()),
        _ => None,
    });
    setting.unwrap_or(Some(base))
}

/// A request among the filters.
pub(super) struct Call<'a> {
    pub conn: &'a Rc<Connection>,
    /// The filters in force.
    pub filters: &'a LiveFilters,
    pub flow: &'a Rc<Flow>,
    pub live: &'a Live,
    pub table: Option<&'a RouteTable>,
    pub selected: Option<Selected<'a>>,
    pub random: u64,
}

/// How far a request came.
pub(super) enum Progress {
    Through,
    /// Its route is to be found anew, then it goes on at this place.
    Rerouted(usize),
}

/// A filter answers the request itself.
pub(super) enum Stop {
    Reply(Box<Reply>),
    Answer(Box<Response<Body>>),
}

impl Stop {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Reply(reply) => reply.status,
            Self::Answer(response) => response.status(),
        }
    }
}

impl<'a> Call<'a> {
    /// What the levels override, if any filter has something to do with this request.
    pub(super) fn concerned(&self) -> Option<Levels<'a>> {
        let filters = self.filters;
        if !filters.any {
            return None;
        }
        let levels = levels(self.table, self.selected, self.weighted());
        (filters.always || levels.iter().any(Option::is_some)).then_some(levels)
    }

    /// The weighted cluster that the request will take.
    fn weighted(&self) -> Option<&'a WeightedTarget> {
        match &self.selected?.route.action {
            Action::Forward(forward) => match &forward.target {
                Target::Weighted(targets) => pick_weighted(targets, self.random),
                Target::Cluster(_) | Target::Header(_) => None,
            },
            Action::Redirect(_) | Action::Direct(_) | Action::NonForwarding => None,
        }
    }

    /// A filter's own answer, in the form configured for such.
    fn local_reply(&self, reply: Reply, request: &Inbound) -> Response<Body> {
        let scheme = request.sane.origin.scheme;
        let pseudo = Pseudo { method: &request.parts.method, path: request.path(), scheme };
        let view = RequestView { pseudo, headers: &request.parts.headers };
        reply.into_response(self.flow, request.sane.grpc, self.conn.shape(&view))
    }

    /// Runs the filters from the place `from` on over a request. `after` gets what they want to do with the response,
    /// whoever makes it.
    pub(super) async fn run(
        &self,
        (levels, from): (&Levels<'a>, usize),
        request: &mut Inbound,
        after: &mut After,
    ) -> Result<Progress, Stop> {
        if from == 0 {
            self.debug(request, after);
        }
        let mut stopped = None;
        for (place, filter) in self.filters.list().iter().enumerate().skip(from) {
            if !is_on(filter, levels) {
                continue;
            }
            if stopped.is_some() {
                // Filters behind the one that answered still see the response.
                if let FilterKind::HeaderMutation { mutations, most_specific_wins } = &filter.kind {
                    let all = mutation::all(mutations, settings(filter, levels), *most_specific_wins);
                    after.mutate(&all, request);
                }
                continue;
            }
            let result = match &filter.kind {
                FilterKind::Fault(base) => self.fault(fault_in_force(base, filter, levels), request, after).await,
                FilterKind::Cors => self.cors(filter, levels, request, after),
                FilterKind::HeaderMutation { mutations, most_specific_wins } => {
                    let all = mutation::all(mutations, settings(filter, levels), *most_specific_wins);
                    mutation::request(&all, self.flow, request);
                    after.mutate(&all, request);
                    Ok(())
                }
                FilterKind::Buffer(base) => {
                    let setting = settings(filter, levels).find_map(|s| match s {
                        Setting::Buffer(limit) => Some(*limit),
                        _ => None,
                    });
                    match setting.unwrap_or(Some(*base)) {
                        Some(limit) => self.buffer(limit, request).await,
                        None => Ok(()),
                    }
                }
                FilterKind::LocalRateLimit(_) => self.limit_locally((place, filter), levels, request, after),
                FilterKind::RateLimit(config) => {
                    // Boxed: few requests wait here, all would keep the room for it.
                    let asked = self.limit_globally((place, filter), config, (levels, after), request);
                    Box::pin(asked).await
                }
                FilterKind::AdaptiveConcurrency(_) => self.admit(place),
                FilterKind::GrpcWeb => {
                    grpc_web::request(request, after);
                    Ok(())
                }
                FilterKind::Rbac(base) => match (rbac_in_force(base, filter, levels), self.filters.rbac(place)) {
                    (Some(rbac), Some(counts)) => self.rbac(rbac, counts, request),
                    _ => Ok(()),
                },
                FilterKind::ExtAuthz(config) => {
                    let authorizing = ext_authz::Authorizing { config, filter, place };
                    // Boxed: few requests wait here, all would keep the room for it.
                    match Box::pin(self.authorize(authorizing, levels, request, after)).await {
                        Ok(true) => return Ok(Progress::Rerouted(place + 1)),
                        Ok(false) => Ok(()),
                        Err(stop) => Err(stop),
                    }
                }
                FilterKind::JwtAuthn(config) => {
                    match Box::pin(self.authenticate(config, (filter, place), levels, request)).await {
                        Ok(true) => return Ok(Progress::Rerouted(place + 1)),
                        Ok(false) => Ok(()),
                        Err(stop) => Err(stop),
                    }
                }
                FilterKind::Alpn(_) | FilterKind::Router(_) => Ok(()),
            };
            stopped = result.err();
        }
        stopped.map_or(Ok(Progress::Through), Err)
    }
}
