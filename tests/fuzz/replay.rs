//! Every target over its corpus and over what was found once.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

mod targets;

/// Panics that happened anywhere: those of tasks are not passed on.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn inputs(kept: &str, target: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kept).join(target);
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// One test for all: the targets count the panics of the whole process.
#[test]
fn no_input_that_was_ever_of_interest_breaks_a_property() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        report(info);
    }));
    let mut broken = Vec::new();
    for (name, run) in targets::TARGETS {
        let corpus = inputs("corpus", name);
        assert!(!corpus.is_empty(), "{name} has no corpus");
        for file in corpus.into_iter().chain(inputs("regressions", name)) {
            let data = fs::read(&file).unwrap();
            let before = PANICS.load(Ordering::SeqCst);
            let outcome = std::panic::catch_unwind(|| run(&data));
            if outcome.is_err() || PANICS.load(Ordering::SeqCst) > before {
                broken.push(file);
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// What is kept is read by everybody who runs the tests.
#[test]
fn the_corpus_stays_small() {
    let mut size = 0;
    for (name, _) in targets::TARGETS {
        let files = inputs("corpus", name).into_iter().chain(inputs("regressions", name));
        size += files.map(|file| fs::metadata(file).unwrap().len()).sum::<u64>();
    }
    assert!(size < 2 << 20, "{size} bytes");
}
