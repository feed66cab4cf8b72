//! libFuzzer around one of the targets, which `OUTRIGGER_FUZZ_TARGET` names.
#![no_main]

use std::{path::Path, sync::OnceLock};

mod seeds;
mod targets;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        if let Some(to) = std::env::var_os("OUTRIGGER_FUZZ_SEEDS") {
            let written = seeds::write(Path::new(&to));
            std::process::exit(written.map_or_else(|e| { eprintln!("{e}"); 1 }, |()| 0));
        }
        let name = std::env::var("OUTRIGGER_FUZZ_TARGET").unwrap_or_default();
        let Some((_, target)) = targets::TARGETS.iter().find(|(known, _)| *known == name) else {
            for (name, _) in targets::TARGETS {
                println!("{name}");
            }
            std::process::exit(64);
        };
        TARGET.get_or_init(|| *target);
    },
    |data: &[u8]| {
        if let Some(target) = TARGET.get() {
            target(data);
        }
    }
);
