//! `/tap` and `/failures`: finished requests as they come, and what failed of late.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;
use tokio::time::{Instant, Sleep};

use super::http::{Answer, Call};
use crate::telemetry::tap::{self, Wanted, Watch};

const LINES: u64 = 100;
const MOST_LINES: u64 = 1_000_000;
const SECONDS: u64 = 30;
const MOST_SECONDS: u64 = 3600;

/// The lines of one watcher, and at the end how many there were.
pub(super) struct Lines {
    /// Gone with the last line, so that the next one may watch.
    watch: Option<Watch>,
    until: Pin<Box<Sleep>>,
    limit: u64,
    sent: u64,
}

impl Lines {
    /// The next line; `None` at the end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(watch) = &mut self.watch else { return Poll::Ready(None) };
        // The time first: where lines never end, it does.
        let over = self.until.as_mut().poll(cx).is_ready() || self.sent >= self.limit;
        if !over && let Some(line) = std::task::ready!(watch.lines.poll_recv(cx)) {
            self.sent += 1;
            return Poll::Ready(Some(line));
        }
        let dropped = watch.dropped();
        self.watch = None;
        let by = if self.sent >= self.limit { "limit" } else { "time" };
        let end = json!({"end": by, "lines": self.sent, "dropped": dropped});
        Poll::Ready(Some(format!("{end}\n").into()))
    }

    /// When it ends at the latest.
    pub(super) fn deadline(&self) -> Instant {
        self.until.deadline()
    }
}

/// `/tap`.
pub(super) fn tap(call: &Call) -> Answer {
    let (wanted, limit, seconds) = match wanted(call) {
        Ok(found) => found,
        Err(reason) => return Answer::error(StatusCode::BAD_REQUEST, format!("{reason}\n")),
    };
    match Watch::new(wanted, limit) {
        Some(watch) => {
            let until = Box::pin(tokio::time::sleep(Duration::from_secs(seconds)));
            Answer::lines(Lines { watch: Some(watch), until, limit, sent: 0 })
        }
        None => {
            let reason = format!("{} watch already, which is all that may\n", tap::MOST_WATCHERS);
            Answer::error(StatusCode::SERVICE_UNAVAILABLE, reason)
        }
    }
}

fn wanted(call: &Call) -> Result<(Wanted, u64, u64), String> {
    let (mut wanted, mut limit, mut seconds) = (Wanted::default(), LINES, SECONDS);
    for (key, value) in &call.query {
        let wrong = |what: &str| format!("{key}: `{value}` is not {what}");
        let number = |most: u64| {
            value.parse::<u64>().ok().filter(|n| (1..=most).contains(n)).ok_or_else(|| wrong(&format!("1 to {most}")))
        };
        let text = || Some(value.as_str().into());
        match key.as_str() {
            "route" => wanted.route = text(),
            "host" => wanted.host = Some(value.to_ascii_lowercase().into()),
            "path" => wanted.path = text(),
            "method" => wanted.method = text(),
            "cluster" => wanted.cluster = text(),
            "source" => wanted.source = Some(value.parse().map_err(|_| wrong("an IP address"))?),
            "status" => wanted.status = Some(statuses(value).ok_or_else(|| wrong("404, 5xx or 400-499"))?),
            "failed" => wanted.failed = !matches!(value.as_str(), "false" | "off" | "0"),
            "limit" => limit = number(MOST_LINES)?,
            "seconds" => seconds = number(MOST_SECONDS)?,
            other => return Err(format!("`{other}` is no parameter of /tap; see /help")),
        }
    }
    Ok((wanted, limit, seconds))
}

/// One, a class, or a range.
fn statuses(text: &str) -> Option<(u16, u16)> {
    if let Some(class) = text.strip_suffix("xx") {
        let class: u16 = class.parse().ok().filter(|class| (1..=5).contains(class))?;
        return Some((class * 100, class * 100 + 99));
    }
    match text.split_once('-') {
        Some((from, to)) => Some((from.parse().ok()?, to.parse().ok()?)),
        None => text.parse().ok().map(|one| (one, one)),
    }
}

/// `/failures`.
pub(super) fn failures() -> Answer {
    Answer::json(&json!({"failures": tap::recent()}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_one_a_class_or_a_range() {
        assert_eq!(statuses("404"), Some((404, 404)));
        assert_eq!(statuses("5xx"), Some((500, 599)));
        assert_eq!(statuses("400-403"), Some((400, 403)));
        for wrong in ["", "xx", "9xx", "a", "1-", "-", "70000"] {
            assert_eq!(statuses(wrong), None, "{wrong}");
        }
    }
}
