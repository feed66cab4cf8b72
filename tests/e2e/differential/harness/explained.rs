//! Whether a proxy does what its `/explain` said it would: each request of a script is described first, then sent.
//!
//! Looked at are the status that the client got and the hosts that a request arrived at. What cannot be described (bytes
//! that are no request, TLS) or is said to be unknown is counted apart, so that a test can ask for how much was compared.

use std::{fmt::Write, time::Duration};

use serde_json::Value;
use tokio::time::sleep;

use super::{
    client,
    request::{Req, Step, Version, get},
    stage::{Part, Stage},
};

/// Heads of more bytes may be more than a codec reads.
const CODEC_LIMIT: usize = 1 << 10;

/// Requests of a step that repeats one many times.
const REPEATED: usize = 3;

/// Questions after one whose answer was left to chance.
const ASKED_AGAIN: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Agreement {
    pub(crate) agreed: usize,
    /// The proxy said that it could not know.
    pub(crate) unknown: usize,
    /// No request that could be described.
    pub(crate) skipped: usize,
    pub(crate) disagreements: Vec<String>,
}

impl Agreement {
    pub(crate) fn add(&mut self, other: Self) {
        self.agreed += other.agreed;
        self.unknown += other.unknown;
        self.skipped += other.skipped;
        self.disagreements.extend(other.disagreements);
    }
}

/// Plays all scripts at once.
pub(crate) async fn check(stage: &Stage) -> Agreement {
    let mut all = Agreement::default();
    futures_util::future::join_all(stage.whole_parts().map(part)).await.into_iter().for_each(|one| all.add(one));
    all
}

async fn part(part: &Part) -> Agreement {
    let mut agreement = Agreement::default();
    for step in &part.case.steps {
        match step {
            Step::Requests(requests) => {
                for request in requests {
                    one(part, request, &mut agreement).await;
                }
            }
            Step::Spread(times, requests) => {
                for request in std::iter::repeat_n(requests, REPEATED.min(*times)).flatten() {
                    one(part, request, &mut agreement).await;
                }
            }
            Step::Warm(times, request) => {
                client::send(&part.door, &vec![request.clone(); *times]).await;
            }
            Step::Until(request, status) => drop(part.until(request, *status).await),
            Step::Follow(name, plan) => {
                part.hosts.iter().filter(|h| h.name == *name).for_each(|h| h.follow(plan.clone()));
            }
            Step::Pause(time) => sleep(*time).await,
            Step::Overlapping(_) | Step::Talk(_) | Step::Talks(..) => agreement.skipped += 1,
            Step::Stats(_) => {}
        }
    }
    agreement
}

/// The question that describes a request; `None` where it cannot be described.
fn question(part: &Part, request: &Req) -> Option<String> {
    // A body that never ends, or whose length is wrong, is not part of a description.
    if request.raw.is_some() || request.tls.is_some() || request.unfinished {
        return None;
    }
    let encode = |text: &str| text.bytes().fold(String::new(), |text, b| text + &format!("%{b:02X}"));
    let protocol = match request.version {
        Version::Http1 => "http/1.1",
        Version::Http10 => "http/1.0",
        Version::Http2 => "http/2",
    };
    let mut question = format!(
        "/explain?address=127.0.0.1&port={}&source=127.0.0.1:40000&protocol={protocol}&method={}&path={}&host={}",
        part.ports.listener,
        encode(&request.method),
        encode(&request.target),
        encode(&request.authority),
    );
    if let Some(protocol) = request.protocol {
        let _ = write!(question, "&connect_protocol={protocol}");
    }
    for (name, value) in &request.fields {
        let _ = write!(question, "&header={}", encode(&format!("{name}: {value}")));
    }
    Some(question)
}

