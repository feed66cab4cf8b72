//! The Bookinfo sample in meshed Pods, with the timeouts that its programs have built in: pages depend on them.

use std::{net::IpAddr, time::Duration};

use outrigger_tests::{Member, Mesh, Pod, Workload};

use super::{
    apps::{App, Message, ask_within, get},
    join,
    kubectl::{published, stage},
};

const PORT: u16 = 9080;
/// What productpage waits for one answer; it asks for reviews twice.
const PRODUCTPAGE_PATIENCE: Duration = Duration::from_secs(3);
/// What reviews waits for ratings.
const REVIEWS_PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Bookinfo {
    // The Pods go before the mesh, in whose folder their logs are.
    _apps: Vec<App>,
    /// productpage, details, reviews v1 to v3, ratings.
    pub(crate) workloads: [Workload; 6],
    pub(crate) visitor: Pod,
    pub(crate) mesh: Mesh,
}

fn address(service: &str) -> IpAddr {
    let last = match service {
        "productpage" => 10,
        "details" => 11,
        "reviews" => 12,
        _ => 13,
    };
    IpAddr::from([10, 96, 0, last])
}

/// A call of one of the applications to another, for a user.
fn call(pod: &Pod, service: &str, user: &str, patience: Duration) -> Message {
    let headers: &[(&str, &str)] = if user.is_empty() { &[] } else { &[("end-user", user)] };
    let to = ((address(service), PORT).into(), &*format!("{service}:{PORT}"));
    ask_within(pod, to, ("GET", &format!("/{service}/0")), headers, patience)
}

fn productpage(pod: &Pod, request: &Message) -> Message {
    // Whoever signed in comes with a session; the user's name goes along with all calls.
    let user = request.header("cookie").strip_prefix("user=").unwrap_or_default();
    let details = call(pod, "details", user, PRODUCTPAGE_PATIENCE);
    let details = if details.status() == 200 { details.body } else { "Error fetching product details!".to_owned() };
    let mut reviews = call(pod, "reviews", user, PRODUCTPAGE_PATIENCE);
    if reviews.status() != 200 {
        reviews = call(pod, "reviews", user, PRODUCTPAGE_PATIENCE);
    }
    let reviews = if reviews.status() == 200 { reviews.body } else { "Error fetching product reviews!".to_owned() };
    Message::answer(200, format!("{details}\n{reviews}\n"))
}

fn reviews(pod: &Pod, version: &str, request: &Message) -> Message {
    let stars = match version {
        "v1" => return Message::answer(200, "reviews-v1"),
        "v2" => "black stars",
        _ => "red stars",
    };
    let ratings = call(pod, "ratings", request.header("end-user"), REVIEWS_PATIENCE);
    let stars = if ratings.status() == 200 { stars } else { "Ratings service is currently unavailable" };
    Message::answer(200, format!("reviews-{version}, {stars}"))
}

impl Bookinfo {
    /// Everything runs, nothing but the default destination rules is applied.
    pub(crate) fn start() -> Self {
        let mut mesh = Mesh::start(&[]);
        stage(&mesh, "default", &published("bookinfo.yaml"));
        let member = |name, service_account, labels| Member { service_account, ..Member::new(name, labels) };
        let workloads = join(
            &mut mesh,
            [
                member("productpage-v1", "bookinfo-productpage", &[("app", "productpage"), ("version", "v1")]),
                member("details-v1", "bookinfo-details", &[("app", "details"), ("version", "v1")]),
                member("reviews-v1", "bookinfo-reviews", &[("app", "reviews"), ("version", "v1")]),
                member("reviews-v2", "bookinfo-reviews", &[("app", "reviews"), ("version", "v2")]),
                member("reviews-v3", "bookinfo-reviews", &[("app", "reviews"), ("version", "v3")]),
                member("ratings-v1", "bookinfo-ratings", &[("app", "ratings"), ("version", "v1")]),
            ],
        );
        let [page, details, v1, v2, v3, ratings] = workloads.each_ref().map(|w| w.pod.clone());
        let mut apps = vec![
            App::http(&details, PORT, |_| Message::answer(200, "Book Details")),
            App::http(&ratings, PORT, |_| Message::answer(200, "five")),
            App::http(&page.clone(), PORT, move |request| productpage(&page, request)),
        ];
        for (version, pod) in [("v1", v1), ("v2", v2), ("v3", v3)] {
            apps.push(App::http(&pod.clone(), PORT, move |request| reviews(&pod, version, request)));
        }
        let visitor = mesh.outsider("visitor");
        mesh.settle();
        Self { _apps: apps, workloads, visitor, mesh }
    }

    /// The product page as somebody sees it; nobody in particular without a name.
    pub(crate) fn page(&self, user: &str) -> String {
        let cookie = format!("user={user}");
        let headers: &[(&str, &str)] = if user.is_empty() { &[] } else { &[("cookie", &cookie)] };
        let address = (IpAddr::from(self.workloads[0].pod.ip4), PORT);
        get(&self.visitor, address, "productpage:9080", "/productpage", headers).body
    }

    /// Which version of reviews somebody sees in each of some loads of the page.
    pub(crate) fn versions(&self, user: &str, loads: usize) -> Vec<&'static str> {
        let version = |page: String| {
            let seen = ["v1", "v2", "v3"].into_iter().find(|v| page.contains(&format!("reviews-{v}")));
            seen.unwrap_or_else(|| panic!("no reviews: {page}"))
        };
        (0..loads).map(|_| version(self.page(user))).collect()
    }

    pub(crate) fn assert_sound(&mut self) {
        self.workloads.iter_mut().for_each(Workload::assert_sound);
        self.mesh.assert_no_refusals();
    }
}
