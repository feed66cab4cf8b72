//! Temporary.
use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

use crate::{
    ir::{Name, http::ConnectionManager},
    policy::router::RouteTable,
    telemetry::{
        access_log::Logger,
        metrics::{HttpStats, Sharded},
    },
    upstream::Cluster,
};

#[derive(Default)]
pub struct Live {
    pub clusters: HashMap<Name, Arc<Cluster>>,
    pub routes: HashMap<Name, Arc<RouteTable>>,
}
impl Live {
    pub fn cluster(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.clusters.get(name)
    }
    pub fn routes(&self, name: &str) -> Option<&Arc<RouteTable>> {
        self.routes.get(name)
    }
}
pub type LiveRef = Rc<Arc<Live>>;
pub struct Publisher(pub std::sync::Mutex<Arc<Live>>);
pub struct Reader(RefCell<LiveRef>);
impl Reader {
    pub fn new(publisher: Arc<Publisher>) -> Self {
        Self(RefCell::new(Rc::new(publisher.0.lock().expect("stub").clone())))
    }
    pub fn get(&self) -> LiveRef {
        self.0.borrow().clone()
    }
}
pub struct LiveHcm {
    pub config: Arc<ConnectionManager>,
    pub inline_routes: Option<Arc<RouteTable>>,
    pub stats: Arc<Sharded<HttpStats>>,
    pub logs: Arc<[Logger]>,
}
