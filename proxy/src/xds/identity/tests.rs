use std::sync::Mutex;

use futures_util::future::BoxFuture;
use outrigger_wire::ca::{
    IstioCertificateRequest, IstioCertificateResponse, IstioCertificateService, IstioCertificateServiceServer,
};
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair, SanType};
use time::OffsetDateTime;
use tonic::{Request, Response, Status};

use super::{
    issue::{check, key_and_request},
    *,
};
use crate::xds::{Connection, GrpcOptions, Handle, StartConfig, Transport, driver, testing};

const ID: &str = "spiffe://cluster.local/ns/default/sa/reviews";

/// An authority with what it does wrong.
#[derive(Debug, Clone)]
struct Rules {
    id: &'static str,
    validity: Duration,
    /// Shifts the whole validity.
    offset: i64,
    other_key: bool,
    other_root: bool,
    no_root: bool,
    refuse: bool,
}

impl Default for Rules {
    fn default() -> Self {
        let validity = Duration::from_secs(3600);
        Self { id: ID, validity, offset: 0, other_key: false, other_root: false, no_root: false, refuse: false }
    }
}

struct Ca {
    root: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "root");
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().pem();
        Self { root, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, csr: &str, rules: &Rules) -> Vec<String> {
        let mut request = CertificateSigningRequestParams::from_pem(csr).unwrap();
        request.params.subject_alt_names = vec![SanType::URI(rules.id.try_into().unwrap())];
        let from = OffsetDateTime::now_utc() + time::Duration::seconds(rules.offset);
        request.params.not_before = from;
        request.params.not_after = from + rules.validity;
        let leaf = if rules.other_key {
            request.params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap()
        } else {
            request.signed_by(&self.issuer).unwrap()
        };
        let root = if rules.other_root { Self::new().root } else { self.root.clone() };
        if rules.no_root { vec![leaf.pem()] } else { vec![leaf.pem(), root] }
    }
}

fn answer(rules: &Rules, expected: Option<&str>) -> Result<Issued, issue::Failure> {
    let (key, csr) = key_and_request(Some(ID)).unwrap();
    check(&Ca::new().issue(&csr, rules), &key, expected, SystemTime::now())
}

#[test]
fn a_good_answer_is_taken_apart() {
    let issued = answer(&Rules::default(), Some(ID)).unwrap();
    assert_eq!(&*issued.spiffe_id, ID);
    assert_eq!(issued.chain.matches("BEGIN CERTIFICATE").count(), 1);
    assert_eq!(issued.root.matches("BEGIN CERTIFICATE").count(), 1);
    assert!(std::str::from_utf8(&issued.key).unwrap().contains("BEGIN PRIVATE KEY"));
    let life = issued.not_after.duration_since(issued.not_before).unwrap();
    assert_eq!(life, Duration::from_secs(3600));
}

#[test]
fn bad_answers_are_refused_with_the_reason() {
    let refused = |rules: Rules| answer(&rules, Some(ID)).map(drop).unwrap_err();
    let failure = refused(Rules { id: "spiffe://cluster.local/ns/default/sa/other", ..Rules::default() });
    assert!(failure.reason.contains("sa/other, expected spiffe://"), "{failure:?}");
    assert!(refused(Rules { id: "https://x/", ..Rules::default() }).reason.contains("SPIFFE id"));
    assert!(refused(Rules { other_key: true, ..Rules::default() }).reason.contains("another key"));
    assert!(refused(Rules { other_root: true, ..Rules::default() }).reason.contains("does not chain"));
    assert!(refused(Rules { no_root: true, ..Rules::default() }).reason.contains("1 certificates"));
    let expired = refused(Rules { offset: -7200, ..Rules::default() });
    assert!(expired.clock_skewed && expired.reason.contains("clock is ahead"));
    let (key, _) = key_and_request(None).unwrap();
    for garbage in [
        vec![],
        vec!["nonsense".to_owned()],
        vec!["-----BEGIN CERTIFICATE-----\n@@\n-----END CERTIFICATE-----\n".to_owned(); 2],
    ] {
        assert!(check(&garbage, &key, None, SystemTime::now()).is_err());
    }
    let der_garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned();
    assert!(check(&[der_garbage.clone(), der_garbage], &key, None, SystemTime::now()).is_err());
    assert!(
        check(&vec!["x".repeat(600_000); 2], &key, None, SystemTime::now())
            .map(drop)
            .unwrap_err()
            .reason
            .contains("exceeds")
    );
}

