//! The loggers of one listener or filter, and what they want to see of a request.

use std::{
    borrow::Cow,
    ops::{Deref, Range},
};

use super::Logger;
use crate::telemetry::format::Headers;

/// Always kept: `%STREAM_ID%` is it.
const REQUEST_ID: &str = "x-request-id";
/// Room for the values of one head, in most cases.
const USUAL: usize = 192;

/// See the module's head.
#[derive(Debug, Default)]
pub struct Loggers {
    loggers: Box<[Logger]>,
    names: Names,
}

/// The header names that loggers mention.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub request: Vec<Box<str>>,
    pub response: Vec<Box<str>>,
    pub trailers: Vec<Box<str>>,
}

impl Loggers {
    pub fn new(loggers: Vec<Logger>) -> Self {
        let mut names = Names::default();
        if !loggers.is_empty() {
            names.request.push(REQUEST_ID.into());
        }
        for of_one in loggers.iter().map(Logger::names) {
            add(&mut names.request, &of_one.request);
            add(&mut names.response, &of_one.response);
            add(&mut names.trailers, &of_one.trailers);
        }
        Self { loggers: loggers.into(), names }
    }

    /// The names that any of them mentions, each once.
    pub fn names(&self) -> &Names {
        &self.names
    }
}

fn add(to: &mut Vec<Box<str>>, from: &[Box<str>]) {
    for name in from {
        if !to.contains(name) {
            to.push(name.clone());
        }
    }
}

impl Deref for Loggers {
    type Target = [Logger];

    fn deref(&self) -> &[Logger] {
        &self.loggers
    }
}

/// Values of the headers that [`Names`] lists, in its order: what is left of a head when a line is written.
#[derive(Debug, Default)]
pub struct Captured {
    /// All values, one after the other.
    text: String,
    /// Where each is in the text; `None` where the header is not there.
    places: Vec<Option<Range<usize>>>,
}

impl Captured {
    pub fn fill(&mut self, names: &[Box<str>], source: &dyn Headers) {
        self.text.clear();
        self.places.clear();
        self.places.reserve(names.len());
        for name in names {
            let value = source.get(name);
            self.places.push(value.map(|value| {
                let start = self.text.len();
                if start == 0 {
                    self.text.reserve(USUAL);
                }
                self.text.push_str(&value);
                start..self.text.len()
            }));
        }
    }

    /// With the names they were filled by.
    pub fn under<'a>(&'a self, names: &'a [Box<str>]) -> CapturedHeaders<'a> {
        CapturedHeaders { names, values: self }
    }
}

/// [`Captured`] values, to be asked by name.
#[derive(Debug)]
pub struct CapturedHeaders<'a> {
    names: &'a [Box<str>],
    values: &'a Captured,
}

impl Headers for CapturedHeaders<'_> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        let at = self.names.iter().position(|known| **known == *name)?;
        let place = self.values.places.get(at)?.clone()?;
        self.values.text.get(place).map(Cow::from)
    }
}
