//! The loggers of one listener or filter, and what they want to see of a request.

use std::{borrow::Cow, ops::Deref};

use super::Logger;
use crate::telemetry::format::Headers;

/// Always kept: `%STREAM_ID%` is it.
const REQUEST_ID: &str = "x-request-id";

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
pub struct Captured(Vec<Option<String>>);

impl Captured {
    pub fn fill(&mut self, names: &[Box<str>], source: &dyn Headers) {
        self.0.clear();
        self.0.extend(names.iter().map(|name| source.get(name).map(Cow::into_owned)));
    }

    /// With the names they were filled by.
    pub fn under<'a>(&'a self, names: &'a [Box<str>]) -> CapturedHeaders<'a> {
        CapturedHeaders { names, values: &self.0 }
    }
}

/// [`Captured`] values, to be asked by name.
#[derive(Debug)]
pub struct CapturedHeaders<'a> {
    names: &'a [Box<str>],
    values: &'a [Option<String>],
}

impl Headers for CapturedHeaders<'_> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        let at = self.names.iter().position(|known| **known == *name)?;
        self.values.get(at)?.as_deref().map(Cow::from)
    }
}
