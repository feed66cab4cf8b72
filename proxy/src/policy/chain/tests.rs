use super::*;
use crate::ir::listener::{TcpProxy, Terminal};

fn chain(name: &str, matches: ChainMatch) -> Arc<FilterChain> {
    let proxy = TcpProxy {
        stat_prefix: "t".into(),
        istio_stats: None,
        targets: Vec::new(),
        idle_timeout: None,
        max_connection_duration: None,
        max_connect_attempts: 1,
        hash_policy: Vec::new(),
        access_log: Vec::new(),
    };
    Arc::new(FilterChain {
        name: name.into(),
        matches,
        tls: None,
        handshake_timeout: std::time::Duration::from_secs(1),
        strict_trial: false,
        filters: Vec::new(),
        terminal: Terminal::Tcp(Arc::new(proxy)),
    })
}

fn cidr(text: &str) -> Cidr {
    let (ip, len) = text.split_once('/').unwrap();
    Cidr::new(ip.parse().unwrap(), len.parse().unwrap()).unwrap()
}

fn names(list: &[&str]) -> Vec<Box<str>> {
    list.iter().map(|n| Box::from(*n)).collect()
}

struct Conn {
    destination: &'static str,
    sni: Option<&'static str>,
    tls: bool,
    alpn: Vec<Box<str>>,
    direct: &'static str,
    source: &'static str,
}

impl Default for Conn {
    fn default() -> Self {
        Self {
            destination: "10.0.0.1:80",
            sni: None,
            tls: false,
            alpn: Vec::new(),
            direct: "10.9.9.9",
            source: "10.9.9.9:40000",
        }
    }
}

impl Conn {
    fn facts(&self) -> ChainFacts<'_> {
        ChainFacts {
            destination: self.destination.parse().unwrap(),
            server_name: self.sni,
            transport: if self.tls { Transport::Tls } else { Transport::RawBuffer },
            alpn: &self.alpn,
            direct_source: self.direct.parse().unwrap(),
            source: self.source.parse().unwrap(),
        }
    }
}

fn select(matches: &[ChainMatch], conn: &Conn) -> Option<usize> {
    let chains: Vec<_> = matches.iter().map(|m| chain("c", m.clone())).collect();
    ChainIndex::new(&chains).unwrap().select(&conn.facts())
}

fn sni(list: &[&str]) -> ChainMatch {
    ChainMatch { server_names: names(list), ..Default::default() }
}

#[test]
fn an_exact_port_hides_the_chains_without_port() {
    let chains = [
        ChainMatch { destination_port: Some(80), transport: Some(Transport::Tls), ..Default::default() },
        ChainMatch::default(),
    ];
    assert_eq!(select(&chains, &Conn { tls: true, ..Default::default() }), Some(0));
    assert_eq!(select(&chains, &Conn::default()), None, "no way back to the chain without a port");
    assert_eq!(select(&chains, &Conn { destination: "10.0.0.1:81", ..Default::default() }), Some(1));
}

/// The example of `FilterChainMatch`: filter chain with server_names "www.example.com" wins over "*.example.com",
/// that over "*.com", that over no server names.
#[test]
fn server_names_by_specificity() {
    let chains = [sni(&[]), sni(&["*.com"]), sni(&["*.example.com"]), sni(&["www.example.com"])];
    for (name, expected) in [
        ("www.example.com", 3),
        ("WWW.Example.com", 3),
        ("api.example.com", 2),
        ("a.b.example.com", 2),
        ("example.com", 1),
        ("com", 0),
        (".com", 0),
        ("example.com.", 0),
        ("www.example.org", 0),
    ] {
        let found = select(&chains, &Conn { sni: Some(name), tls: true, ..Default::default() });
        assert_eq!(found, Some(expected), "{name}");
    }
    assert_eq!(select(&chains, &Conn::default()), Some(0));
    assert_eq!(select(&chains[1..], &Conn::default()), None);
}

