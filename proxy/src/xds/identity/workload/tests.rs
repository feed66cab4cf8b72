use std::{collections::HashMap, sync::Mutex, time::Duration};

use futures_util::{StreamExt, future::BoxFuture};
use outrigger_wire::workload::{Answers, SpiffeWorkloadApi, SpiffeWorkloadApiServer, X509SvidRequest};
use rcgen::{Issuer, SanType};
use time::OffsetDateTime;
use tonic::{Request, Response, Status};

use super::*;
use crate::{
    ir::secret::{DataSource, Secret},
    xds::{Connection, GrpcOptions, Handle, StartConfig, Transport, driver, testing},
};

const ID: &str = "spiffe://example.org/web";

struct Ca {
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self { der, issuer: Issuer::new(params, key) }
    }

    fn svid(&self, id: &str) -> X509Svid {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.not_before = OffsetDateTime::now_utc() - time::Duration::hours(1);
        params.not_after = OffsetDateTime::now_utc() + time::Duration::hours(1);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        X509Svid {
            spiffe_id: id.to_owned(),
            x509_svid: leaf.der().to_vec(),
            x509_svid_key: key.serialize_der(),
            bundle: self.der.clone(),
            hint: String::new(),
        }
    }

    fn answer(&self) -> X509SvidResponse {
        X509SvidResponse { svids: vec![self.svid(ID)], ..X509SvidResponse::default() }
    }
}

fn checked(answer: X509SvidResponse) -> Result<Checked, String> {
    check(answer, SystemTime::now()).map_err(|failure| failure.reason)
}

fn refusal(answer: X509SvidResponse, what: &str) -> String {
    checked(answer).map(drop).expect_err(what)
}

#[test]
fn an_answer_is_taken_apart() {
    let (ca, other) = (Ca::new(), Ca::new());
    let mut answer = ca.answer();
    answer.svids.push(ca.svid("spiffe://example.org/second"));
    answer.svids[0].bundle.extend(&other.der);
    answer.federated_bundles = HashMap::from([("spiffe://partner.example".to_owned(), other.der.clone())]);
    let (issued, federated) = checked(answer).unwrap();
    assert_eq!(&*issued.spiffe_id, ID, "the first identity is the default");
    assert_eq!(issued.root.matches("BEGIN CERTIFICATE").count(), 2);
    assert_eq!(issued.chain.matches("BEGIN CERTIFICATE").count(), 1);
    assert_eq!(federated.len(), 1);
    assert_eq!(&*federated[0].0, "spiffe://partner.example");
    assert_eq!(federated[0].1, issue::pem(&other.der.clone().into()));
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let ca = Ca::new();
    let refused = |change: &dyn Fn(&mut X509SvidResponse)| {
        let mut answer = ca.answer();
        change(&mut answer);
        refusal(answer, "what does not fit")
    };
    assert!(refused(&|a| a.svids.clear()).contains("no identity"));
    assert!(refused(&|a| a.svids[0].spiffe_id = "spiffe://example.org/other".to_owned()).contains("expected"));
    assert!(refused(&|a| a.svids[0].x509_svid_key = Ca::new().svid(ID).x509_svid_key).contains("another key"));
    assert!(refused(&|a| a.svids[0].bundle = Ca::new().der).contains("does not chain"));
    assert!(refused(&|a| a.svids[0].bundle.clear()).contains("trust bundle is empty"));
    assert!(refused(&|a| a.svids[0].x509_svid.truncate(50)).contains("the SVID"));
    assert!(refused(&|a| a.svids[0].x509_svid.push(0)).contains("the SVID"));
    let reason = refused(&|a| a.svids[0].x509_svid_key = b"secret key".to_vec());
    assert!(reason.contains("PKCS#8") && !reason.contains("secret"), "{reason}");
    assert!(refused(&|a| a.svids[0].x509_svid = a.svids[0].x509_svid.repeat(MAX_CHAIN + 1)).contains("more than"));
    assert!(refused(&|a| a.svids[0].bundle = ca.der.repeat(MAX_BUNDLE + 1)).contains("more than"));
    for name in ["spiffe://example.org", "example.org", "", "spiffe://", "spiffe://a/b", "spiffe://UPPER"] {
        let reason = refused(&|a| drop(a.federated_bundles.insert(name.to_owned(), ca.der.clone())));
        assert!(reason.contains("federated"), "{name}: {reason}");
    }
    let not_an_id = X509SvidResponse { svids: vec![ca.svid("https://example.org/web")], ..ca.answer() };
    assert!(refusal(not_an_id, "no SPIFFE id").contains("SPIFFE id"));
}

#[test]
fn a_bad_foreign_bundle_makes_only_its_domain_unusable() {
    let (ca, other) = (Ca::new(), Ca::new());
    let mut unusable = other.der.clone();
    // A version of its own making: X.509 to a lenient reader, a trust anchor to nobody.
    let version = unusable.windows(5).position(|w| w == [0xa0, 3, 2, 1, 2]).unwrap();
    unusable[version + 4] = 7;
    let bundles = [
        ("good.example", other.der.repeat(MAX_BUNDLE)),
        ("empty.example", Vec::new()),
        ("cut.example", other.der[..50].to_vec()),
        ("many.example", other.der.repeat(MAX_BUNDLE + 1)),
        ("unusable.example", unusable),
    ];
    let mut answer = ca.answer();
    answer.svids[0].bundle = ca.der.repeat(MAX_CHAIN + 1);
    answer.federated_bundles = bundles.map(|(name, der)| (name.to_owned(), der)).into();
    let (issued, federated) = checked(answer).unwrap();
    assert_eq!(&*issued.spiffe_id, ID);
    let names: Vec<&str> = federated.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["spiffe://good.example"]);
}