async fn one(part: &Part, request: &Req, agreement: &mut Agreement) {
    let said = match question(part, request) {
        Some(question) => client::fetch(&part.admin, &get(&question)).await.unwrap_or_default(),
        None => String::new(),
    };
    // The hosts are idle: what arrives now is this request.
    part.settle(Duration::from_secs(5)).await;
    let arrived = || part.hosts.iter().map(|h| h.requests()).collect::<Vec<_>>();
    let before = arrived();
    let lines = client::send(&part.door, std::slice::from_ref(request)).await;
    let moved = |ports: &mut Vec<u16>| {
        let after = arrived();
        ports.extend(part.hosts.iter().enumerate().filter(|(n, _)| after[*n] > before[*n]).map(|(_, h)| h.port));
    };
    let mut reached = Vec::new();
    moved(&mut reached);
    let Ok(report) = serde_json::from_str::<Value>(&said) else {
        agreement.skipped += 1;
        return;
    };
    // A cookie is made of the client's port, which it has from the kernel.
    let by_port = report["forwarding"]["makes_cookie"] == true;
    if by_port || report["unknown"].as_array().is_some_and(|unknown| !unknown.is_empty()) {
        agreement.unknown += 1;
        return;
    }
    let mut statuses = lines.iter().filter_map(|l| l.strip_prefix("< HTTP/")?.split(' ').nth(1)?.parse::<u16>().ok());
    let status = statuses.rfind(|s| *s != 100);
    if status == Some(431) && request.fields.iter().map(|(n, v)| n.len() + v.len()).sum::<usize>() > CODEC_LIMIT {
        // The codec does not read so many bytes: there is no request to decide on.
        agreement.skipped += 1;
        return;
    }
    let mut verdict = judge(&report, status, &reached, request);
    // What is left to chance may be drawn otherwise: one of the draws has to say what happened.
    for _ in 0..ASKED_AGAIN {
        if verdict.is_ok() || report["by_chance"].is_null() {
            break;
        }
        let said = match question(part, request) {
            Some(question) => client::fetch(&part.admin, &get(&question)).await.unwrap_or_default(),
            None => break,
        };
        verdict = judge(&serde_json::from_str(&said).unwrap_or_default(), status, &reached, request);
    }
    match verdict {
        Ok(()) => agreement.agreed += 1,
        Err(reason) => agreement.disagreements.push(format!(
            "{}: {} {}: {reason}\n  said {}\n  seen {status:?}, reached {reached:?} of {:?}",
            part.case.name, request.method, request.target, report["outcome"], part.ports.hosts
        )),
    }
}

fn judge(report: &Value, status: Option<u16>, reached: &[u16], request: &Req) -> Result<(), &'static str> {
    let outcome = &report["outcome"];
    match outcome["kind"].as_str() {
        Some("answered") if !reached.is_empty() => Err("said to be answered, and it went on"),
        Some("answered") => {
            let same = outcome["status"].as_u64() == status.map(u64::from);
            same.then_some(()).ok_or("answered with another status")
        }
        Some("forwarded") => {
            let hosts = report["forwarding"]["endpoints"]["hosts"].as_array().cloned().unwrap_or_default();
            // Which may go by a name.
            let at = |host: &Value, port: &u16| host.as_str().is_some_and(|a| a.ends_with(&format!(":{port}")));
            let eligible =
                |port: &u16| hosts.iter().any(|h| at(h, port) || (at(&h["address"], port) && h["eligible"] == true));
            match reached {
                [] if !report["forwarding"]["endpoints"]["hosts"]
                    .as_array()
                    .is_some_and(|hosts| hosts.iter().any(|h| h.is_string() || h["eligible"] == true)) =>
                {
                    Err("said to go on, and there is nobody to go to")
                }
                // What failed on the way, or came with a body that is too large, reaches nobody.
                [] if status.is_none_or(|s| matches!(s, 408 | 499 | 502..=504)) || !request.body.is_empty() => Ok(()),
                [] => Err("said to go on, and it was answered"),
                // Retries, mirrors and followed redirects go elsewhere.
                ports if ports.iter().any(eligible) => Ok(()),
                _ => Err("reached a host that was not eligible"),
            }
        }
        Some("refused") => status.is_none().then_some(()).ok_or("said to be refused, and it was answered"),
        _ => Err("nothing was said"),
    }
}