#[test]
fn several_roots_in_an_answer_are_all_trusted() {
    let (key, csr) = key_and_request(Some(ID)).unwrap();
    let ca = Ca::new();
    let mut answer = ca.issue(&csr, &Rules::default());
    let other = Ca::new().root;
    // Whichever of them comes first.
    for bundle in [format!("{other}{}", ca.root), format!("{}{other}", ca.root)] {
        answer[1] = bundle;
        let issued = check(&answer, &key, Some(ID), SystemTime::now()).unwrap();
        assert_eq!(issued.root.matches("BEGIN CERTIFICATE").count(), 2);
        assert_eq!(issued.chain.matches("BEGIN CERTIFICATE").count(), 1);
    }
    let one_text = vec![answer.concat()];
    let issued = check(&one_text, &key, Some(ID), SystemTime::now());
    assert!(issued.is_err(), "in a single text the last is the root, and the others would have to be a chain");
    answer.push(String::new());
    assert!(check(&answer, &key, Some(ID), SystemTime::now()).is_err(), "no root at the end");
}

#[test]
fn renewal_is_half_way_and_spread() {
    let at = |s| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
    assert_eq!(schedule::renewal(at(0), at(1000), at(0), 0.5), at(500));
    assert_eq!(schedule::renewal(at(0), at(1000), at(0), 0.0), at(450));
    // Backdated, not valid yet, and already over.
    assert_eq!(schedule::renewal(at(0), at(2000), at(1000), 0.5), at(1500));
    assert_eq!(schedule::renewal(at(3000), at(4000), at(1000), 0.5), at(1500));
    assert_eq!(schedule::renewal(at(0), at(10), at(1000), 0.5), at(1001));
    assert_eq!(schedule::rest(at(10), at(5)), Some(Duration::from_secs(5)));
    assert_eq!(schedule::rest(at(1000), at(5)), Some(Duration::from_secs(10)));
    assert_eq!(schedule::rest(at(5), at(5)), None);
}

/// The authority behind a transport.
#[derive(Debug, Default)]
struct Net {
    rules: Mutex<Rules>,
    seen: Arc<Mutex<Vec<(String, i64)>>>,
}

struct Service(Arc<Ca>, Arc<Net>);

#[tonic::async_trait]
impl IstioCertificateService for Service {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let rules = self.1.rules.lock().unwrap().clone();
        let text = |name| request.metadata().get(name).map_or("", |v| v.to_str().unwrap()).to_owned();
        let seen = format!("{} {}", text("authorization"), text("clusterid"));
        self.1.seen.lock().unwrap().push((seen, request.get_ref().validity_duration));
        if rules.refuse {
            return Err(Status::unauthenticated("who are you"));
        }
        Ok(Response::new(IstioCertificateResponse { cert_chain: self.0.issue(&request.get_ref().csr, &rules) }))
    }
}

#[derive(Debug)]
struct Wire(Arc<Net>, Arc<Ca>);

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ca")
    }
}

impl Transport for Wire {
    fn connect(self: Arc<Self>, cluster: &str) -> BoxFuture<'static, Result<Box<dyn Connection>, String>> {
        assert_eq!(cluster, "ca");
        Box::pin(async move {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let service = IstioCertificateServiceServer::new(Service(Arc::clone(&self.1), Arc::clone(&self.0)));
            let incoming = tokio_stream::once(Ok::<_, std::io::Error>(theirs));
            tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
            Ok(Box::new(ours) as Box<dyn Connection>)
        })
    }
}

fn start(net: &Arc<Net>, config: IdentityConfig) -> Handle {
    let grpc = GrpcOptions {
        backoff_base: Duration::from_millis(5),
        backoff_max: Duration::from_millis(20),
        ..Default::default()
    };
    let config = StartConfig { identity: Some(config), grpc, ..Default::default() };
    driver::start_with(config, Arc::new(Wire(Arc::clone(net), Arc::new(Ca::new()))), testing::decode)
}

