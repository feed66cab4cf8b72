//! The arithmetic of one limit: fixed windows and GCRA, exact in integers.
//!
//! Pure: time is an argument, in microseconds since the epoch. A [`Cell`] is all that is remembered of a key; one that
//! has expired equals none. `decide.lua` is the same arithmetic for Redis, and a test holds the two against each other.

use std::time::Duration;

/// The span a limit is counted over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl Unit {
    /// In seconds; a month has 30 days, a year 365.
    pub fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
            Self::Day => 86_400,
            Self::Week => 7 * 86_400,
            Self::Month => 30 * 86_400,
            Self::Year => 365 * 86_400,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }
}

/// How requests are spread over the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// As many as the limit in each window, which begins at multiples of the unit since the epoch.
    FixedWindow,
    /// A leaky bucket: `burst` at once, then evenly.
    Gcra,
}

/// So many requests per unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    pub requests: u32,
    pub unit: Unit,
    /// For [`Algorithm::Gcra`].
    pub burst: u32,
    pub algorithm: Algorithm,
}

/// What is remembered of one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Begin of the window, or when `used` was true.
    pub since: u64,
    /// Hits in the window, or the level of the bucket in hits times microseconds of the unit.
    pub used: u128,
}

/// What a descriptor asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hits {
    /// None only looks, and is refused where a single one would be.
    Take(u64),
    Return(u64),
}

/// The answer for one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub over: bool,
    pub remaining: u32,
    /// Refused: until asking again makes sense. Admitted: until all is as if nothing had been asked.
    pub reset: Duration,
}

impl Rate {
    pub(super) fn period(&self) -> u64 {
        self.unit.seconds() * 1_000_000
    }

    /// What one hit costs in the unit of [`Cell::used`].
    fn price(&self) -> u128 {
        match self.algorithm {
            Algorithm::FixedWindow => 1,
            Algorithm::Gcra => self.period().into(),
        }
    }

    /// How many hits fit at once.
    pub fn capacity(&self) -> u32 {
        match self.algorithm {
            Algorithm::FixedWindow => self.requests,
            // Nothing per unit is nothing at all.
            Algorithm::Gcra if self.requests == 0 => 0,
            Algorithm::Gcra => self.burst,
        }
    }

    fn full(&self) -> u128 {
        u128::from(self.capacity()) * self.price()
    }

    /// The cell as it stands at `now`. A clock that went back stands still.
    pub(super) fn current(&self, cell: Option<Cell>, now: u64) -> Cell {
        match self.algorithm {
            Algorithm::FixedWindow => {
                let window = now - now % self.period();
                cell.filter(|cell| cell.since >= window).unwrap_or(Cell { since: window, used: 0 })
            }
            Algorithm::Gcra => {
                let Some(cell) = cell else { return Cell { since: now, used: 0 } };
                let drained = u128::from(now.saturating_sub(cell.since)) * u128::from(self.requests);
                Cell { since: now.max(cell.since), used: cell.used.saturating_sub(drained) }
            }
        }
    }

    fn fits(&self, cell: Cell, hits: u64) -> bool {
        cell.used + u128::from(hits.max(1)) * self.price() <= self.full()
    }

    fn remaining(&self, cell: Cell) -> u32 {
        u32::try_from(self.full().saturating_sub(cell.used) / self.price()).unwrap_or(u32::MAX)
    }

    /// When the cell says nothing any more.
    pub(super) fn expires(&self, cell: Cell) -> u64 {
        match self.algorithm {
            Algorithm::FixedWindow => cell.since + self.period(),
            Algorithm::Gcra => cell.since.saturating_add(self.drains_in(cell.used)),
        }
    }

    /// Microseconds until that much has leaked.
    fn drains_in(&self, level: u128) -> u64 {
        let micros = level.div_ceil(u128::from(self.requests.max(1)));
        // No cell is kept longer than a few units of a full bucket, whatever its burst.
        u64::try_from(micros).unwrap_or(u64::MAX)
    }

    fn verdict(&self, cell: Cell, hits: u64, over: bool, now: u64) -> Verdict {
        let micros = match self.algorithm {
            Algorithm::FixedWindow => self.expires(cell).saturating_sub(now),
            Algorithm::Gcra if over => {
                let missing = (cell.used + u128::from(hits.max(1)) * self.price()).saturating_sub(self.full());
                self.drains_in(missing.min(cell.used).max(1))
            }
            Algorithm::Gcra => self.drains_in(cell.used),
        };
        Verdict { over, remaining: self.remaining(cell), reset: Duration::from_micros(micros) }
    }
}

/// One limit that a request is held against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub key: String,
    pub rate: Rate,
    pub hits: Hits,
    /// Its refusal refuses the request; else it is only told.
    pub enforced: bool,
}

/// Decides all limits of one request together and brings `cells` up to date.
///
/// What is refused by one enforced limit takes nothing from the others, nor from those that are only told. Where several
/// hits at once do not fit, what was left is gone: what they stand for has often happened already.
pub fn decide(asks: &[Ask], cells: &mut [Option<Cell>], now: u64) -> Vec<Verdict> {
    let mut current: Vec<Cell> =
        asks.iter().zip(cells.iter()).map(|(ask, cell)| ask.rate.current(*cell, now)).collect();
    let over: Vec<bool> = asks
        .iter()
        .zip(&current)
        .map(|(ask, cell)| matches!(ask.hits, Hits::Take(hits) if !ask.rate.fits(*cell, hits)))
        .collect();
    let admitted = !asks.iter().zip(&over).any(|(ask, over)| ask.enforced && *over);
    let mut verdicts = Vec::with_capacity(asks.len());
    for (index, (ask, over)) in asks.iter().zip(over).enumerate() {
        let cell = &mut current[index];
        let hits = match ask.hits {
            Hits::Take(hits) if over => {
                if hits > 1 {
                    cell.used = ask.rate.full().max(cell.used);
                }
                hits
            }
            Hits::Take(hits) => {
                if admitted {
                    cell.used += u128::from(hits) * ask.rate.price();
                }
                hits
            }
            Hits::Return(hits) => {
                cell.used = cell.used.saturating_sub(u128::from(hits) * ask.rate.price());
                0
            }
        };
        verdicts.push(ask.rate.verdict(*cell, hits, over, now));
        cells[index] = Some(*cell);
    }
    verdicts
}
