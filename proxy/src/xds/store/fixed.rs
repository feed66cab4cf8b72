//! Resources that no source may replace: those of the bootstrap, and the secrets this process makes itself.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    super::{config::Statics, decode::Resource, kind::Kind},
    Needs, Now, Origin, Store, Version, kind_of,
};
use crate::ir::Name;

impl Store {
    /// Puts a resource that no source may replace.
    fn fix(&mut self, resource: Resource, origin: Origin, now: Now) {
        let (kind, name) = (kind_of(&resource), Arc::clone(resource.name()));
        let latest = self.table(kind).get(&name).and_then(|slot| slot.latest.as_ref());
        if latest.is_some_and(|v| v.resource == resource && v.origin == origin) {
            return;
        }
        let needs = Needs::of(&resource);
        let version = Arc::clone(&self.unnamed);
        let version = Version { resource, raw: None, version, updated: now.wall, origin, needs };
        self.set_latest(kind, &name, Some(Arc::new(version)));
        self.edit(kind, &name, |slot| slot.failure = None);
        // What is fixed is asked of nobody.
        self.references.touch(kind, &name);
    }

    /// Sets a secret of our own making; it wins over every source.
    pub fn set_local(&mut self, resource: Resource, now: Now) {
        self.fix(resource, Origin::Local, now);
    }

    /// Makes `statics` the static resources, whatever they were.
    pub fn replace_statics(&mut self, statics: &Statics, now: Now) {
        let clusters = statics.clusters.iter().cloned().map(Resource::Cluster);
        let listeners = statics.listeners.iter().cloned().map(Resource::Listener);
        let secrets = statics.secrets.iter().cloned().map(|(name, secret)| Resource::Secret { name, secret });
        let routes = statics.routes.iter().cloned().map(|(name, routes)| Resource::Routes { name, routes });
        let resources: Vec<Resource> = clusters.chain(listeners).chain(secrets).chain(routes).collect();
        let kept: BTreeSet<(Kind, &Name)> = resources.iter().map(|r| (kind_of(r), r.name())).collect();
        for kind in Kind::ALL {
            let of_bootstrap = self
                .table(kind)
                .iter()
                .filter(|(_, slot)| slot.latest.as_ref().is_some_and(|version| version.origin == Origin::Static));
            let gone: Vec<Name> =
                of_bootstrap.map(|(name, _)| name).filter(|name| !kept.contains(&(kind, *name))).cloned().collect();
            gone.iter().for_each(|name| self.release(kind, name, now));
        }
        for resource in resources {
            self.fix(resource, Origin::Static, now);
        }
    }

    /// A static resource is none any more.
    fn release(&mut self, kind: Kind, name: &Name, now: Now) {
        if kind.is_wildcard() {
            // As if its source had removed it.
            return self.withdraw(kind, name, now);
        }
        self.set_latest(kind, name, None);
        self.set_active(kind, name, None);
        self.references.touch(kind, name);
    }
}