/// What one stream says.
type Script = mpsc::UnboundedReceiver<Result<X509SvidResponse, Status>>;

/// An agent with a script for each stream.
#[derive(Clone, Default)]
struct Agent {
    streams: Arc<Mutex<Vec<Script>>>,
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for Agent {
    async fn fetch_x509_svid(&self, _: Request<X509SvidRequest>) -> Result<Response<Answers>, Status> {
        let script = self.streams.lock().unwrap().pop();
        let script = script.ok_or_else(|| Status::permission_denied("no identity issued"))?;
        Ok(Response::new(tokio_stream::wrappers::UnboundedReceiverStream::new(script).boxed()))
    }
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Agent")
    }
}

impl Transport for Agent {
    fn connect(self: Arc<Self>, cluster: &str) -> BoxFuture<'static, Result<Box<dyn Connection>, String>> {
        assert_eq!(cluster, WORKLOAD_API);
        Box::pin(async move {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let incoming = tokio_stream::once(Ok::<_, std::io::Error>(theirs));
            let service = SpiffeWorkloadApiServer::new((*self).clone());
            tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
            Ok(Box::new(ours) as Box<dyn Connection>)
        })
    }
}

fn start(agent: &Agent) -> Handle {
    let grpc = GrpcOptions {
        backoff_base: Duration::from_millis(5),
        backoff_max: Duration::from_millis(20),
        ..GrpcOptions::default()
    };
    let config = StartConfig { workload_api: true, grpc, ..StartConfig::default() };
    driver::start_with(config, Arc::new(agent.clone()), testing::decode)
}

async fn status(handle: &Handle, what: &str, condition: impl Fn(&IdentityStatus) -> bool) -> IdentityStatus {
    let mut watch = handle.status();
    let wait = watch.wait_for(|s| condition(s.identity.as_ref().unwrap()));
    let status = tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    status.unwrap().identity.clone().unwrap()
}

fn roots(handle: &Handle, name: &str) -> Option<Vec<u8>> {
    match &**handle.snapshot().secrets.get(name)? {
        Secret::Validation(validation) => match validation.trusted_ca.as_ref()? {
            DataSource::Inline(pem) => Some(pem.to_vec()),
            DataSource::File(_) => None,
        },
        Secret::Certificate(_) => None,
    }
}

#[tokio::test]
async fn identities_follow_the_stream_and_outlive_the_agent() {
    let agent = Agent::default();
    let handle = start(&agent);
    let denied = status(&handle, "refusal", |s| s.failures >= 2).await;
    assert!(denied.last_error.unwrap().contains("no identity issued"));
    assert!(handle.status().borrow().not_ready_reason().unwrap().contains("no identity issued"));

    let (ca, partner) = (Ca::new(), Ca::new());
    let (say, script) = mpsc::unbounded_channel();
    let mut first = ca.answer();
    first.federated_bundles.insert("spiffe://partner.example".to_owned(), partner.der.clone());
    say.send(Ok(first)).unwrap();
    agent.streams.lock().unwrap().push(script);
    let got = status(&handle, "identity", |s| s.renewals == 1).await;
    assert_eq!((got.spiffe_id.as_deref(), got.last_error, got.next_renewal), (Some(ID), None, None));
    let secrets = || handle.snapshot().secrets.clone();
    let mut snapshots = handle.snapshots();
    let all = snapshots.wait_for(|s| s.secrets.contains_key("spiffe://partner.example"));
    tokio::time::timeout(Duration::from_secs(20), all).await.unwrap().unwrap();
    assert_eq!(roots(&handle, "ROOTCA"), roots(&handle, "spiffe://example.org"));
    assert_ne!(roots(&handle, "ROOTCA"), roots(&handle, "spiffe://partner.example"));
    let partners = roots(&handle, "spiffe://partner.example").unwrap();
    let before = secrets().get("default").unwrap().clone();

    // An answer that does not fit is complained of, the next one taken, over the same stream.
    let mut bad = ca.answer();
    bad.svids[0].bundle = Ca::new().der;
    say.send(Ok(bad)).unwrap();
    let complained = status(&handle, "complaint", |s| s.last_error.is_some()).await;
    assert_eq!(complained.renewals, 1);
    assert_eq!(secrets().get("default"), Some(&before));
    assert_eq!(roots(&handle, "spiffe://partner.example").as_ref(), Some(&partners));
    // It names no partner any more: whoever is sure of the partner's roots has to be given others.
    say.send(Ok(Ca::new().answer())).unwrap();
    let renewed = status(&handle, "renewal", |s| s.renewals == 2).await;
    assert_eq!(renewed.last_error, None);
    let nobodys = roots(&handle, "spiffe://partner.example").unwrap();
    assert!(nobodys.starts_with(b"-----BEGIN CERTIFICATE-----") && nobodys != partners);
    assert_eq!(roots(&handle, "ROOTCA"), roots(&handle, "spiffe://example.org"));

    // The agent goes away: what it gave stays, and it is asked again until it is back.
    drop(say);
    let alone = status(&handle, "an agent that is gone", |s| s.failures >= renewed.failures + 2).await;
    assert!(alone.not_after.is_some());
    assert!(handle.status().borrow().ready());
    let (say, script) = mpsc::unbounded_channel();
    say.send(Ok(ca.answer())).unwrap();
    agent.streams.lock().unwrap().push(script);
    status(&handle, "the agent is back", |s| s.renewals == 3 && s.last_error.is_none()).await;
}
