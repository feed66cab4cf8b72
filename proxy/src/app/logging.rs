//! The program's own log: lines on stderr, text or JSON, with a level that can be changed at run time.

use std::sync::Arc;

use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt};

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
        tracing::error!(backtrace = %std::backtrace::Backtrace::force_capture(), "panic: {panic}");
    }));
    Ok(Handle(Arc::new(handle)))
}

/// Envoy's level names, or a filter of the form `target=level,...`.
fn filter(level: &str) -> Result<EnvFilter, String> {
    let level = match level {
        "warning" => "warn",
        "critical" => "error",
        other => other,
    };
    EnvFilter::try_new(level).map_err(|e| format!("`{level}`: {e}"))
}
