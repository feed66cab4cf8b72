//! The mesh's own configuration, with its services found.

use crate::model::{
    Problem,
    document::Object,
    mesh_config::{ConfigMap, MeshConfig},
    names,
    world::{Service, World},
};

/// The one document there may be; else Istio's own; else nothing but defaults.
pub(super) fn config(
    objects: Vec<Object<MeshConfig>>,
    istio: Vec<Object<ConfigMap>>,
    world: &mut World,
    problems: &mut Vec<Problem>,
) -> MeshConfig {
    let mut found = None;
    for mut object in objects {
        if !world.settings.is_root(&object.meta.namespace) {
            let roots = world.settings.root_namespaces.join(" or ");
            problems
                .push(object.source.problem("metadata.namespace", format!("holds for the mesh: put it into {roots}")));
        }
        if found.is_some() {
            problems.push(object.source.problem("metadata.name", "there is one MeshConfig already: merge the two"));
            continue;
        }
        providers(&mut object, "spec", world, problems);
        access_log(&object, "spec", problems);
        found = Some(object.spec);
    }
    for map in istio.into_iter().filter(|map| world.settings.is_root(&map.meta.namespace)) {
        if found.is_some() {
            world.notes.push(format!("ConfigMap {}/istio is passed over for another MeshConfig", map.meta.namespace));
            continue;
        }
        match map.spec.mesh(&world.settings) {
            Ok((spec, passed_over)) => {
                let mut object = Object { meta: map.meta, source: map.source, spec };
                providers(&mut object, "data.mesh", world, problems);
                access_log(&object, "data.mesh", problems);
                let read = "trustDomainAliases, pathNormalization, extensionProviders of authorization and OpenTelemetry, and what traces and logs";
                let rest = if passed_over.is_empty() { "nothing".to_owned() } else { passed_over.join(", ") };
                let namespace = &object.meta.namespace;
                world.notes.push(format!("of ConfigMap {namespace}/istio, {read} are read; passed over: {rest}"));
                found = Some(object.spec);
            }
            Err(reason) => problems.push(map.source.problem("data.mesh", reason)),
        }
    }
    found.unwrap_or_default()
}

fn access_log(object: &Object<MeshConfig>, root: &str, problems: &mut Vec<Problem>) {
    if let Err(reason) = object.spec.log_format() {
        problems.push(object.source.problem(format!("{root}.accessLogFormat"), reason));
    }
}

fn providers(object: &mut Object<MeshConfig>, root: &str, world: &World, problems: &mut Vec<Problem>) {
    let source = &object.source;
    let mut names = std::collections::HashSet::new();
    for (index, provider) in object.spec.extension_providers.iter_mut().enumerate() {
        let path = format!("{root}.extensionProviders[{index}]");
        let mut problem = |field: &str, reason: String| problems.push(source.problem(format!("{path}{field}"), reason));
        let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if provider.name.is_empty() || !provider.name.chars().all(ok) {
            problem(".name", format!("`{}` is not a name of letters, digits, -, . and _", provider.name));
        } else if !names.insert(provider.name.clone()) {
            problem(".name", format!("the provider {} is there twice", provider.name));
        }
        let kinds = [
            provider.envoy_ext_authz_http.is_some(),
            provider.envoy_ext_authz_grpc.is_some(),
            provider.opentelemetry.is_some(),
        ];
        if kinds.iter().filter(|is| **is).count() != 1 {
            problem("", "needs one of envoyExtAuthzHttp, envoyExtAuthzGrpc and opentelemetry".to_owned());
            continue;
        }
        let Some((port, grpc)) = provider.port() else { continue };
        let Some((kind, name)) = provider.service() else { continue };
        match service(world, name) {
            Ok(found) => {
                match found.port(port) {
                    None => problem(&format!(".{kind}.port"), format!("{} has no port {port}", found.host)),
                    Some(port) if grpc && !port.protocol.is_http2() => {
                        let reason = format!("is not of protocol grpc in {}: name the port grpc-...", found.host);
                        problem(&format!(".{kind}.port"), reason);
                    }
                    Some(_) => {}
                }
                name.clone_from(&found.host);
            }
            Err(reason) => problem(&format!(".{kind}.service"), reason),
        }
    }
    let tracing = &object.spec.default_providers.tracing;
    let path = format!("{root}.defaultProviders.tracing");
    if tracing.len() > 1 {
        problems.push(source.problem(&path, "one provider is the most there can be"));
    }
    for name in tracing {
        match object.spec.provider(name) {
            Some(provider) if provider.opentelemetry.is_some() => {}
            Some(_) => problems.push(source.problem(&path, format!("{name} is not of kind opentelemetry"))),
            None => problems.push(source.problem(&path, format!("no provider is called {name}"))),
        }
    }
}

/// By `host`, or by `namespace/host`.
fn service<'a>(world: &'a World, name: &str) -> Result<&'a Service, String> {
    let (namespace, host) = match name.split_once('/') {
        Some((namespace, host)) => (Some(namespace), host),
        None => (None, name),
    };
    let short = namespace.filter(|_| !host.contains('.'));
    let absolute = short.map_or_else(|| host.to_ascii_lowercase(), |ns| names::absolute(host, ns, &world.settings));
    let found = world.services.get(&absolute).filter(|s| namespace.is_none_or(|ns| s.namespace == ns));
    found
        .filter(|s| !s.host.starts_with('*'))
        .ok_or_else(|| format!("no Service or ServiceEntry declares `{name}`: write host, or namespace/host, in full"))
}
