//! Normalisation of paths: done twice it changes nothing, and nothing that is left means something else to a server.

use std::cell::RefCell;

use outrigger_proxy::{
    ir::http::{ConnectionManager, EscapedSlashes},
    live::LiveTerminal,
    policy::path::{Normalized, normalize},
};

use super::fixture;

thread_local! {
    static MANAGER: RefCell<Option<ConnectionManager>> = const { RefCell::new(None) };
}

const ACTIONS: [EscapedSlashes; 4] = [
    EscapedSlashes::Keep,
    EscapedSlashes::Reject,
    EscapedSlashes::UnescapeAndForward,
    EscapedSlashes::UnescapeAndRedirect,
];

pub(super) fn run(data: &[u8]) {
    let Some((&options, path)) = data.split_first() else { return };
    let Ok(path) = std::str::from_utf8(path) else { return };
    MANAGER.with_borrow_mut(|manager| {
        let manager = manager.get_or_insert_with(manager_of_fixture);
        manager.normalize_path = options & 1 != 0;
        manager.merge_slashes = options & 2 != 0;
        manager.escaped_slashes = ACTIONS[usize::from(options >> 2 & 3)];
        check(manager, path);
    });
}

fn check(manager: &ConnectionManager, path: &str) {
    let changed = match normalize(manager, path) {
        Normalized::Unchanged => path.to_owned(),
        Normalized::Changed(changed) => changed.into_owned(),
        Normalized::Redirect(to) => {
            assert_eq!(manager.escaped_slashes, EscapedSlashes::UnescapeAndRedirect);
            to
        }
        Normalized::Rejected => return,
    };
    let rest = |whole: &str| whole.find(['?', '#']).map(|at| whole[at..].to_owned()).unwrap_or_default();
    assert_eq!(rest(&changed), rest(path), "the query is not the path's");
    if !path.starts_with('/') {
        return assert_eq!(changed, path);
    }
    let bare = changed.split(['?', '#']).next().unwrap_or_default();
    assert!(bare.starts_with('/'), "{bare:?} is no path");
    if manager.normalize_path {
        let dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
        assert!(!bare.split('/').any(dots), "{bare:?} has dot segments");
        assert!(!bare.contains('\\'), "{bare:?} has backslashes");
    }
    if manager.merge_slashes {
        assert!(!bare.contains("//"), "{bare:?} has slashes to merge");
    }
    match normalize(manager, &changed) {
        Normalized::Unchanged => {}
        again => panic!("{path:?} became {changed:?}, and that {again:?}"),
    }
}

fn manager_of_fixture() -> ConnectionManager {
    let live = fixture::live(include_str!("../proxy.yaml"));
    let chain = &live.listener("plain").expect("the fixture has it").chains[0];
    let LiveTerminal::Http(manager) = &chain.terminal else { panic!("a chain of the fixture is for HTTP") };
    (*manager.config).clone()
}
