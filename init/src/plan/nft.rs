//! The rules in the language of nft: one table `inet outrigger` for both families.
//!
//! Owns the spelling and the comparison form of one line. It runs nothing and reads nothing.
//! Invariant: apart from comments the spelling is what `nft list table` prints back.

use std::fmt::Write;

use super::{Entry, Family, Net, Owner, PROXY_MARK, Ports, Rule, RuleSet, Table, Verdict};

/// Our table; its family is inet.
pub const NFT_TABLE: &str = "outrigger";

impl RuleSet {
    /// The table as `nft list table inet outrigger` prints it, with comments.
    pub fn nft_table(&self) -> String {
        let mut text = format!("table inet {NFT_TABLE} {{\n");
        for chain in self.chains() {
            let _ = writeln!(text, "\tchain {} {{", chain.name.as_str());
            for rule in &chain.rules {
                let _ = writeln!(text, "\t\t{} comment \"{}\"", statement(rule), comment(rule.why));
            }
            text.push_str("\t}\n\n");
        }
        for chain in self.chains() {
            let Some(builtin) = chain.name.entered_from() else { continue };
            let (kind, hook) = (kind(chain.name.table()), builtin.to_ascii_lowercase());
            // Chains at the same hook need names of their own.
            let (name, priority) = match chain.name.table() {
                Table::Nat => (hook.clone(), "-100"),
                Table::Mangle => (format!("{hook}_invalid"), "-150"),
                Table::Filter => (format!("{hook}_port_guard"), "0"),
            };
            let condition = match chain.name.entry() {
                Entry::Tcp => "meta l4proto tcp".to_owned(),
                // Versions of nft print two flags under a mask in different ways; the direction leaves out SYN-ACKs.
                Entry::SynOfProxyEntry => {
                    format!("tcp flags syn ct mark & {PROXY_MARK:#010x} == {PROXY_MARK:#010x} ct direction original")
                }
            };
            let only_v4 = if self.covers(Family::V6) { "" } else { "meta nfproto ipv4 " };
            let _ = writeln!(text, "\tchain {name} {{");
            let _ = writeln!(text, "\t\ttype {kind} hook {hook} priority {priority}; policy accept;");
            let _ = writeln!(text, "\t\t{only_v4}{condition} jump {}", chain.name.as_str());
            text.push_str("\t}\n\n");
        }
        text.truncate(text.trim_end().len());
        text.push_str("\n}\n");
        text
    }

    /// Input for `nft -f -`: one transaction that puts exactly this table in place of whatever we had.
    pub fn nft_script(&self) -> String {
        format!("{}{}", Self::nft_removal(), self.nft_table())
    }

    /// Input for `nft -f -` that removes our table, present or not.
    pub fn nft_removal() -> String {
        format!("table inet {NFT_TABLE}\ndelete table inet {NFT_TABLE}\n")
    }
}

fn kind(table: Table) -> &'static str {
    match table {
        Table::Nat => "nat",
        Table::Mangle | Table::Filter => "filter",
    }
}

fn statement(rule: &Rule) -> String {
    let mut parts: Vec<String> = Vec::new();
    parts.extend(rule.input.as_ref().map(|name| format!("iifname \"{name}\"")));
    parts.extend(rule.output.as_ref().map(|name| format!("oifname \"{name}\"")));
    parts.extend(rule.owner.map(|owner| match owner {
        Owner::Uid(id) => format!("meta skuid {id}"),
        Owner::Gid(id) => format!("meta skgid {id}"),
    }));
    parts.extend(rule.source.as_ref().map(|source| network("saddr", source)));
    parts.extend(rule.destination.as_ref().map(|destination| network("daddr", destination)));
    if let (Some(family), None, None) = (rule.family, &rule.source, &rule.destination) {
        parts.push(match family {
            Family::V4 => "meta nfproto ipv4".into(),
            Family::V6 => "meta nfproto ipv6".into(),
        });
    }
    parts.extend(rule.ports.as_ref().map(ports));
    if rule.invalid_state {
        parts.push("ct state invalid".into());
    }
    parts.push(match rule.verdict {
        Verdict::Return => "return".into(),
        Verdict::Drop => "drop".into(),
        Verdict::Jump(chain) => format!("jump {}", chain.as_str()),
        Verdict::Redirect(port) => format!("meta l4proto tcp redirect to :{port}"),
        Verdict::Reset => "meta l4proto tcp reject with tcp reset".into(),
        Verdict::MarkProxy => format!("ct mark set ct mark | {PROXY_MARK:#010x}"),
    });
    parts.join(" ")
}

fn network(field: &str, net: &Net) -> String {
    let protocol = if net.cidr.is_ipv6() { "ip6" } else { "ip" };
    let not = if net.negated { "!= " } else { "" };
    if net.cidr.is_host() {
        format!("{protocol} {field} {not}{}", net.cidr.network())
    } else {
        format!("{protocol} {field} {not}{}", net.cidr)
    }
}

fn ports(ports: &Ports) -> String {
    let list: Vec<String> = ports.ranges.iter().map(|range| range.render('-')).collect();
    let not = if ports.negated { "!= " } else { "" };
    match list.as_slice() {
        [only] => format!("tcp dport {not}{only}"),
        _ => format!("tcp dport {not}{{ {} }}", list.join(", ")),
    }
}

/// nft keeps at most 128 bytes of a comment and has no way to quote a quote.
fn comment(why: &str) -> String {
    why.chars().filter(|&character| character != '"').take(120).collect()
}

/// One line of a listing in a form that is equal for equal meaning: without comment and counters, priorities as
/// numbers.
pub fn canonical_line(line: &str) -> String {
    let line = line.split(" comment \"").next().unwrap_or(line).trim();
    let mut words: Vec<&str> = Vec::new();
    let mut all = line.split_whitespace().peekable();
    while let Some(word) = all.next() {
        match word {
            "counter" => {
                // `counter packets N bytes N`; `list -s` prints the bare word.
                while let Some(&next) = all.peek() {
                    if next != "packets" && next != "bytes" && next.parse::<u64>().is_err() {
                        break;
                    }
                    all.next();
                }
            }
            "dstnat;" => words.push("-100;"),
            "mangle;" => words.push("-150;"),
            "filter;" => words.push("0;"),
            "skuid" | "skgid" if words.last() != Some(&"meta") => words.extend(["meta", word]),
            _ => words.push(word),
        }
    }
    words.join(" ")
}
