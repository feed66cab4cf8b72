//! What iptables-save prints, as data.
//!
//! Owns the parsing and the question which part of a table is ours. Rules are kept as they were printed, so that they
//! can be handed back to iptables-restore unchanged. Invariant: a rule is ours only if it is in, or jumps to, a chain
//! named OUTRIGGER_*.

/// Names of our chains begin so.
const PREFIX: &str = "OUTRIGGER_";
/// An empty chain of ours that says: the table did not exist before us, so it may go with us.
pub const TABLE_MARKER: &str = "OUTRIGGER_TABLE";

/// All tables of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    tables: Vec<TableDump>,
}

/// One table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableDump {
    name: String,
    /// Name and policy; the policy of a user's chain is `-`.
    chains: Vec<(String, String)>,
    /// Chain and specification, in order.
    rules: Vec<(String, String)>,
}

impl Dump {
    /// Reads the output of iptables-save; comments and counters are left out.
    pub fn parse(text: &str) -> Self {
        let mut dump = Self::default();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                dump.tables.push(TableDump { name: name.trim().to_owned(), ..TableDump::default() });
            }
            let Some(table) = dump.tables.last_mut() else { continue };
            if let Some(chain) = line.strip_prefix(':') {
                let mut words = chain.split_whitespace();
                if let Some(name) = words.next() {
                    table.chains.push((name.to_owned(), words.next().unwrap_or("-").to_owned()));
                }
            } else if let Some((chain, spec)) = rule(line) {
                table.rules.push((chain.to_owned(), spec.to_owned()));
            }
        }
        dump
    }

    /// The table of that name; `None` if the namespace does not have it.
    pub fn table(&self, name: &str) -> Option<&TableDump> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// Whether a rule or chain that is not ours exists anywhere.
    pub fn has_rules_of_others(&self) -> bool {
        self.tables.iter().any(TableDump::has_rules_of_others)
    }

    /// Whether any of our chains exists.
    pub fn has_ours(&self) -> bool {
        self.tables.iter().any(|table| table.our_chains().next().is_some())
    }
}

impl TableDump {
    /// Our chains, the marker left out.
    pub fn our_chains(&self) -> impl Iterator<Item = &str> {
        self.chains.iter().map(|(name, _)| name.as_str()).filter(|name| is_ours(name) && *name != TABLE_MARKER)
    }

    /// The rules of one chain, in order.
    pub fn rules_of<'a>(&'a self, chain: &'a str) -> impl Iterator<Item = &'a str> {
        self.rules.iter().filter(move |(own, _)| own == chain).map(|(_, spec)| spec.as_str())
    }

    /// Rules outside our chains that jump into them: chain, position in it from 1, specification.
    pub fn our_hooks(&self) -> Vec<(&str, usize, &str)> {
        self.chains
            .iter()
            .filter(|(name, _)| !is_ours(name))
            .flat_map(|(chain, _)| {
                let rules = self.rules_of(chain).enumerate().filter(|(_, spec)| is_ours(target(spec)));
                rules.map(move |(index, spec)| (chain.as_str(), index + 1, spec))
            })
            .collect()
    }

    /// Foreign rules of a chain that are evaluated before ours.
    pub fn ahead_of_ours<'a>(&'a self, chain: &'a str) -> impl Iterator<Item = &'a str> {
        self.rules_of(chain).take_while(|spec| !is_ours(target(spec)))
    }

    /// Whether the table carries our marker.
    pub fn is_marked(&self) -> bool {
        self.chains.iter().any(|(name, _)| name == TABLE_MARKER)
    }

    /// Whether nothing is in it but built-in chains that accept and, perhaps, our marker.
    pub fn is_blank(&self) -> bool {
        self.rules.is_empty() && self.chains.iter().all(|(name, policy)| policy == "ACCEPT" || name == TABLE_MARKER)
    }

    fn has_rules_of_others(&self) -> bool {
        self.chains.iter().any(|(name, policy)| policy == "-" && !is_ours(name))
            || self.rules.iter().any(|(chain, spec)| !is_ours(chain) && !is_ours(target(spec)))
    }
}

fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// The jump target; a comment that merely talks about one is quoted and does not count.
fn target(spec: &str) -> &str {
    let mut rest = spec;
    let mut jump = false;
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return "";
        }
        let end = word_end(rest);
        let (word, tail) = rest.split_at(end);
        if jump {
            return word;
        }
        jump = matches!(word, "-j" | "-g" | "--jump" | "--goto");
        rest = tail;
    }
}

/// Where the first word ends, with `"` quoting and `\` escapes inside it as iptables-save writes them.
fn word_end(text: &str) -> usize {
    let mut quoted = false;
    let mut escaped = false;
    for (index, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            other if other.is_whitespace() && !quoted => return index,
            _ => {}
        }
    }
    text.len()
}

/// `-A CHAIN spec`, with or without counters in front.
fn rule(line: &str) -> Option<(&str, &str)> {
    let line = match line.strip_prefix('[') {
        Some(rest) => rest.split_once("] ")?.1,
        None => line,
    };
    let rest = line.strip_prefix("-A ")?;
    Some(rest.split_once(' ').unwrap_or((rest, "")))
}