#[test]
fn wildcards_stand_only_in_front() {
    for bad in ["*", "www.*.com", "*.*.com", "w*.example.com", "*example.com"] {
        let error = ChainIndex::new(&[chain("bad", sni(&[bad]))]).unwrap_err();
        assert!(error.contains(bad) && error.contains("'bad'"), "{error}");
    }
}

#[test]
fn ranges_by_length_in_both_families() {
    let ranges =
        |list: &[&str]| ChainMatch { destination_ranges: list.iter().map(|c| cidr(c)).collect(), ..Default::default() };
    let chains = [
        ranges(&["0.0.0.0/0", "::/0"]),
        ranges(&["10.0.0.0/8"]),
        ranges(&["10.0.0.0/24", "fd00::/8"]),
        ranges(&["10.0.0.1/32", "fd00::1/128"]),
    ];
    for (destination, expected) in [
        ("10.0.0.1:1", 3),
        ("10.0.0.2:1", 2),
        ("10.0.1.2:1", 1),
        ("11.0.0.1:1", 0),
        ("[fd00::1]:1", 3),
        ("[fd00::2]:1", 2),
        ("[2001:db8::1]:1", 0),
        ("[::ffff:10.0.0.1]:1", 3),
    ] {
        assert_eq!(select(&chains, &Conn { destination, ..Default::default() }), Some(expected), "{destination}");
    }
    assert_eq!(select(&chains[1..], &Conn { destination: "[2001:db8::1]:1", ..Default::default() }), None);
}

#[test]
fn the_clients_first_known_protocol_decides() {
    let alpn = |list: &[&str]| ChainMatch { application_protocols: names(list), ..Default::default() };
    let chains = [alpn(&["http/1.1"]), alpn(&["h2", "istio"]), alpn(&[])];
    for (offered, expected) in [(&["x", "istio", "http/1.1"][..], 1), (&["http/1.1", "h2"], 0), (&["x"], 2), (&[], 2)] {
        assert_eq!(select(&chains, &Conn { alpn: names(offered), ..Default::default() }), Some(expected));
    }
}

#[test]
fn istio_inbound_strict_and_permissive() {
    let alpn = names(&["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"]);
    let mtls = ChainMatch {
        destination_port: Some(80),
        transport: Some(Transport::Tls),
        application_protocols: alpn,
        ..Default::default()
    };
    let plain = |t| ChainMatch { destination_port: Some(80), transport: Some(t), ..Default::default() };
    let permissive = [mtls.clone(), plain(Transport::Tls), plain(Transport::RawBuffer)];
    let mesh = Conn { tls: true, alpn: names(&["istio-h2", "istio", "h2"]), ..Default::default() };
    let outsider = Conn { tls: true, alpn: names(&["h2"]), ..Default::default() };
    assert_eq!(select(&permissive, &mesh), Some(0));
    assert_eq!(select(&permissive, &outsider), Some(1));
    assert_eq!(select(&permissive, &Conn::default()), Some(2));
    assert_eq!(select(&[mtls], &Conn::default()), None, "STRICT");
}

