use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

fn options(args: &[&str]) -> Options {
    Line::try_parse_from([&["x"], args].concat()).expect("valid flags").options
}

#[test]
fn ports_are_sorted_and_merged() {
    let set: PortSet = " 80,443, 81,8000-8010,8005:8020,80".parse().unwrap();
    let rendered: Vec<String> = set.ranges().iter().map(|range| range.render(':')).collect();
    assert_eq!(rendered, ["80:81", "443", "8000:8020"]);
    assert!(set.contains(8015) && !set.contains(82));
}

#[test]
fn ports_refuse_garbage() {
    for text in ["0", "65536", "a", "10-5", "80;81", "1-2-3", "-1", "*"] {
        assert!(text.parse::<PortSet>().is_err(), "{text}");
    }
    assert!("65535-65535".parse::<PortSet>().is_ok());
    assert!((0..=MAX).map(|_| "1").collect::<Vec<_>>().join(",").parse::<PortSet>().is_err());
    const MAX: usize = 1024;
}

#[test]
fn networks_are_masked_and_deduplicated() {
    let list: CidrList = "10.1.2.3/8,10.5.0.0/16,192.0.2.1,fd00::1/8,fd12::/16".parse().unwrap();
    let shown: Vec<String> = list.iter().map(Cidr::to_string).collect();
    assert_eq!(shown, ["10.0.0.0/8", "192.0.2.1/32", "fd00::/8"]);
    assert!("0.0.0.0/0".parse::<Cidr>().unwrap().contains("203.0.113.9".parse().unwrap()));
    assert!("::/0".parse::<Cidr>().unwrap().contains("2001:db8::9".parse().unwrap()));
    assert!(!"::/0".parse::<Cidr>().unwrap().contains("203.0.113.9".parse().unwrap()));
    for text in ["10.0.0.0/33", "::/129", "10.0.0/8", "host", "10.0.0.0/-1", "1.2.3.4/"] {
        assert!(text.parse::<Cidr>().is_err(), "{text}");
    }
}

#[test]
fn interface_names_cannot_carry_rule_text() {
    for text in ["", "lo", "eth0; drop", "a b", "eth+", "-A", "sixteencharacter", "e\"th", "eth0\n"] {
        // A trailing newline is whitespace and trimmed away; everything else is refused.
        assert_eq!(text.parse::<InterfaceName>().is_ok(), text == "eth0\n", "{text:?}");
    }
    assert_eq!("eth0.100".parse::<InterfaceName>().unwrap().as_str(), "eth0.100");
}

#[test]
fn defaults_and_exclusions() {
    let defaults = options(&[]);
    defaults.validate().unwrap();
    assert_eq!((defaults.inbound_port, defaults.outbound_port), (15006, 15001));
    assert_eq!(defaults.include_inbound_ports, PortSelection::All);
    assert!(defaults.include_outbound_ports.is_none());
    assert!(!defaults.drop_invalid);
    let excluded = options(&["--exclude-inbound-ports", "22"]).inbound_exclusions();
    for port in [22, 15006, 15020, 15021, 15090] {
        assert!(excluded.contains(port), "{port}");
    }
    assert!(!excluded.contains(80));
    assert!(defaults.notices().is_empty());
}

#[test]
fn flags_are_checked_together() {
    assert!(options(&["--inbound-port", "15001"]).validate().is_err());
    assert!(options(&["--proxy-uid", ""]).validate().is_err());
    assert!(options(&["--exclude-outbound-ports", "1-65535"]).validate().is_err());
    assert!(options(&["--proxy-gid", ""]).validate().is_ok());
    assert!(options(&["--drop-invalid"]).drop_invalid);
    assert!(!options(&["--drop-invalid=false"]).drop_invalid);
    assert!(Line::try_parse_from(["x", "--inbound-port", "0"]).is_err());
    assert!(Line::try_parse_from(["x", "--proxy-uid", "envoy"]).is_err());
}

#[test]
fn odd_wishes_are_said_aloud() {
    assert_eq!(options(&["--proxy-uid", "0"]).notices().len(), 1);
    assert_eq!(options(&["--include-inbound-ports", ""]).notices().len(), 1);
    assert_eq!(options(&["--include-outbound-cidrs", ""]).notices().len(), 1);
    assert!(options(&["--include-outbound-cidrs", "10.0.0.0/8"]).notices()[0].contains("no IPv6"));
    assert!(options(&["--include-outbound-cidrs", "127.0.0.0/8,::/0"]).notices()[0].contains("loopback"));
}
