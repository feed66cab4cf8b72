use std::{
    pin::pin,
    sync::Mutex,
    task::{Context, Wake},
};

use super::*;
use crate::{
    drain::{Signal, Source},
    live::{
        Resolved,
        testing::{builder, cluster, snapshot, statics, tcp_listener},
    },
};

thread_local!(static READER: RefCell<Option<Reader>> = const { RefCell::new(None) });

/// Which version a worker sees in the moment in which its connections hear of new filters.
#[derive(Default)]
struct Seen(Mutex<Vec<u64>>);

impl Wake for Seen {
    fn wake(self: Arc<Self>) {
        let version = READER.with_borrow(|reader| reader.as_ref().unwrap().get().version);
        self.0.lock().unwrap().push(version);
    }
}

#[test]
fn who_hears_of_new_filters_sees_what_they_refer_to() {
    let (builder, publisher) = (builder(), Arc::new(Publisher::default()));
    let publish = |version, rest: &str| {
        let listener = tcp_listener("l", "127.0.0.1", 1, "c", "").replace("filters: [", &format!("filters: [{rest}"));
        let next = snapshot(version, &statics(&[listener], &[cluster("c", ([127, 0, 0, 1], 1).into())]));
        let (live, problems) = builder.build(&next, &Resolved::default(), &publisher.current());
        assert_eq!(problems, []);
        publisher.publish(Arc::new(live));
    };
    publish(1, "");
    READER.set(Some(Reader::new(publisher.clone())));
    let chain = publisher.current().listeners["l"].chains[0].clone();
    let mut signal = Signal::new(&Source::default(), &chain.drain);
    let seen = Arc::<Seen>::default();
    let waker = seen.clone().into();
    let mut forced = pin!(signal.forced());
    assert!(forced.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    publish(
        2,
        "{name: r, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, \
         stat_prefix: t, rules: {action: DENY}}}, ",
    );
    assert_eq!(*seen.0.lock().unwrap(), [2]);
    READER.set(None);
}
