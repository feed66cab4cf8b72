//! Among a few hosts the one with the least to do: by requests in flight, or by what one more is expected to take.
//!
//! Candidates are drawn by weight, which keeps an idle cluster proportional; comparing load per weight corrects it under
//! load. An equal candidate never displaces an earlier one, for that would favour heavy hosts twice.

use super::{Draw, SplitMix, below, table::Alias};
use crate::ir::balancing::{LeastRequest, PeakEwma};

/// How candidates compare.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    /// Requests in flight per weight.
    Active(LeastRequest),
    /// Latency times requests.
    Latency(PeakEwma),
}

#[derive(Debug)]
pub(super) struct Fewest {
    alias: Alias,
    rule: Rule,
    choices: u32,
    mean_weight: f64,
}

/// What one candidate has to do; less is better.
struct Load {
    position: usize,
    active: u32,
    /// Of rules with a cost: that.
    cost: f64,
}

impl Fewest {
    pub(super) fn new(alias: Alias, rule: Rule) -> Self {
        let hosts = alias.hosts().len();
        let sum: f64 = (0..hosts).map(|position| alias.weight(position) as f64).sum();
        let choices = match rule {
            Rule::Active(config) => config.choices,
            Rule::Latency(config) => config.choices,
        };
        Self { alias, rule, choices: choices.clamp(2, super::MAX_DRAWS), mean_weight: sum / hosts.max(1) as f64 }
    }

    pub(super) fn hosts(&self) -> &[u32] {
        self.alias.hosts()
    }

    /// `drawn` even where the rule is to look at all hosts.
    pub(super) fn pick(&self, random: &mut SplitMix, draw: &Draw<'_>, drawn: bool) -> u32 {
        match self.rule {
            Rule::Active(config) if config.full_scan && !drawn => self.scan(random, draw),
            _ => self.of_choices(random, draw),
        }
    }

    fn excluded(&self, position: usize, draw: &Draw<'_>) -> bool {
        draw.excludes && (draw.excluded)(self.hosts()[position] as usize)
    }

    fn of_choices(&self, random: &mut SplitMix, draw: &Draw<'_>) -> u32 {
        let hosts = self.hosts();
        let mut best: Option<Load> = None;
        let mut shares = 0.0;
        for i in 0..self.choices {
            let position = match &best {
                // Two different hosts whenever there are two.
                Some(first) if i == 1 && self.alias.is_even() && hosts.len() > 1 => {
                    (first.position + 1 + below(random.next(), hosts.len() - 1)) % hosts.len()
                }
                _ => self.alias.position(random.next()),
            };
            if best.is_some() && self.excluded(position, draw) {
                continue;
            }
            let load = self.load(position, draw);
            let better = match &best {
                None => true,
                Some(best) if self.excluded(best.position, draw) => true,
                Some(best) => match self.bias() {
                    Some(bias) => soft(&load, bias, &mut shares, best, random),
                    None => self.less(&load, best),
                },
            };
            if better {
                best = Some(load);
            }
        }
        hosts[best.map_or(0, |best| best.position)]
    }

    fn load(&self, position: usize, draw: &Draw<'_>) -> Load {
        let host = self.hosts()[position] as usize;
        let active = (draw.active)(host);
        let cost = match self.rule {
            Rule::Active(_) => 0.0,
            Rule::Latency(config) => {
                let each = f64::from(active) * self.mean_weight / self.alias.weight(position) as f64;
                match (draw.latency)(host, config.decay) {
                    Some(millis) => millis * (each + 1.0),
                    None if active > 0 => config.penalty.get() + each,
                    None => config.default_rtt.as_secs_f64() * 1e3,
                }
            }
        };
        Load { position, active, cost }
    }

    fn less(&self, this: &Load, other: &Load) -> bool {
        let scaled = |load: &Load, by: &Load| u128::from(load.active) * u128::from(self.alias.weight(by.position));
        match self.rule {
            Rule::Active(_) => scaled(this, other) < scaled(other, this),
            Rule::Latency(_) => this.cost < other.cost,
        }
    }

    /// The bias of `weight / (active + 1)^bias`, where it is another than the usual and weights differ.
    fn bias(&self) -> Option<f64> {
        match self.rule {
            Rule::Active(config) if !self.alias.is_even() => Some(config.bias.get()).filter(|b| *b != 1.0),
            _ => None,
        }
    }

    /// `FULL_SCAN`: the least of all, equals by weight.
    fn scan(&self, random: &mut SplitMix, draw: &Draw<'_>) -> u32 {
        let hosts = self.hosts();
        let mut best: Option<Load> = None;
        let mut equals = 0u64;
        for position in (0..hosts.len()).filter(|position| !self.excluded(*position, draw)) {
            let load = self.load(position, draw);
            let weight = self.alias.weight(position);
            let better = match &best {
                Some(best) if !self.less(&load, best) => {
                    if self.less(best, &load) {
                        continue;
                    }
                    equals = equals.saturating_add(weight);
                    (below(random.next(), usize::try_from(equals).unwrap_or(usize::MAX)) as u64) < weight
                }
                _ => {
                    equals = weight;
                    true
                }
            };
            if better {
                best = Some(load);
            }
        }
        hosts[best.map_or_else(|| self.alias.position(random.next()), |best| best.position)]
    }
}

/// Whether a candidate displaces `best` by a draw among all so far, each with the share `1 / (active + 1)^bias`: they
/// were drawn by weight, so together it is the weight that Envoy's schedule gives them.
fn soft(this: &Load, bias: f64, shares: &mut f64, best: &Load, random: &mut SplitMix) -> bool {
    let share = |load: &Load| (f64::from(load.active) + 1.0).powf(-bias);
    if *shares == 0.0 {
        *shares = share(best);
    }
    let own = share(this);
    *shares += own;
    (random.next() >> 11) as f64 / (1u64 << 53) as f64 * *shares < own
}
