//! Who is referred to, counted, so that a change costs what changed and not what there is.
//!
//! Every version that is the latest or in force counts once per role. Which names became wanted or unwanted is only
//! decided afterwards, from the names noted here: within one update a reference may leave one resource and turn up in
//! another.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{super::kind::Kind, Needs, Origin};
use crate::ir::{ConfigSource, Name};

type Counts = HashMap<Name, u32, foldhash::fast::RandomState>;

/// Where a reference leads: a type, and the source to ask; `None` is the bootstrap or this process.
pub(super) type Place = (Kind, Option<ConfigSource>);

#[derive(Debug, Default)]
pub(super) struct References {
    /// Names of secrets that this process sets itself.
    reserved: BTreeSet<Name>,
    places: BTreeMap<Place, Counts>,
    touched: BTreeSet<(Kind, Name)>,
    /// Clusters named by listeners and routes in force.
    users: Counts,
}

impl References {
    pub(super) fn new(reserved: BTreeSet<Name>) -> Self {
        Self { reserved, ..Self::default() }
    }

    /// Counts the references of a cluster or listener in.
    pub(super) fn add(&mut self, needs: &Needs, origin: &Origin) {
        self.each(needs, origin, |this, place, name| {
            let counts = match this.places.get_mut(&place) {
                Some(counts) => counts,
                None => this.places.entry(place).or_default(),
            };
            count(counts, name)
        });
    }

    /// Counts them out.
    pub(super) fn subtract(&mut self, needs: &Needs, origin: &Origin) {
        self.each(needs, origin, |this, place, name| {
            let Some(counts) = this.places.get_mut(&place) else { return false };
            let last = discount(counts, name);
            if counts.is_empty() {
                this.places.remove(&place);
            }
            last
        });
    }

    fn each(&mut self, needs: &Needs, origin: &Origin, mut change: impl FnMut(&mut Self, Place, &Name) -> bool) {
        let endpoints = needs.endpoints.iter().map(|(name, source)| (Kind::Endpoints, name, source));
        let routes = needs.routes.iter().map(|(name, source)| (Kind::Routes, name, source));
        let secrets = needs.secrets.iter().map(|s| (Kind::Secret, &s.name, &s.source));
        for (kind, name, source) in endpoints.chain(routes).chain(secrets) {
            let here = kind == Kind::Secret && self.reserved.contains(name) || *source == ConfigSource::Static;
            let place = (kind, (!here).then(|| absolute(source, origin)));
            if change(self, place, name) {
                self.touched.insert((kind, name.clone()));
            }
        }
    }

    /// Notes that `name` has to be looked at, whoever refers to it.
    pub(super) fn touch(&mut self, kind: Kind, name: &Name) {
        self.touched.insert((kind, name.clone()));
    }

    /// The names whose references may have begun or ended since the last call.
    pub(super) fn take_touched(&mut self) -> BTreeSet<(Kind, Name)> {
        std::mem::take(&mut self.touched)
    }

    /// The sources to ask for `name`, `None` among them where it is the bootstrap's or our own; none when nobody
    /// refers to it.
    pub(super) fn places<'a>(&'a self, kind: Kind, name: &'a str) -> impl Iterator<Item = Option<&'a ConfigSource>> {
        let places = self.places.range((kind, None)..).take_while(move |((k, _), _)| *k == kind);
        places.filter(|(_, counts)| counts.contains_key(name)).map(|((_, source), _)| source.as_ref())
    }

    /// Counts in the clusters that a listener or route configuration names.
    pub(super) fn add_users(&mut self, needs: &Needs) {
        for name in &needs.clusters {
            count(&mut self.users, name);
        }
    }

    pub(super) fn subtract_users(&mut self, needs: &Needs) {
        for name in &needs.clusters {
            discount(&mut self.users, name);
        }
    }

    /// Whether both count the same.
    #[cfg(test)]
    pub(super) fn agrees(&self, other: &Self) -> bool {
        self.places == other.places && self.users == other.users
    }

    /// Every place with its names.
    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = (&Place, BTreeSet<Name>)> {
        self.places.iter().map(|(place, counts)| (place, counts.keys().cloned().collect()))
    }

    /// Whether a listener or route configuration in force names the cluster.
    pub(super) fn has_users(&self, cluster: &str) -> bool {
        self.users.contains_key(cluster)
    }
}

/// Whether it is the first.
fn count(counts: &mut Counts, name: &Name) -> bool {
    match counts.get_mut(name) {
        Some(count) => {
            *count += 1;
            false
        }
        None => counts.insert(name.clone(), 1).is_none(),
    }
}

/// Whether it was the last.
fn discount(counts: &mut Counts, name: &Name) -> bool {
    match counts.get_mut(name) {
        Some(count) if *count > 1 => {
            *count -= 1;
            false
        }
        Some(_) => {
            counts.remove(name);
            if counts.capacity() > 64 && counts.len() < counts.capacity() / 8 {
                counts.shrink_to_fit();
            }
            true
        }
        None => false,
    }
}

/// `SelfSource` is the source of the resource that says so; for static resources Envoy means the aggregated stream.
fn absolute(source: &ConfigSource, origin: &Origin) -> ConfigSource {
    match (source, origin) {
        (ConfigSource::SelfSource, Origin::Source(from)) => from.clone(),
        (ConfigSource::SelfSource, Origin::Static | Origin::Local) => ConfigSource::Ads,
        (other, _) => other.clone(),
    }
}
