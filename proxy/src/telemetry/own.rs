//! A worker's own copies of names that all workers share.
//!
//! Whoever keeps a shared name for the time of a request counts it twice, on a cache line that every worker writes.
//! Invariant: bounded, and what is remembered stays alive, so that no other name ever has its address.

use std::{cell::RefCell, sync::Arc};

/// Names remembered per worker.
const REMEMBERED: usize = 64;

struct Copied {
    shared: Arc<str>,
    own: Arc<str>,
}

thread_local! {
    static COPIES: RefCell<[Option<Copied>; REMEMBERED]> = const { RefCell::new([const { None }; REMEMBERED]) };
}

/// The calling worker's copy of a name.
pub fn own(name: &Arc<str>) -> Arc<str> {
    // A thread that ends has no copies any more.
    COPIES.try_with(|copies| of(&mut copies.borrow_mut(), name)).unwrap_or_else(|_| name.clone())
}

fn of(copies: &mut [Option<Copied>; REMEMBERED], name: &Arc<str>) -> Arc<str> {
    let address = Arc::as_ptr(name).cast::<u8>() as usize;
    let place = &mut copies[((address >> 4) ^ (address >> 10)) % REMEMBERED];
    match place {
        Some(known) if Arc::ptr_eq(&known.shared, name) => known.own.clone(),
        _ => {
            let own: Arc<str> = Arc::from(&**name);
            *place = Some(Copied { shared: name.clone(), own: own.clone() });
            own
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_equal_remembered_and_bounded() {
        let names: Vec<Arc<str>> = (0..1000).map(|n| format!("name-{n}").into()).collect();
        for name in names.iter().chain(&names) {
            let copy = own(name);
            assert!(copy == *name && !Arc::ptr_eq(&copy, name));
            assert!(Arc::ptr_eq(&copy, &own(name)), "asked again at once");
        }
        let kept = names.iter().filter(|name| Arc::strong_count(name) > 1).count();
        assert!((1..=REMEMBERED).contains(&kept), "{kept}");
    }
}
