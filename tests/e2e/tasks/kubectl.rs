//! `kubectl` for the control plane's folder: one file per object, so that an object takes the place of its last version.

use outrigger_tests::{Mesh, peers::root};

/// A file as published, without the Pods that stand in for a cluster's: the mesh has Pods of its own.
pub(crate) fn published(file: &str) -> String {
    let path = root().join("control-plane-stub/testdata/tasks").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let stand_in = |line: &&str| line.contains("kind: Pod,") || line.contains("kind: Node,");
    text.lines().filter(|line| !stand_in(line)).map(|line| format!("{line}\n")).collect()
}

/// `kubectl apply -f` of a published file; returns when every proxy has it.
pub(crate) fn apply(mesh: &Mesh, file: &str) {
    apply_text(mesh, "default", &published(file));
}

/// `kubectl apply -n NAMESPACE -f -`.
pub(crate) fn apply_text(mesh: &Mesh, namespace: &str, text: &str) {
    stage(mesh, namespace, text);
    mesh.settle();
}

/// As [`apply_text`], without waiting.
pub(crate) fn stage(mesh: &Mesh, namespace: &str, text: &str) {
    for document in text.split("---\n") {
        let value = |line: &str, key: &str| {
            line.trim_start().strip_prefix(key).map(|value| value.trim_matches([' ', '"']).to_owned())
        };
        let first = |key: &str| document.lines().find_map(|line| value(line, key));
        let Some(kind) = first("kind:").filter(|kind| kind != "Pod") else { continue };
        let mut document = document.to_owned();
        let namespace = first("namespace:").unwrap_or_else(|| {
            document = document.replacen("\nmetadata:\n", &format!("\nmetadata:\n  namespace: {namespace}\n"), 1);
            namespace.to_owned()
        });
        let name = first("name:").unwrap_or_default();
        mesh.apply(&file(&kind, &namespace, &name), &document);
    }
}

/// `kubectl delete KIND NAME -n NAMESPACE`.
pub(crate) fn delete(mesh: &Mesh, kind: &str, namespace: &str, name: &str) {
    mesh.remove(&file(kind, namespace, name));
    mesh.settle();
}

fn file(kind: &str, namespace: &str, name: &str) -> String {
    format!("{}-{namespace}-{name}.yaml", kind.to_lowercase())
}
