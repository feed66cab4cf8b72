//! `previous_priorities`: what each priority takes of a retry, when those that were tried take nothing.
//!
//! Envoy's arithmetic. Refuses to know hosts: what was tried comes as priorities.

use super::load::Loads;

/// Where the tries of a request went.
#[derive(Clone, Copy, Debug)]
pub struct Tried<'a> {
    /// The priority of each try's host, in order; `None` of a host that is no longer there.
    pub priorities: &'a [Option<u32>],
    /// After how many tries, each time, the shares are worked out anew; not 0.
    pub update_frequency: u32,
}

impl Tried<'_> {
    /// The shares for the next try; `None`: as for a first one. `ranks` are the cluster's priorities in order.
    pub(super) fn loads(&self, loads: &Loads, ranks: &[u32]) -> Option<Loads> {
        let every = (self.update_frequency as usize).max(1);
        let mut left_out = vec![false; ranks.len()];
        let mut since_reset = Vec::new();
        let mut found = None;
        for priority in self.priorities {
            since_reset.push(priority.and_then(|p| ranks.binary_search(&p).ok()));
            if since_reset.len() % every != 0 {
                continue;
            }
            since_reset.iter().flatten().for_each(|rank| left_out[*rank] = true);
            found = loads.without(&left_out);
            if found.is_none() {
                // All were tried: from the beginning.
                left_out.fill(false);
                since_reset.clear();
                found = loads.without(&left_out);
            }
        }
        found.filter(|_| since_reset.len() >= every || since_reset.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::load::{Availability, Loads},
        *,
    };

    /// Healthy percent per priority, priorities tried, shares of healthy hosts for the next try.
    fn next(healthy: &[usize], tried: &[u32], update_frequency: u32) -> Option<Vec<u32>> {
        let priorities: Vec<Option<u32>> = tried.iter().copied().map(Some).collect();
        let availability: Vec<_> =
            healthy.iter().map(|h| Availability { hosts: 100, healthy: *h, degraded: 0, draining: 0 }).collect();
        let ranks: Vec<u32> = (0..healthy.len() as u32).map(|rank| 10 * rank).collect();
        let loads = Loads::new(&availability, 140, 0);
        Tried { priorities: &priorities, update_frequency }.loads(&loads, &ranks).map(|loads| loads.healthy)
    }

    #[test]
    fn each_retry_leaves_what_was_tried() {
        let all = [100, 100, 100];
        assert_eq!(next(&all, &[], 1), None);
        assert_eq!(next(&all, &[0], 1), Some(vec![0, 100, 0]));
        assert_eq!(next(&all, &[0, 10], 1), Some(vec![0, 0, 100]));
        assert_eq!(next(&all, &[0, 10, 20], 1), Some(vec![100, 0, 0]), "then from the beginning");
        assert_eq!(next(&all, &[0, 10, 20, 0], 1), Some(vec![0, 100, 0]));
        assert_eq!(next(&all, &[10], 1), Some(vec![100, 0, 0]));
    }

    #[test]
    fn shares_change_as_often_as_configured() {
        let all = [100, 100, 100];
        assert_eq!(next(&all, &[0], 2), None);
        assert_eq!(next(&all, &[0, 0], 2), Some(vec![0, 100, 0]));
        assert_eq!(next(&all, &[0, 0, 10], 2), Some(vec![0, 100, 0]), "as it was worked out last");
        assert_eq!(next(&all, &[0, 0, 10, 10], 2), Some(vec![0, 0, 100]));
        assert_eq!(next(&all, &[0, 10], 2), Some(vec![0, 0, 100]), "both");
    }

    #[test]
    fn health_still_counts() {
        // What is left is too little for all: it is scaled up, and rounding is not lost.
        assert_eq!(next(&[100, 30, 30], &[0], 1), Some(vec![0, 50, 50]));
        assert_eq!(next(&[100, 5, 65], &[0], 1), Some(vec![0, 8, 92]));
        assert_eq!(next(&[100, 0], &[0], 1), Some(vec![100, 0]), "nobody else is there");
        assert_eq!(next(&[0, 0], &[0], 1), None, "nobody at all");
        let gone = Tried { priorities: &[None, Some(77)], update_frequency: 1 };
        let loads = Loads::new(&[Availability { hosts: 1, healthy: 1, degraded: 0, draining: 0 }; 2], 140, 0);
        assert_eq!(gone.loads(&loads, &[0, 1]).unwrap().healthy, [100, 0], "hosts that are gone had no priority");
    }
}
