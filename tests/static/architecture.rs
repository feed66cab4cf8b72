//! Reads the sources and enforces what the layout promises: which room may use which, and how long a file may get.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Rooms of `proxy/src` by layer, lowest first. A room may use rooms of lower layers and the ones named beside it.
const LAYERS: &[(&[&str], &[&str])] = &[
    (&["ir", "drain", "bootstrap", "telemetry", "settings"], &["ir", "telemetry"]),
    (&["net", "l4", "tls"], &["net", "tls"]),
    (&["upstream", "policy"], &[]),
    (&["live"], &[]),
    (&["l7"], &[]),
    (&["conn", "worker", "admin"], &["conn", "worker"]),
    (&["app", "main"], &["app"]),
];

/// `xds` stands beside the data path: it may use these and nothing else, and only `app` and `admin` may use it.
const XDS_MAY_USE: &[&str] = &["ir", "xds"];
const MAY_USE_XDS: &[&str] = &["app", "main", "admin", "xds", "bootstrap"];

const LONGEST_FILE: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut pending = vec![dir.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The room a file of `proxy/src` belongs to.
fn room(file: &Path, src: &Path) -> String {
    let first = file.strip_prefix(src).unwrap().components().next().unwrap();
    Path::new(first.as_os_str()).file_stem().unwrap().to_str().unwrap().to_owned()
}

/// Names that follow `crate::` in code, tests and comments left out.
fn rooms_used(text: &str) -> Vec<(usize, String)> {
    let mut used = Vec::new();
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    for (at, _) in code.match_indices("crate::") {
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + "crate::".len()..];
        let names: Vec<&str> = match rest.strip_prefix('{') {
            // `use crate::{a::X, b::{Y, Z}}`: the names at depth one.
            Some(group) => {
                let mut depth = 0;
                let end = group
                    .find(|c| {
                        depth += i32::from(c == '{') - i32::from(c == '}');
                        depth < 0
                    })
                    .unwrap_or(group.len());
                top_level_items(&group[..end])
            }
            None => vec![rest],
        };
        for name in names {
            let ident: String =
                name.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            if !ident.is_empty() {
                used.push((line, ident));
            }
        }
    }
    used
}

fn top_level_items(group: &str) -> Vec<&str> {
    let (mut items, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(&group[start..]);
    items
}

#[test]
fn rooms_depend_downwards_only() {
    let src = root().join("proxy/src");
    let layer: BTreeMap<&str, usize> =
        LAYERS.iter().enumerate().flat_map(|(i, (rooms, _))| rooms.iter().map(move |r| (*r, i))).collect();
    let mut wrong = Vec::new();
    for file in rust_files(&src) {
        let here = room(&file, &src);
        if here == "lib" || file.ends_with("tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        for (line, there) in rooms_used(&text) {
            let known = there == "xds" || layer.contains_key(there.as_str());
            if !known || there == here {
                continue;
            }
            let allowed = if here == "xds" {
                XDS_MAY_USE.contains(&there.as_str())
            } else if there == "xds" {
                MAY_USE_XDS.contains(&here.as_str())
            } else {
                let mine = *layer.get(here.as_str()).unwrap_or_else(|| panic!("{here} is in no layer"));
                let theirs = layer[there.as_str()];
                theirs < mine || (theirs == mine && LAYERS[mine].1.contains(&there.as_str()))
            };
            if !allowed {
                wrong.push(format!("{}:{line}: `{here}` must not use `{there}`", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_use_lines_sees_groups_and_paths() {
    let text = "use crate::{ir::{a, b}, tls};\n// crate::comment\nfn f() { crate::net::x(); }\n";
    let names: Vec<String> = rooms_used(text).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["ir", "tls", "net"]);
}

#[test]
fn no_file_grows_beyond_reading() {
    let mut long = Vec::new();
    for dir in ["proxy", "init", "control-plane-stub", "benches", "tests"] {
        for file in rust_files(&root().join(dir)) {
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            if lines > LONGEST_FILE {
                long.push(format!("{} has {lines} lines", file.display()));
            }
        }
    }
    assert!(long.is_empty(), "split by reason to change:\n{}", long.join("\n"));
}

#[test]
fn unsafe_code_stays_in_its_rooms() {
    let allowed = ["proxy/src/net/socket.rs", "proxy/src/l4/splice.rs", "proxy/src/app/memory.rs"];
    let src = root().join("proxy/src");
    let wrong: Vec<String> = rust_files(&src)
        .into_iter()
        .filter(|f| !allowed.iter().any(|a| f.ends_with(a)))
        .filter(|f| {
            let text = fs::read_to_string(f).unwrap();
            text.lines()
                .any(|l| l.split("//").next().is_some_and(|c| c.contains("unsafe {") || c.contains("unsafe fn")))
        })
        .map(|f| f.display().to_string())
        .collect();
    assert!(wrong.is_empty(), "unsafe outside its rooms: {wrong:?}");
}

/// The control plane may ask what the proxy would decide, to explain it; it must not grow into the data path.
#[test]
fn the_control_plane_only_asks_for_decisions() {
    let src = root().join("control-plane-stub/src");
    let mut wrong = Vec::new();
    for file in rust_files(&src) {
        if file.components().any(|part| part.as_os_str() == "tests") {
            continue;
        }
        let text =
            fs::read_to_string(&file).unwrap().replace("crate::", "own::").replace("outrigger_proxy::", "crate::");
        for (line, there) in rooms_used(&text) {
            if room(&file, &src) != "explain" || !["ir", "policy", "xds"].contains(&there.as_str()) {
                wrong.push(format!("{}:{line}: must not use `outrigger_proxy::{there}`", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
