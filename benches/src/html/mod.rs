//! The HTML page (placeholder until filled below).
use crate::result::Run;
pub(crate) fn page(_: &Run, _: &str) -> String { String::new() }