async fn status(handle: &Handle, what: &str, condition: impl Fn(&IdentityStatus) -> bool) -> IdentityStatus {
    let mut watch = handle.status();
    let wait = watch.wait_for(|s| condition(s.identity.as_ref().unwrap()));
    let status = tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    status.unwrap().identity.clone().unwrap()
}

fn certificate(handle: &Handle) -> Arc<Certificate> {
    match &*handle.snapshot().secrets["default"] {
        Secret::Certificate(certificate) => Arc::clone(certificate),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_identity_is_obtained_despite_refusals_and_renewed() {
    let net = Arc::new(Net::default());
    *net.rules.lock().unwrap() = Rules { refuse: true, ..Rules::default() };
    let dir = tempfile::tempdir().unwrap();
    let (token, roots) = (dir.path().join("token"), dir.path().join("roots"));
    std::fs::write(&token, "abc").unwrap();
    let more = Ca::new().root;
    std::fs::write(&roots, &more).unwrap();
    let config = IdentityConfig {
        token_file: Some(token),
        root_file: Some(roots.clone()),
        spiffe_id: Some(ID.into()),
        metadata: vec![("ClusterID".into(), "k1".into())],
        ..IdentityConfig::for_tests()
    };
    let handle = start(&net, config);
    let failing = status(&handle, "refusals", |s| s.failures >= 2).await;
    assert!(failing.last_error.as_ref().unwrap().contains("who are you"), "{failing:?}");
    assert!(handle.status().borrow().not_ready_reason().unwrap().contains("who are you"));
    assert!(!handle.snapshot().secrets.contains_key("default"));
    // Short enough to be renewed while we wait.
    *net.rules.lock().unwrap() = Rules { validity: Duration::from_secs(3), ..Rules::default() };
    let got = status(&handle, "identity", |s| s.renewals == 1).await;
    std::fs::remove_file(roots).unwrap();
    assert_eq!((got.spiffe_id.as_deref(), got.last_error.as_deref()), (Some(ID), None));
    assert!(handle.status().borrow().ready());
    assert_eq!(net.seen.lock().unwrap()[0], ("Bearer abc k1".to_owned(), 3600));
    let first = certificate(&handle);
    let Secret::Validation(validation) = &*Arc::clone(&handle.snapshot().secrets["ROOTCA"]) else { panic!() };
    let Some(DataSource::Inline(roots)) = &validation.trusted_ca else { panic!() };
    let roots = std::str::from_utf8(roots).unwrap();
    assert_eq!(roots.matches("BEGIN CERTIFICATE").count(), 2);
    assert!(roots.contains(&more));
    assert_eq!(got.roots.len(), 2, "{:?}", got.roots);
    let renewed = status(&handle, "renewal", |s| s.renewals >= 2).await;
    assert_eq!(renewed.roots.len(), 2, "extra roots outlive their file: {:?}", renewed.roots);
    let second = certificate(&handle);
    assert_ne!(first.key, second.key, "a new key each time");
    // The authority fails: the certificate stays.
    *net.rules.lock().unwrap() = Rules { other_key: true, ..Rules::default() };
    let kept = certificate(&handle);
    let failing =
        status(&handle, "bad answers", |s| s.last_error.as_ref().is_some_and(|e| e.contains("another key"))).await;
    assert!(failing.not_after.is_some() && failing.renewals >= 2);
    assert_eq!(certificate(&handle), kept);
    assert!(handle.status().borrow().ready());
}

#[tokio::test]
async fn a_clock_that_is_behind_is_named_and_the_certificate_used() {
    let net = Arc::new(Net::default());
    *net.rules.lock().unwrap() = Rules { offset: 600, ..Rules::default() };
    let handle = start(&net, IdentityConfig::for_tests());
    let got = status(&handle, "identity", |s| s.renewals == 1).await;
    assert!(got.clock_skewed);
    assert!(handle.snapshot().secrets.contains_key("default"));
}

impl IdentityConfig {
    pub(crate) fn for_tests() -> Self {
        Self {
            ca_cluster: "ca".into(),
            token_file: None,
            root_file: None,
            spiffe_id: None,
            ttl: Duration::from_secs(3600),
            metadata: Vec::new(),
        }
    }
}