#[test]
fn source_type_address_and_port() {
    let typed = |source_type| ChainMatch { source_type, ..Default::default() };
    let chains = [typed(SourceType::SameIpOrLoopback), typed(SourceType::External), typed(SourceType::Any)];
    let from = |source| Conn { source, ..Default::default() };
    assert_eq!(select(&chains, &from("127.0.0.1:1")), Some(0));
    assert_eq!(select(&chains, &from("10.0.0.1:1")), Some(0), "same address as the destination");
    assert_eq!(select(&chains, &from("10.0.0.2:1")), Some(1));
    assert_eq!(select(&chains[1..], &from("[::1]:1")), Some(1), "only the Any chain is left for a local source");
    assert_eq!(select(&chains[..1], &from("10.0.0.2:1")), None);

    let ports = |ports: &[u16], ranges: &[&str]| ChainMatch {
        source_ports: ports.to_vec(),
        source_ranges: ranges.iter().map(|c| cidr(c)).collect(),
        ..Default::default()
    };
    let chains = [ports(&[], &["10.0.0.0/8"]), ports(&[7], &["10.0.0.0/8"]), ports(&[7], &[])];
    assert_eq!(select(&chains, &from("10.0.0.2:7")), Some(1));
    assert_eq!(select(&chains, &from("10.0.0.2:8")), Some(0));
    assert_eq!(select(&chains, &from("11.0.0.2:7")), Some(2));
    assert_eq!(select(&chains, &from("11.0.0.2:8")), None);

    let direct = ChainMatch { direct_source_ranges: vec![cidr("10.9.0.0/16")], ..Default::default() };
    assert_eq!(select(&[direct.clone(), ChainMatch::default()], &Conn::default()), Some(0));
    assert_eq!(select(&[direct], &Conn { direct: "10.8.0.1", ..Default::default() }), None);
}

#[test]
fn equal_criteria_are_refused_by_name() {
    let a = chain("first", sni(&["a.com", "b.com"]));
    let b = chain("second", sni(&["b.com"]));
    let error = ChainIndex::new(&[a.clone(), b]).unwrap_err();
    assert!(error.contains("'first'") && error.contains("'second'"), "{error}");
    assert!(ChainIndex::new(&[chain("twice", sni(&["a.com", "a.com"]))]).is_ok());
    assert!(ChainIndex::new(&[a, chain("other", ChainMatch::default())]).is_ok());
}

#[test]
fn combinations_are_bounded() {
    let hostile = ChainMatch {
        server_names: (0..2000).map(|n| format!("n{n}").into()).collect(),
        source_ports: (0..2000).collect(),
        ..Default::default()
    };
    assert!(ChainIndex::new(&[chain("huge", hostile)]).unwrap_err().contains("combinations"));
}

/// The rule as the documentation words it: step by step keep the chains with the best match. `None`: no match.
fn naive(chains: &[ChainMatch], f: &ChainFacts<'_>) -> Option<usize> {
    type Score<'a> = Box<dyn Fn(&ChainMatch) -> Option<i64> + 'a>;
    let range = |list: &[Cidr], ip: IpAddr| match list {
        [] => Some(-1),
        _ => list.iter().filter(|c| c.contains(ip)).map(|c| i64::from(c.prefix_len)).max(),
    };
    let dst = f.destination.ip();
    let src = f.source.ip();
    let local = src.is_loopback() || src == dst;
    let steps: Vec<Score<'_>> = vec![
        Box::new(move |m| match m.destination_port {
            None => Some(0),
            Some(p) => (p == f.destination.port()).then_some(1),
        }),
        Box::new(move |m| range(&m.destination_ranges, dst)),
        Box::new(move |m| {
            let name = f.server_name.unwrap_or("");
            let score = |pattern: &str| match pattern.strip_prefix('*') {
                Some(suffix) => (name.len() > suffix.len() && name.ends_with(suffix)).then_some(suffix.len() as i64),
                None => (pattern == name).then_some(i64::MAX),
            };
            if m.server_names.is_empty() { Some(0) } else { m.server_names.iter().filter_map(|p| score(p)).max() }
        }),
        Box::new(move |m| match m.transport {
            None => Some(0),
            Some(t) => (t == f.transport).then_some(1),
        }),
        Box::new(move |m| match &m.application_protocols[..] {
            [] => Some(-1000),
            list => f.alpn.iter().position(|p| list.contains(p)).map(|at| -(at as i64)),
        }),
        Box::new(move |m| range(&m.direct_source_ranges, f.direct_source)),
        Box::new(move |m| match m.source_type {
            SourceType::Any => Some(0),
            SourceType::SameIpOrLoopback => local.then_some(1),
            SourceType::External => (!local).then_some(1),
        }),
        Box::new(move |m| range(&m.source_ranges, src)),
        Box::new(move |m| match &m.source_ports[..] {
            [] => Some(0),
            list => list.contains(&f.source.port()).then_some(1),
        }),
    ];
    let mut left: Vec<usize> = (0..chains.len()).collect();
    for step in steps {
        let best = left.iter().filter_map(|i| step(&chains[*i])).max()?;
        left.retain(|i| step(&chains[*i]) == Some(best));
    }
    assert!(left.len() <= 1, "ambiguous: {left:?}");
    left.pop()
}

