//! How a test runs: on one thread, as a worker would.

use std::{cell::Cell, future::Future, time::Duration};

use tokio::task::LocalSet;

thread_local! {
    static PANICKED: Cell<bool> = const { Cell::new(false) };
}

/// Runs a test on one thread, as a worker would, with a deadline. A panic in any of its tasks fails it.
pub(super) fn run<F: Future<Output = ()>>(test: F) {
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let former = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICKED.set(true);
            former(info);
        }));
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(30), test).await.expect("the test hangs");
    });
    assert!(!PANICKED.get(), "a task panicked");
}

/// Waits for a condition.
pub(super) async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
