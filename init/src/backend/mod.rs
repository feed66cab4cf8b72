//! Which packet filter to use: what is installed here, whose tables are in use, and where our own rules are.
//!
//! Owns the survey and the choice, and says why it chose. It changes nothing, not even by creating empty tables.
//! Invariant: rules of ours in two packet filters are an error with a name, never a silent choice.

mod dump;
pub mod programs;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use dump::{Dump, TABLE_MARKER, TableDump};

use crate::error::Error;
use crate::host;
use crate::options::BackendChoice;
use crate::plan::{Family, NFT_TABLE, Table};

/// A packet filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// iptables over nf_tables.
    IptablesNft,
    /// iptables over x_tables.
    IptablesLegacy,
    /// nftables with a table of our own.
    Nft,
}

impl Backend {
    /// The name operators use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IptablesNft => "iptables (nf_tables)",
            Self::IptablesLegacy => "iptables-legacy",
            Self::Nft => "nft",
        }
    }
}

/// The programs of one iptables variant for both families.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xtables {
    pub backend: Backend,
    save: [Option<PathBuf>; 2],
    restore: [Option<PathBuf>; 2],
}

impl Xtables {
    fn find(backend: Backend, infix: &str) -> Option<Self> {
        let find = |verb: &str| {
            [Family::V4, Family::V6].map(|family| {
                let base = if family == Family::V4 { "iptables" } else { "ip6tables" };
                programs::find(&format!("{base}{infix}-{verb}"))
            })
        };
        let found = Self { backend, save: find("save"), restore: find("restore") };
        found.has(Family::V4).then_some(found)
    }

    /// Whether this family can be read and written.
    pub fn has(&self, family: Family) -> bool {
        self.save[family as usize].is_some() && self.restore[family as usize].is_some()
    }

    /// Everything in this family's tables, ours and foreign.
    pub fn dump(&self, family: Family) -> Result<Dump, Error> {
        let Some(save) = &self.save[family as usize] else { return Ok(Dump::default()) };
        if self.backend == Backend::IptablesLegacy && !Table::ALL.iter().any(|&t| host::has_legacy_table(family, t)) {
            return Ok(Dump::default());
        }
        Ok(Dump::parse(&programs::run(save, &[], "")?))
    }

    /// Applies restore input: one transaction per table.
    pub fn restore(&self, family: Family, input: &str) -> Result<(), Error> {
        let Some(restore) = &self.restore[family as usize] else {
            return Err(Error::ProgramMissing { wanted: self.missing(family), path: programs::search_path() });
        };
        programs::run(restore, &["--noflush", "-w", "10"], input).map(drop)
    }

    /// The names of the programs this family needs.
    pub fn missing(&self, family: Family) -> String {
        let base = if family == Family::V4 { "iptables" } else { "ip6tables" };
        format!("{base}-save and {base}-restore for {}", self.backend.as_str())
    }
}

/// What is installed and in use in this network namespace.
#[derive(Clone, Debug)]
pub struct Survey {
    variants: Vec<Xtables>,
    /// The variant the plain command `iptables` stands for.
    plain: Option<Backend>,
    nft: Option<PathBuf>,
    in_use: Vec<Backend>,
    ours: Vec<Backend>,
    /// What is installed and does not work here, with the reason.
    unusable: Vec<String>,
}

/// The chosen backend with the reason.
#[derive(Clone, Debug)]
pub struct Choice {
    pub backend: Backend,
    pub why: String,
}

impl Survey {
    /// Looks at programs and tables. Needs CAP_NET_ADMIN to see the tables.
    pub fn take() -> Result<Self, Error> {
        let plain = plain_variant();
        let mut variants = Vec::new();
        for (backend, infix) in [(Backend::IptablesNft, "-nft"), (Backend::IptablesLegacy, "-legacy")] {
            let named = Xtables::find(backend, infix);
            let unnamed = || if plain == Some(backend) { Xtables::find(backend, "") } else { None };
            variants.extend(named.or_else(unnamed));
        }
        let mut survey = Self {
            variants: Vec::new(),
            plain,
            nft: programs::find("nft"),
            in_use: Vec::new(),
            ours: Vec::new(),
            unusable: Vec::new(),
        };
        for variant in variants {
            survey.look_at(variant);
        }
        match survey.nft_listing() {
            Ok(Some(_)) => survey.ours.push(Backend::Nft),
            Ok(None) => {}
            Err(error) => {
                survey.unusable.push(format!("nft: {error}"));
                survey.nft = None;
            }
        }
        Ok(survey)
    }

    fn look_at(&mut self, mut variant: Xtables) {
        for family in Family::BOTH {
            match variant.dump(family) {
                Ok(dump) => {
                    if dump.has_rules_of_others() && !self.in_use.contains(&variant.backend) {
                        self.in_use.push(variant.backend);
                    }
                    if dump.has_ours() && !self.ours.contains(&variant.backend) {
                        self.ours.push(variant.backend);
                    }
                }
                Err(error) => {
                    self.unusable.push(format!("{} for {}: {error}", variant.backend.as_str(), family.as_str()));
                    variant.save[family as usize] = None;
                }
            }
        }
        if variant.has(Family::V4) {
            self.variants.push(variant);
        }
    }

