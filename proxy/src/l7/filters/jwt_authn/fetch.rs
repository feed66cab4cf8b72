//! Gets the keys of a provider, from wherever they are.

use std::{rc::Rc, sync::Arc, time::Instant};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header};

use crate::{
    ir::jwt_authn::{JwksSource, JwtProvider, RemoteJwks},
    l7::{
        Engine,
        filters::Call,
        mirror,
        side::{self, Ask},
    },
    live::{Kept, KeyStore, LiveJwt},
    policy::jwt::{Failure, Jwks},
};

/// Of a key set.
const MAX_SET: usize = 1 << 20;

pub(super) async fn keys(
    call: &Call<'_>,
    provider: &JwtProvider,
    live: &Arc<LiveJwt>,
    place: usize,
) -> Result<Arc<Kept>, Failure> {
    let store = live.keys.get(place).ok_or(Failure::NoKeys)?;
    let remote = match &provider.keys {
        JwksSource::Local(_) => return store.get().ok_or(Failure::NoKeys),
        JwksSource::Remote(remote) => remote,
    };
    let here = store.get();
    if let Some(kept) = here.filter(|kept| remote.ahead.is_some() || kept.is_valid(Instant::now())) {
        if !kept.is_valid(Instant::now()) && !call.flow.record.is_imagined() {
            refresh(call.conn.engine.clone(), live.clone(), place);
        }
        return Ok(kept);
    }
    let Some(fetching) = store.fetch(remote.ahead.unwrap_or_default()).await else { return Err(Failure::Fetch) };
    // Somebody may have been faster.
    if let Some(kept) = store.get().filter(|kept| kept.is_valid(Instant::now())) {
        return Ok(kept);
    }
    let fetched = fetch(&call.conn.engine, remote).await;
    let stats = live.stats.local();
    match fetched {
        Ok(keys) => {
            stats.jwks_fetch_success.inc();
            Ok(fetching.done(keys, remote.cache))
        }
        Err(failure) => {
            stats.jwks_fetch_failed.inc();
            fetching.failed();
            Err(failure)
        }
    }
}

/// Fetches the keys that nobody needs yet; to be called about once a second.
pub(in crate::l7) fn ahead(engine: &Rc<Engine>) {
    for live in &*engine.ahead() {
        for (place, _) in live.ahead() {
            let kept = live.keys.get(place).and_then(KeyStore::get);
            if kept.is_none_or(|kept| !kept.is_valid(Instant::now())) {
                refresh(engine.clone(), live.clone(), place);
            }
        }
    }
}

/// Fetches newer keys while the known ones go on.
fn refresh(engine: Rc<Engine>, live: Arc<LiveJwt>, place: usize) {
    tokio::task::spawn_local(async move {
        let remote = live.ahead().find(|(at, _)| *at == place).map(|(_, remote)| remote);
        let Some((store, remote)) = live.keys.get(place).zip(remote) else { return };
        let Some(fetching) = store.try_fetch(remote.ahead.unwrap_or_default()) else { return };
        // Another worker may have been faster between the look at the keys and the right to fetch them.
        if store.get().is_some_and(|kept| kept.is_valid(Instant::now())) {
            return;
        }
        match fetch(&engine, remote).await {
            Ok(keys) => {
                live.stats.local().jwks_fetch_success.inc();
                fetching.done(keys, remote.cache);
            }
            Err(_) => {
                live.stats.local().jwks_fetch_failed.inc();
                fetching.failed();
            }
        }
    });
}

async fn fetch(engine: &Engine, remote: &RemoteJwks) -> Result<Jwks, Failure> {
    let mut left = remote.retries;
    loop {
        match once(engine, remote).await {
            Err(Failure::Fetch) if left > 0 => {
                left -= 1;
                // Many proxies lose the same server at once.
                let spread = fastrand::f64() + 0.5;
                tokio::time::sleep(remote.backoff.mul_f64(spread)).await;
            }
            result => return result,
        }
    }
}

async fn once(engine: &Engine, remote: &RemoteJwks) -> Result<Jwks, Failure> {
    let uri: Uri = remote.uri.uri.parse().map_err(|_| Failure::Fetch)?;
    let host = uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok()).ok_or(Failure::Fetch)?;
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = uri.path_and_query().map_or("/", |p| p.as_str()).parse().map_err(|_| Failure::Fetch)?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, host);
    // As Envoy asks: some servers of keys want to know a browser.
    headers.insert(header::USER_AGENT, HeaderValue::from_static("Go-browser"));
    if let Some(address) = mirror::local_address() {
        headers.insert(mirror::FORWARDED_FOR, HeaderValue::from_static(address));
    }
    let ask =
        Ask { cluster: remote.uri.cluster.clone(), timeout: remote.uri.timeout, limit: MAX_SET, downstream: None };
    let answer = side::http(engine, &ask, request).await.map_err(|error| {
        tracing::debug!(cluster = %ask.cluster, %error, "keys cannot be fetched");
        Failure::Fetch
    })?;
    if answer.status() != StatusCode::OK {
        return Err(Failure::Fetch);
    }
    Jwks::parse(answer.body()).map_err(|_| Failure::Fetch)
}
