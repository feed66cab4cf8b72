use std::net::IpAddr;

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

pub(crate) fn options(args: &[&str]) -> Options {
    Line::try_parse_from([&["x"], args].concat()).expect("valid flags").options
}

pub(crate) fn rules(args: &[&str]) -> RuleSet {
    RuleSet::build(&options(args), true)
}

const EVERYTHING: &[&str] = &[
    "--inbound-port=16006",
    "--outbound-port=16001",
    "--proxy-uid=1337,2000",
    "--proxy-gid=1337",
    "--exclude-inbound-ports=1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31,33,8000-8010",
    "--include-outbound-ports=6379",
    "--exclude-outbound-ports=25",
    "--include-outbound-cidrs=10.0.0.0/8,0.0.0.0/0,fd00::/8",
    "--exclude-outbound-cidrs=169.254.169.254,fd00:ec2::254",
    "--exclude-interfaces=net1,net2",
    "--drop-invalid",
];

/// Compares with the file, or rewrites it where OUTRIGGER_GOLDEN=write says that the change is meant.
fn golden(name: &str, text: &str) {
    let path = format!("{}/src/plan/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var("OUTRIGGER_GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{path}");
}

#[test]
fn golden_files() {
    golden("default.v4.rules", &rules(&[]).iptables_text(Family::V4));
    golden("default.v6.rules", &rules(&[]).iptables_text(Family::V6));
    golden("default.nft", &rules(&[]).nft_script());
    golden("everything.v4.rules", &rules(EVERYTHING).iptables_text(Family::V4));
    golden("everything.v6.rules", &rules(EVERYTHING).iptables_text(Family::V6));
    golden("everything.nft", &rules(EVERYTHING).nft_script());
    golden("v4only.nft", &RuleSet::build(&options(&[]), false).nft_script());
    assert_eq!(RuleSet::build(&options(&[]), false).iptables_text(Family::V6), "");
}

#[test]
fn a_multiport_match_never_has_more_than_fifteen_slots() {
    for text in [rules(EVERYTHING).iptables_text(Family::V4), rules(EVERYTHING).iptables_text(Family::V6)] {
        let lists: Vec<&str> = text.split("--dports ").skip(1).filter_map(|rest| rest.split(' ').next()).collect();
        assert!(lists.len() >= 2);
        for list in lists {
            let slots: usize = list.split(',').map(|item| if item.contains(':') { 2 } else { 1 }).sum();
            assert!((2..=15).contains(&slots), "{list}");
        }
    }
}

fn outgoing<'a>(destination: &str, id: u32, output: &'a str) -> Flow<'a> {
    let destination: std::net::SocketAddr = destination.parse().unwrap();
    let source: IpAddr = if destination.is_ipv6() { "2001:db8::2" } else { "10.1.1.1" }.parse().unwrap();
    Flow { source, destination, uid: id, gid: id, input: None, output: Some(output) }
}

fn incoming<'a>(destination: &str, input: &'a str) -> Flow<'a> {
    Flow { input: Some(input), output: None, ..outgoing(destination, 0, "") }
}

const APP: u32 = 1000;
const PROXY: u32 = 1337;

#[test]
fn the_application_goes_out_through_the_proxy() {
    let plan = rules(&[]);
    for destination in ["192.0.2.1:80", "[2001:db8::1]:80", "169.254.169.254:80", "8.8.8.8:53"] {
        assert_eq!(plan.trace(&outgoing(destination, APP, "eth0")).port(), Some(15001), "{destination}");
        assert_eq!(plan.trace(&outgoing(destination, PROXY, "eth0")).port(), None, "{destination}");
    }
    for own in ["10.1.1.1:8080", "[2001:db8::2]:8080", "127.0.0.1:80", "[::1]:80", "127.0.0.11:53"] {
        assert_eq!(plan.trace(&outgoing(own, APP, "lo")).port(), None, "{own}");
    }
    assert_eq!(plan.trace(&outgoing("[fe80::1]:80", APP, "eth0")).port(), None);
    // Loopback destinations stay uncaptured even where routing sends them elsewhere.
    assert_eq!(plan.trace(&outgoing("127.0.0.11:53", APP, "eth0")).port(), None);
}

#[test]
fn the_users_group_alone_marks_the_proxy_too() {
    let plan = rules(&["--proxy-gid", "1337,77"]);
    let by_group = Flow { gid: 77, ..outgoing("192.0.2.1:80", APP, "eth0") };
    assert_eq!(plan.trace(&by_group).port(), None);
    let own_service = Flow { gid: 77, ..outgoing("10.1.1.1:8080", APP, "lo") };
    assert_eq!(plan.trace(&own_service).port(), Some(15006));
}

