//! What metrics call a workload, by Istio's rules: the control plane tells it of others, a proxy of itself.

/// Stands for what is not known.
pub const UNKNOWN: &str = "unknown";

/// The value of a label of the Pod.
pub type Labels<'a> = &'a dyn Fn(&str) -> Option<&'a str>;

/// The Deployment, StatefulSet, DaemonSet or Job that a Pod belongs to, as far as its name and labels show it.
pub fn workload(pod: &str, labels: Labels<'_>) -> String {
    if let Some(job) = labels("batch.kubernetes.io/job-name").or_else(|| labels("job-name")) {
        return job.to_owned();
    }
    // Five random characters at the end are all that a controller's generated name adds.
    let cut = |name: &str| match name.rsplit_once('-') {
        Some((owner, end)) if end.len() == 5 && !owner.is_empty() => Some(owner.to_owned()),
        _ => None,
    };
    if let Some(hash) = labels("pod-template-hash") {
        let owner = cut(pod).unwrap_or_else(|| pod.to_owned());
        return owner.strip_suffix(hash).and_then(|name| name.strip_suffix('-')).unwrap_or(&owner).to_owned();
    }
    if labels("statefulset.kubernetes.io/pod-name").is_some() {
        return pod.rsplit_once('-').map_or(pod, |(owner, _)| owner).to_owned();
    }
    if labels("controller-revision-hash").is_some() {
        return cut(pod).unwrap_or_else(|| pod.to_owned());
    }
    pod.to_owned()
}

/// `service.istio.io/canonical-name` and what stands in for it.
pub fn canonical_service(labels: Labels<'_>, workload: &str) -> String {
    let names = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
    names.into_iter().find_map(labels).unwrap_or(workload).to_owned()
}

/// `service.istio.io/canonical-revision` and what stands in for it.
pub fn canonical_revision(labels: Labels<'_>) -> String {
    let names = ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"];
    names.into_iter().find_map(labels).unwrap_or("latest").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_named_after_what_made_it() {
        let of = |pod: &str, labels: &[(&'static str, &'static str)]| {
            workload(pod, &|name| labels.iter().find(|(key, _)| *key == name).map(|(_, value)| *value))
        };
        assert_eq!(of("httpbin-74fb669cc6-x7k2p", &[("pod-template-hash", "74fb669cc6")]), "httpbin");
        assert_eq!(of("odd", &[("pod-template-hash", "74fb669cc6")]), "odd");
        assert_eq!(of("db-2", &[("statefulset.kubernetes.io/pod-name", "db-2")]), "db");
        assert_eq!(of("agent-x7k2p", &[("controller-revision-hash", "1")]), "agent");
        assert_eq!(of("import-28-x7k2p", &[("job-name", "import-28")]), "import-28");
        assert_eq!(of("client", &[("app", "client")]), "client");
    }

    #[test]
    fn canonical_names_fall_back() {
        fn app<'a>(name: &str) -> Option<&'a str> {
            (name == "app").then_some("shop")
        }
        assert_eq!(canonical_service(&app, "w"), "shop");
        assert_eq!(canonical_service(&|_| None, "w"), "w");
        assert_eq!(canonical_revision(&|name| (name == "version").then_some("v2")), "v2");
        assert_eq!(canonical_revision(&|_| None), "latest");
    }
}
