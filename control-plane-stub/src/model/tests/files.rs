use super::*;
use std::fs;

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: NAME}\nspec: {ports: [{port: 80}]}\n";

fn service(name: &str) -> String {
    SERVICE.replace("NAME", name)
}

#[test]
fn a_config_map_mount_is_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().join("..2026_01_01");
    fs::create_dir(&real).unwrap();
    fs::write(real.join("a.yaml"), service("a")).unwrap();
    std::os::unix::fs::symlink("..2026_01_01", dir.path().join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/a.yaml", dir.path().join("a.yaml")).unwrap();
    let world = load(dir.path()).unwrap();
    assert_eq!(world.services.keys().collect::<Vec<_>>(), ["a.default.svc.cluster.local"]);
}

#[test]
fn hidden_and_foreign_files_are_skipped_and_directories_entered() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("sub/deeper")).unwrap();
    fs::create_dir(dir.path().join(".git")).unwrap();
    fs::write(dir.path().join(".git/x.yaml"), "nonsense: [").unwrap();
    fs::write(dir.path().join(".#a.yaml"), "nonsense: [").unwrap();
    fs::write(dir.path().join("notes.txt"), "nonsense: [").unwrap();
    fs::write(dir.path().join("sub/deeper/a.yml"), service("a")).unwrap();
    fs::write(
        dir.path().join("b.json"),
        serde_json::json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "b"}}).to_string(),
    )
    .unwrap();
    std::os::unix::fs::symlink("..", dir.path().join("sub/loop")).unwrap();
    assert_eq!(load(dir.path()).unwrap().services.len(), 2);
}

#[test]
fn unreadable_places_are_problems() {
    assert!(load(std::path::Path::new("/does/not/exist")).unwrap_err()[0].reason.starts_with("cannot be read"));
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), [0xff, 0xfe]).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("b.yaml")).unwrap();
    let problems = load(dir.path()).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert_eq!(problems[0].reason, "is not UTF-8");
    assert!(problems[1].reason.starts_with("cannot be read"));
}

#[test]
fn documents_are_counted_and_errors_have_lines_of_the_file() {
    let yaml = format!("# comment\n---\n{}---\n---\nkind: [\n---\n{}", service("a"), "apiVersion: v1\nkind: Service\n");
    let found = problems(&yaml);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("3 (document): not valid YAML"), "{found:?}");
    assert!(found[0].contains("line 9") || found[0].contains("line 10"), "{found:?}");
    assert!(found[1].starts_with("4 metadata.name: is missing"), "{found:?}");
}

#[test]
fn lists_are_taken_apart() {
    let yaml = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: a}, spec: {prots: []}}\n";
    assert_problems(yaml, &["1 items[0].spec.prots: `prots` is not a field"]);
}

#[test]
fn hostile_documents_are_bounded() {
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (level, below) in ('b'..='i').zip('a'..='h') {
        bomb.push_str(&format!("{level}: &{level} [{}]\n", vec![format!("*{below}"); 10].join(", ")));
    }
    let found = problems(&bomb);
    assert!(found[0].starts_with("1 (document): not valid YAML"), "{found:?}");
    let deep = format!("a: {}{}", "[".repeat(5000), "]".repeat(5000));
    assert!(problems(&deep)[0].starts_with("1 (document): not valid YAML"));
    assert_problems("just text", &["1 (document): is not a mapping"]);
    assert_problems("apiVersion: v1\napiVersion: v1\nkind: Service", &["1 (document): not valid YAML"]);
}

#[test]
fn what_only_the_api_server_writes_is_tolerated() {
    loaded(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a, uid: x, resourceVersion: '1', creationTimestamp: null, managedFields: [], \
         ownerReferences: [], generation: 3, finalizers: []}\nspec: {ports: [{port: 80, nodePort: 30000}], sessionAffinity: None, \
         ipFamilies: [IPv4], internalTrafficPolicy: Cluster}\nstatus: {loadBalancer: {}}\n",
    );
}

#[test]
fn a_file_without_a_byte_is_not_a_file_without_documents() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), service("a")).unwrap();
    fs::write(dir.path().join("b.yaml"), "").unwrap();
    let problems = load(dir.path()).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].reason.contains("is empty"), "{problems:?}");
    fs::write(dir.path().join("b.yaml"), "# nothing yet\n").unwrap();
    assert_eq!(load(dir.path()).unwrap().documents, 1);
}