    /// Packet filters that are installed and do not work, with the reasons.
    pub fn unusable(&self) -> &[String] {
        &self.unusable
    }

    /// The programs of an iptables variant.
    pub fn variant(&self, backend: Backend) -> Option<&Xtables> {
        self.variants.iter().find(|variant| variant.backend == backend)
    }

    /// All iptables variants found.
    pub fn variants(&self) -> &[Xtables] {
        &self.variants
    }

    /// The nft program.
    pub fn nft(&self) -> Option<&PathBuf> {
        self.nft.as_ref()
    }

    /// Where rules of ours are.
    pub fn ours(&self) -> &[Backend] {
        &self.ours
    }

    /// The listing of our nft table; `None` if there is none.
    pub fn nft_listing(&self) -> Result<Option<String>, Error> {
        let Some(nft) = &self.nft else { return Ok(None) };
        let tables = programs::run(nft, &["list", "tables"], "")?;
        if !tables.lines().any(|line| line.trim() == format!("table inet {NFT_TABLE}")) {
            return Ok(None);
        }
        programs::run(nft, &["-s", "list", "table", "inet", NFT_TABLE], "").map(Some)
    }

    /// Chooses, or says why there is no choice.
    pub fn choose(&self, asked: BackendChoice) -> Result<Choice, Error> {
        if let [_, _, ..] = self.ours.as_slice() {
            return Err(Error::Conflict { places: names(&self.ours) });
        }
        let choice = match asked {
            BackendChoice::Auto => self.automatic()?,
            BackendChoice::Iptables => {
                let backend = self.plain.or_else(|| self.available(&[Backend::IptablesNft, Backend::IptablesLegacy]));
                let backend = backend.filter(|&backend| self.variant(backend).is_some());
                self.asked_for(backend, "iptables-save and iptables-restore")?
            }
            BackendChoice::IptablesLegacy => {
                let backend = self.available(&[Backend::IptablesLegacy]);
                self.asked_for(backend, "iptables-legacy-save and iptables-legacy-restore")?
            }
            BackendChoice::Nft => self.asked_for(self.available(&[Backend::Nft]), "nft")?,
        };
        match self.ours.first() {
            Some(&installed) if installed != choice.backend => {
                Err(Error::OtherBackend { installed: installed.as_str(), asked: choice.backend.as_str() })
            }
            _ => Ok(choice),
        }
    }

    fn automatic(&self) -> Result<Choice, Error> {
        if let Some(&backend) = self.ours.first() {
            return Ok(Choice { backend, why: "outrigger's rules are already there".into() });
        }
        if let Some(&backend) = self.in_use.first() {
            let also =
                if self.in_use.len() > 1 { format!(" (in use: {})", names(&self.in_use)) } else { String::new() };
            return Ok(Choice { backend, why: format!("its tables are in use in this namespace{also}") });
        }
        match self.available(&[Backend::Nft, Backend::IptablesNft, Backend::IptablesLegacy]) {
            Some(backend) => {
                Ok(Choice { backend, why: "no packet filter is in use in this namespace; the first available".into() })
            }
            None => Err(self.missing("nft, iptables-save")),
        }
    }

    fn available(&self, wanted: &[Backend]) -> Option<Backend> {
        wanted.iter().copied().find(|&backend| match backend {
            Backend::Nft => self.nft.is_some(),
            Backend::IptablesNft | Backend::IptablesLegacy => self.variant(backend).is_some(),
        })
    }

    fn missing(&self, wanted: &str) -> Error {
        if self.unusable.is_empty() {
            Error::ProgramMissing { wanted: wanted.to_owned(), path: programs::search_path() }
        } else {
            Error::Unusable { reasons: self.unusable.join("\n  ") }
        }
    }

    fn asked_for(&self, backend: Option<Backend>, wanted: &str) -> Result<Choice, Error> {
        let backend = backend.ok_or_else(|| self.missing(wanted))?;
        let others: Vec<Backend> = self.in_use.iter().copied().filter(|&other| other != backend).collect();
        let why = match others.as_slice() {
            [] => "asked for".to_owned(),
            others => format!("asked for, although rules of others are in {}", names(others)),
        };
        Ok(Choice { backend, why })
    }
}

/// What the plain command stands for: its version says "(nf_tables)", "(legacy)" or, before 1.8, nothing.
fn plain_variant() -> Option<Backend> {
    let version = programs::run(&programs::find("iptables-save")?, &["--version"], "").ok()?;
    Some(if version.contains("nf_tables") { Backend::IptablesNft } else { Backend::IptablesLegacy })
}

fn names(backends: &[Backend]) -> String {
    backends.iter().map(|backend| backend.as_str()).collect::<Vec<_>>().join(" and ")
}