fn subset<T: Clone>(rng: &mut fastrand::Rng, from: &[T]) -> Vec<T> {
    if rng.bool() { Vec::new() } else { from.iter().filter(|_| rng.u8(0..3) == 0).cloned().collect() }
}

#[test]
fn agrees_with_the_naive_reading_on_random_chains() {
    let ranges: Vec<Cidr> =
        ["10.0.0.0/8", "10.0.0.0/16", "10.0.0.1/32", "127.0.0.0/8", "0.0.0.0/0", "fd00::/8", "fd00::1/128", "::/0"]
            .map(cidr)
            .to_vec();
    let patterns = names(&["a.example.com", "*.example.com", "*.com", "b.org", "*.a.example.com"]);
    let snis = ["a.example.com", "x.a.example.com", "example.com", "b.org", "c.org", "y.com"];
    let protocols = names(&["h2", "http/1.1", "istio"]);
    let ips: Vec<IpAddr> =
        ["10.0.0.1", "10.0.9.9", "10.7.0.1", "127.0.0.1", "9.9.9.9", "fd00::1", "fd00::2", "::1", "2001:db8::1"]
            .map(|ip| ip.parse().unwrap())
            .to_vec();
    let (mut built, mut refused, mut matched) = (0, 0, 0);
    for seed in 0..400 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let count = rng.usize(1..10);
        let matches: Vec<ChainMatch> = (0..count)
            .map(|_| ChainMatch {
                destination_port: [None, Some(80), Some(443)][rng.usize(0..3)],
                destination_ranges: subset(&mut rng, &ranges),
                server_names: subset(&mut rng, &patterns),
                transport: [None, Some(Transport::Tls), Some(Transport::RawBuffer)][rng.usize(0..3)],
                application_protocols: subset(&mut rng, &protocols),
                direct_source_ranges: subset(&mut rng, &ranges),
                source_type: [SourceType::Any, SourceType::SameIpOrLoopback, SourceType::External][rng.usize(0..3)],
                source_ranges: subset(&mut rng, &ranges),
                source_ports: subset(&mut rng, &[7, 8]),
            })
            .collect();
        let chains: Vec<_> = matches.iter().map(|m| chain("r", m.clone())).collect();
        let Ok(index) = ChainIndex::new(&chains) else {
            refused += 1;
            continue;
        };
        built += 1;
        for _ in 0..400 {
            let source = ips[rng.usize(0..ips.len())];
            let alpn = subset(&mut rng, &protocols);
            let facts = ChainFacts {
                destination: SocketAddr::new(ips[rng.usize(0..ips.len())], [80, 443, 1][rng.usize(0..3)]),
                server_name: rng.bool().then(|| snis[rng.usize(0..snis.len())]),
                transport: if rng.bool() { Transport::Tls } else { Transport::RawBuffer },
                alpn: &alpn,
                direct_source: source,
                source: SocketAddr::new(source, [7, 8, 9][rng.usize(0..3)]),
            };
            let expected = naive(&matches, &facts);
            matched += usize::from(expected.is_some());
            assert_eq!(index.select(&facts), expected, "seed {seed}: {facts:?}\n{matches:#?}");
        }
    }
    assert!(built > 300 && refused > 0 && matched > 5000, "{built} built, {refused} refused, {matched} matched");
}