#[test]
fn a_pod_that_calls_its_own_service_enters_by_the_inbound_side() {
    let plan = rules(&["--exclude-inbound-ports", "3306"]);
    for own in ["10.1.1.1:8080", "[2001:db8::2]:8080"] {
        assert_eq!(plan.trace(&outgoing(own, PROXY, "lo")).port(), Some(15006), "{own}");
    }
    for own in ["10.1.1.1:15006", "10.1.1.1:15008", "10.1.1.1:3306", "127.0.0.1:8080", "127.0.0.11:53", "[::1]:8080"] {
        assert_eq!(plan.trace(&outgoing(own, PROXY, "lo")).port(), None, "{own}");
    }
    for (guard, own) in [("127.0.0.6", "10.1.1.1:8080"), ("::6", "[2001:db8::2]:8080")] {
        let flow = Flow { source: guard.parse().unwrap(), ..outgoing(own, PROXY, "lo") };
        assert_eq!(plan.trace(&flow).port(), None, "{guard}");
    }
}

#[test]
fn inbound_is_captured_but_for_excluded_ports_and_interfaces() {
    let plan = rules(&["--exclude-inbound-ports", "22,8000-8010", "--exclude-interfaces", "net1"]);
    for destination in ["10.1.1.1:80", "[2001:db8::2]:80", "[fe80::2]:80", "10.1.1.1:15001", "10.1.1.1:15008"] {
        assert_eq!(plan.trace(&incoming(destination, "eth0")).port(), Some(15006), "{destination}");
    }
    for port in [22, 8005, 15006, 15020, 15021, 15090] {
        assert_eq!(plan.trace(&incoming(&format!("10.1.1.1:{port}"), "eth0")).port(), None, "{port}");
    }
    assert_eq!(plan.trace(&incoming("10.1.1.1:80", "net1")).port(), None);
    assert_eq!(plan.trace(&outgoing("192.0.2.1:80", APP, "net1")).port(), None);
    let listed = rules(&["--include-inbound-ports", "80,443"]);
    assert_eq!(listed.trace(&incoming("10.1.1.1:443", "eth0")).port(), Some(15006));
    assert_eq!(listed.trace(&incoming("10.1.1.1:22", "eth0")).port(), None);
    assert_eq!(rules(&["--include-inbound-ports", ""]).trace(&incoming("10.1.1.1:80", "eth0")).port(), None);
}

#[test]
fn outbound_includes_and_excludes() {
    let plan = rules(EVERYTHING);
    let port = |destination: &str| plan.trace(&outgoing(destination, APP, "eth0")).port();
    assert_eq!(port("192.0.2.1:80"), Some(16001));
    assert_eq!(port("192.0.2.1:25"), None);
    assert_eq!(port("169.254.169.254:80"), None);
    assert_eq!(port("[fd00:ec2::254]:80"), None);
    assert_eq!(port("[fd00:1::1]:80"), Some(16001));
    assert_eq!(port("[2001:db8::1]:80"), None);
    assert_eq!(port("[2001:db8::1]:6379"), Some(16001));
    // Exclusion goes before inclusion by port.
    assert_eq!(port("169.254.169.254:6379"), None);
    let nothing = rules(&["--include-outbound-cidrs", ""]);
    assert_eq!(nothing.trace(&outgoing("192.0.2.1:80", APP, "eth0")).port(), None);
}

#[test]
fn a_family_that_is_left_alone_is_never_captured() {
    let plan = RuleSet::build(&options(&[]), false);
    assert!(!plan.covers(Family::V6));
    assert_eq!(plan.trace(&outgoing("[2001:db8::1]:80", APP, "eth0")).port(), None);
    assert!(plan.nft_script().contains("meta nfproto ipv4 meta l4proto tcp jump OUTRIGGER_OUTPUT"));
    assert!(!plan.nft_script().contains("ip6"));
}

#[test]
fn comparison_forms() {
    assert_eq!(canonical("-p tcp -m tcp ! --dport 22 -j X"), canonical("-p tcp ! --dport 22 -j X"));
    assert_ne!(canonical("-p tcp ! --dport 22 -j X"), canonical("-p tcp --dport 22 -j X"));
    assert_ne!(canonical("! -d 127.0.0.0/8 -j X"), canonical("-d 127.0.0.0/8 -j X"));
    assert_eq!(canonical("-s 127.0.0.6 -j RETURN"), canonical("-s 127.0.0.6/32 -j RETURN"));
    assert_eq!(
        canonical_line("\t\ttcp dport 22 counter packets 3 bytes 9 return comment \"x y\""),
        "tcp dport 22 return"
    );
    assert_eq!(canonical_line("skuid 1337 counter return"), "meta skuid 1337 return");
    assert_eq!(
        canonical_line("type nat hook output priority dstnat; policy accept;"),
        canonical_line("type nat hook output priority -100; policy accept;")
    );
}
