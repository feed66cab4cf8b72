//! `fields!`: what happens to each field of a message, checked for completeness by the compiler.

/// Destructures `message` without `..`, so that a field nobody thought of does not compile. `read` fields are decoded by
/// the code that follows; set fields of the other lists are noted (or refused) here.
macro_rules! fields {
    ($at:expr, $message:expr => $ty:path {
        read: [$($read:ident),* $(,)?]
        $(, harmless: [$($harmless:ident),* $(,)?])?
        $(, unsupported: [$($unsupported:ident),* $(,)?])?
        $(, refuse: [$($refuse:ident),* $(,)?])?
        $(,)?
    }) => {
        let $ty {
            $($read: _,)*
            $($($harmless,)*)?
            $($($unsupported,)*)?
            $($($refuse,)*)?
        } = $message;
        $($(crate::xds::decode::fields::refuse($at, stringify!($refuse), $refuse)?;)*)?
        $($(crate::xds::decode::fields::unsupported($at, stringify!($unsupported), $unsupported);)*)?
        $($(crate::xds::decode::fields::harmless($at, stringify!($harmless), $harmless);)*)?
    };
}

pub(crate) use fields;

use super::{at::At, report::Reject};

fn set<T: Default + PartialEq>(value: &T) -> bool {
    *value != T::default()
}

pub(crate) fn refuse<T: Default + PartialEq>(at: &At<'_>, name: &str, value: &T) -> Result<(), Reject> {
    if set(value) { Err(at.field(plain(name)).reject("is not supported by this release")) } else { Ok(()) }
}

pub(crate) fn unsupported<T: Default + PartialEq>(at: &At<'_>, name: &str, value: &T) {
    if set(value) {
        at.field(plain(name)).unsupported("is not supported by this release and has no effect");
    }
}

pub(crate) fn harmless<T: Default + PartialEq>(at: &At<'_>, name: &str, value: &T) {
    if set(value) {
        at.field(plain(name)).harmless("has no meaning here");
    }
}

/// The field's name without Rust's escape for keywords.
fn plain(name: &str) -> &str {
    name.strip_prefix("r#").unwrap_or(name)
}
