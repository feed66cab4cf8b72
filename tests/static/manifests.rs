//! What is shipped for Kubernetes is valid for Kubernetes.

#![allow(clippy::unwrap_used)]

use std::{path::Path, process::Command};

use outrigger_tests::{need, process::run};

#[test]
fn manifests_satisfy_the_kubernetes_schemas() {
    need!("kubernetes-validate");
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("deploy/kubernetes");
    let mut files: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "yaml"));
    assert!(!files.is_empty(), "no manifests in {}", dir.display());
    run(Command::new("kubernetes-validate").args(["-k", "1.31", "--strict"]).args(&files));
}

#[test]
fn a_broken_manifest_is_noticed() {
    need!("kubernetes-validate");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pod.yaml");
    std::fs::write(&file, "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containerz: []}\n").unwrap();
    let output = Command::new("kubernetes-validate").args(["-k", "1.31", "--strict"]).arg(file).output().unwrap();
    assert!(!output.status.success(), "the validator accepts anything: {output:?}");
}
