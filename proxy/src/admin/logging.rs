//! `/logging`: the program's log level, and levels of its parts under the names that Envoy's loggers have.
//!
//! A level of a part stays until the level of everything is set.

use std::{collections::BTreeMap, fmt::Write};

use http::StatusCode;

use super::{
    Inner,
    http::{Answer, Call},
};

/// Envoy's loggers by the part of this program that does their work.
const LOGGERS: &[(&str, &str)] = &[
    ("admin", "outrigger_proxy::admin"),
    ("client", "outrigger_proxy::l7::client"),
    ("config", "outrigger_proxy::xds"),
    ("conn_handler", "outrigger_proxy::conn"),
    ("connection", "outrigger_proxy::net"),
    ("dns", "outrigger_proxy::upstream::dns"),
    ("ext_authz", "outrigger_proxy::l7::filters::ext_authz"),
    ("filter", "outrigger_proxy::l7::filters"),
    ("hc", "outrigger_proxy::upstream::health"),
    ("http", "outrigger_proxy::l7"),
    ("http2", "outrigger_proxy::l7::http2"),
    ("jwt", "outrigger_proxy::l7::filters::jwt_authn"),
    ("main", "outrigger_proxy::app"),
    ("pool", "outrigger_proxy::l7::client"),
    ("rbac", "outrigger_proxy::conn"),
    ("router", "outrigger_proxy::l7::forward"),
    ("secret", "outrigger_proxy::tls"),
    ("tracing", "outrigger_proxy::telemetry"),
    ("upstream", "outrigger_proxy::upstream"),
];

/// Parts with a level of their own, at most.
const MOST: usize = 64;

/// What was asked for.
#[derive(Clone, Debug)]
pub(super) struct Levels {
    base: String,
    parts: BTreeMap<String, String>,
}

impl Levels {
    pub(super) fn new(base: &str) -> Self {
        Self { base: base.to_owned(), parts: BTreeMap::new() }
    }

    /// As the program's log takes it.
    fn filter(&self) -> String {
        self.parts.iter().fold(self.base.clone(), |mut text, (part, level)| {
            let _ = write!(text, ",{part}={level}");
            text
        })
    }

    /// As Envoy lists its loggers.
    fn listed(&self) -> String {
        let mut text = "active loggers:\n".to_owned();
        for (name, part) in LOGGERS {
            let level = self.parts.get(*part).unwrap_or(&self.base);
            let _ = writeln!(text, "  {name}: {level}");
        }
        for (part, level) in self.parts.iter().filter(|(part, _)| !LOGGERS.iter().any(|(_, known)| known == part)) {
            let _ = writeln!(text, "  {part}: {level}");
        }
        text
    }

    fn set(&mut self, name: &str, level: &str) {
        let part = LOGGERS.iter().find(|(known, _)| *known == name).map_or(name, |(_, part)| part);
        self.parts.insert(part.to_owned(), level.to_owned());
    }
}

/// Sets the level of everything, or of parts; or shows the levels.
pub(super) fn logging(inner: &Inner, call: &Call) -> Answer {
    let mut levels = super::lock(&inner.state.log_level);
    let mut wanted = levels.clone();
    match (call.parameter("level"), call.parameter("paths").or_else(|| call.parameter("group")), call.query.first()) {
        (Some(level), ..) => wanted = Levels::new(level),
        (None, Some(paths), _) => {
            for path in paths.split(',') {
                let Some((name, level)) = split(path) else {
                    return Answer::error(StatusCode::BAD_REQUEST, format!("`{path}` is not NAME:LEVEL\n"));
                };
                wanted.set(name, level);
            }
        }
        // Envoy's form for one logger: /logging?http=debug
        (None, None, Some((name, level))) => wanted.set(name, level),
        (None, None, None) => return Answer::text(levels.listed()),
    }
    if wanted.parts.len() > MOST {
        return Answer::error(StatusCode::BAD_REQUEST, format!("more than {MOST} levels; set ?level= first\n"));
    }
    match (inner.context.set_log_level)(&wanted.filter()) {
        Ok(()) => {
            *levels = wanted;
            Answer::text(levels.listed())
        }
        Err(reason) => Answer::error(StatusCode::BAD_REQUEST, format!("{reason}\n")),
    }
}

/// `target:level` of Envoy's `paths`; the target itself may contain `::`.
fn split(path: &str) -> Option<(&str, &str)> {
    path.trim().rsplit_once(':').filter(|(name, level)| !name.is_empty() && !name.ends_with(':') && !level.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_envoys_names_or_their_own() {
        let mut levels = Levels::new("warning");
        levels.set("router", "trace");
        levels.set("hyper", "debug");
        assert_eq!(levels.filter(), "warning,hyper=debug,outrigger_proxy::l7::forward=trace");
        let listed = levels.listed();
        assert!(listed.starts_with("active loggers:\n  admin: warning\n"), "{listed}");
        assert!(listed.contains("  router: trace\n") && listed.ends_with("  hyper: debug\n"), "{listed}");
        assert_eq!(split("outrigger_proxy::xds:debug"), Some(("outrigger_proxy::xds", "debug")));
        for wrong in ["", "xds", "a::b", ":debug", "a:"] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
    }
}
