//! The program's own log: lines on stderr, text or JSON, with a level that can be changed at run time.

use std::sync::Arc;

use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt};

use crate::telemetry::metrics;

/// Changes the level of a running program.
#[derive(Clone)]
pub(super) struct Handle(Arc<reload::Handle<EnvFilter, Registry>>);

impl Handle {
    /// Sets a level or filter; the reason when it is not one.
    pub(super) fn set(&self, level: &str) -> Result<(), String> {
        self.0.reload(filter(level)?).map_err(|e| e.to_string())
    }
}

pub(super) fn init(level: &str, json: bool) -> Result<Handle, String> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let result =
        if json { registry.with(lines.json()).try_init() } else { registry.with(lines.with_ansi(false)).try_init() };
    result.map_err(|e| e.to_string())?;
    std::panic::set_hook(Box::new(|panic| {
        // One connection dies of it, the process goes on: somebody has to hear of it.
        metrics::panics().inc();
        tracing::error!(backtrace = %std::backtrace::Backtrace::force_capture(), "panic: {panic}");
    }));
    Ok(Handle(Arc::new(handle)))
}

/// Envoy's level names, or a filter of the form `target=level,...`.
fn filter(text: &str) -> Result<EnvFilter, String> {
    let directives = text.split(',').map(str::trim).map(directive).collect::<Result<Vec<_>, _>>()?;
    EnvFilter::try_new(directives.join(",")).map_err(|e| format!("`{text}`: {e}"))
}

/// One directive with our own level names. A bare word that is no level would be taken for a target, and everything
/// else would fall silent: a typing error must not do that.
fn directive(text: &str) -> Result<String, String> {
    match text.rsplit_once('=') {
        Some((target, level)) if !target.is_empty() => Ok(format!("{target}={}", named(level)?)),
        _ => Ok(named(text)?.to_owned()),
    }
}

fn named(level: &str) -> Result<&'static str, String> {
    Ok(match level.to_ascii_lowercase().as_str() {
        "trace" => "trace",
        "debug" => "debug",
        "info" => "info",
        "warn" | "warning" => "warn",
        "error" | "critical" => "error",
        "off" => "off",
        _ => return Err(format!("`{level}` is not one of trace, debug, info, warning, error, critical, off")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_envoys_and_typing_errors_do_not_silence_the_log() {
        assert_eq!(filter("warning").unwrap().to_string(), "warn");
        assert_eq!(filter("critical").unwrap().to_string(), "error");
        let mixed = filter("info, outrigger_proxy::xds=debug").unwrap().to_string();
        assert!(mixed.contains("info") && mixed.contains("outrigger_proxy::xds=debug"), "{mixed}");
        for wrong in ["warnign", "", "a=b=c", "=info", "x=loud", "[{x=.*}]"] {
            assert!(filter(wrong).is_err(), "{wrong}");
        }
    }
}
