//! Equal parts of a configuration as one object: what thousands of services have in common is kept once.
//!
//! Remembers per thread the few values of a type that were made last, and only as long as somebody else holds them.
//! Configuration is made by one generator for one service after the other, so that is where the equal ones are.

use std::{
    any::{Any, TypeId},
    cell::RefCell,
    collections::HashMap,
    sync::{Arc, Weak},
};

/// Values remembered of each type.
const RECENT: usize = 8;

type Recent = HashMap<TypeId, Vec<Weak<dyn Any + Send + Sync>>>;

thread_local! {
    static VALUES: RefCell<Recent> = RefCell::default();
}

/// `value`, or an equal one that was shared a moment ago.
pub fn share<T: Eq + Send + Sync + 'static>(value: T) -> Arc<T> {
    VALUES.with_borrow_mut(|values| {
        let recent = values.entry(TypeId::of::<T>()).or_default();
        recent.retain(|weak| weak.strong_count() > 0);
        let found = recent.iter().enumerate().find_map(|(at, weak)| {
            let held = weak.upgrade()?.downcast::<T>().ok()?;
            (*held == value).then_some((at, held))
        });
        if let Some((at, held)) = found {
            // The last one is forgotten first.
            recent[..=at].rotate_right(1);
            return held;
        }
        let made = Arc::new(value);
        recent.truncate(RECENT - 1);
        let erased: Arc<dyn Any + Send + Sync> = made.clone();
        recent.insert(0, Arc::downgrade(&erased));
        made
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_object_while_somebody_holds_it() {
        let first = share(String::from("a"));
        assert!(Arc::ptr_eq(&first, &share(String::from("a"))));
        assert!(!Arc::ptr_eq(&first, &share(String::from("b"))));
        // One that is used again and again stays known, however many others come.
        for i in 0..100 {
            drop(share(format!("other-{i}")));
            assert!(Arc::ptr_eq(&first, &share(String::from("a"))));
        }
        let others: Vec<_> = (0..RECENT).map(|i| share(format!("held-{i}"))).collect();
        assert!(!Arc::ptr_eq(&first, &share(String::from("a"))), "bounded");
        drop(others);
        let weak = Arc::downgrade(&first);
        drop(first);
        assert!(weak.upgrade().is_none(), "nothing is kept for its own sake");
    }
}
