//! How much program there is.

use std::process::Command;

use anyhow::{Context as _, ensure};

use super::bench::{Bench, Title};
use crate::result::Sample;

pub(super) fn run(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let proxies = bench.proxies();
    let title = Title::new("binary", "size", "the program without symbols");
    bench.rounds(&title, &proxies, 1, |_, contender| {
        let file = std::env::temp_dir().join(format!("outrigger-stripped-{}", std::process::id()));
        let strip = Command::new("strip").arg("-o").arg(&file).arg(contender.program()?).output();
        let output = strip.context("strip is not installed (`deploy/prepare benches` installs binutils)")?;
        ensure!(output.status.success(), "strip: {}", String::from_utf8_lossy(&output.stderr));
        let size = std::fs::metadata(&file)?.len();
        std::fs::remove_file(&file)?;
        let mut sample = Sample::default();
        sample.set("binary_mb", size as f64 / 1e6);
        Ok(sample)
    })
}
