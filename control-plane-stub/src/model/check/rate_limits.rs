//! RateLimits: services that are there, and limits that some traffic can be held against.

use crate::model::{Class, LimitMode, Object, Problem, RateLimit, Scope, names, world::World};

pub(super) fn check(world: &mut World, notes: &mut Vec<String>, problems: &mut Vec<Problem>) {
    let mut limits = std::mem::take(&mut world.rate_limits);
    for object in &mut limits {
        service(world, object, problems);
        effects(world, object, notes, problems);
    }
    world.rate_limits = limits;
}

/// Makes the name of an external service absolute; it must be one, and speak gRPC.
fn service(world: &World, object: &mut Object<RateLimit>, problems: &mut Vec<Problem>) {
    let Some(external) = &mut object.spec.global.service else { return };
    external.host = names::absolute(&external.host, &object.meta.namespace, &world.settings);
    let mut problem = |field: &str, reason: String| {
        problems.push(object.source.problem(format!("spec.global.service.{field}"), reason));
    };
    if external.domain.is_empty() {
        problem("domain", "must not be empty".to_owned());
    }
    let Some(service) = world.services.get(&external.host) else {
        return problem("host", format!("there is no service {}", external.host));
    };
    match service.port(external.port) {
        None => problem("port", super::known_port(service, external.port).err().unwrap_or_default()),
        Some(port) if !port.protocol.is_http2() => {
            problem("port", format!("port {} of {} is not declared to be gRPC or HTTP/2", port.number, service.host));
        }
        Some(_) => {}
    }
}

/// What will never hold anything against it.
fn effects(world: &World, object: &Object<RateLimit>, notes: &mut Vec<String>, problems: &mut Vec<Problem>) {
    let (spec, name) = (&object.spec, format!("{}/{}", object.meta.namespace, object.meta.name));
    let selected: Vec<_> = world.workloads.iter().filter(|w| world.limits(object, &w.namespace, &w.labels)).collect();
    if selected.is_empty() {
        notes.push(format!("RateLimit {name} selects no workload"));
    }
    let of_selected = |address: &crate::model::Address| selected.iter().any(|w| w.addresses.contains(address));
    let declared = world.services.values().filter(|service| !service.external).flat_map(|service| {
        let here = service.endpoints.iter().filter(|endpoint| of_selected(&endpoint.address));
        here.flat_map(|endpoint| endpoint.ports.iter())
            .filter_map(|(number, at)| Some((service.port(*number)?, at.number)))
    });
    let opaque = |class| matches!(class, Class::Tcp | Class::Tls);
    let wanted = declared.clone().filter(|(_, at)| spec.matching.port.is_none_or(|port| port == *at));
    let ports: Vec<_> = wanted.map(|(port, at)| (opaque(port.protocol.class()), at)).collect();
    let http = |port: u16| {
        let mut classes =
            declared.clone().filter(|(_, at)| *at == port).map(|(port, _)| port.protocol.class()).peekable();
        classes.peek().is_some() && classes.all(|class| class == Class::Http)
    };
    if !spec.counts_connections() && !spec.matching.port.is_some_and(http) {
        let text = super::passed_in_silence(world, selected.iter().copied(), spec.matching.port);
        notes.extend(text.map(|text| format!("RateLimit {name}: {text}")));
    }
    let Some((_, port)) = ports.first().filter(|_| ports.iter().all(|(opaque, _)| *opaque)) else { return };
    if !spec.counts_connections() {
        let reason = format!(
            "port {port} carries no HTTP: connections have neither methods, paths nor headers, and a key only where the \
             scope is global and it is the remote address of the connection"
        );
        problems.push(object.source.problem("spec.match.port", reason));
    } else if spec.mode == LimitMode::DryRun && (spec.scope == Scope::Local || spec.global.service.is_some()) {
        let reason = "connections have no dry run but that of the control plane's rate limit service (scope: global)";
        problems.push(object.source.problem("spec.mode", reason));
    }
}
