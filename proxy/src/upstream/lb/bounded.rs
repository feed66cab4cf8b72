//! Bounded loads: a host with more than its share of the requests in flight passes keys on.
//!
//! The order in which others are asked is a shuffle that the key seeds, by the same generator as in Envoy: keys of one
//! busy host spread over all others, and each key over the same ones again.

/// The load of a host in relation to what it may have: above 1 it is overloaded.
pub(super) fn load(active: u32, total: u64, weight: f64, factor: u32) -> f64 {
    let slots = (total.saturating_add(1).saturating_mul(u64::from(factor)).saturating_add(99) / 100) as f64;
    f64::from(active) / (slots * weight).ceil().max(1.0)
}

/// `host`, or the first of the key's order that is not overloaded, or the one that is least. `hosts` are in ascending
/// order, as they are in an assignment.
pub(super) fn choose(hash: u64, host: u32, (hosts, weights): (&[u32], &[f64]), load: &dyn Fn(u32, f64) -> f64) -> u32 {
    let own = hosts.binary_search(&host).map_or(0.0, |at| weights[at]);
    let mut best = (host, load(host, own));
    if best.1 <= 1.0 {
        return host;
    }
    let mut random = Mersenne::new(hash as u32);
    let mut order: Vec<u32> = (0..hosts.len() as u32).collect();
    for i in 0..order.len() {
        let other = i + random.below((order.len() - i) as u32) as usize;
        order.swap(i, other);
        let at = order[i] as usize;
        if hosts[at] == host {
            continue;
        }
        let this = load(hosts[at], weights[at]);
        if this <= 1.0 {
            return hosts[at];
        }
        if this < best.1 {
            best = (hosts[at], this);
        }
    }
    best.0
}

/// MT19937.
struct Mersenne {
    state: Box<[u32; 624]>,
    next: usize,
}

impl Mersenne {
    fn new(seed: u32) -> Self {
        let mut state = Box::new([seed; 624]);
        for i in 1..624u32 {
            let before = state[i as usize - 1];
            state[i as usize] = 1_812_433_253u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(i);
        }
        Self { state, next: 624 }
    }

    fn draw(&mut self) -> u32 {
        if self.next == 624 {
            for i in 0..624 {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % 624] & 0x7FFF_FFFF);
                let odd = if y & 1 == 1 { 0x9908_B0DF } else { 0 };
                self.state[i] = self.state[(i + 397) % 624] ^ (y >> 1) ^ odd;
            }
            self.next = 0;
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9D2C_5680;
        y ^= (y << 15) & 0xEFC6_0000;
        y ^ (y >> 18)
    }

    /// Uniform over `0..n` (n > 0).
    fn below(&mut self, n: u32) -> u32 {
        loop {
            let x = (u64::from(self.draw()) / ((1 << 32) / u64::from(n))) as u32;
            if x < n {
                return x;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_standard_one() {
        let mut random = Mersenne::new(5489);
        let last = (0..10_000).map(|_| random.draw()).last();
        assert_eq!(last, Some(4_123_659_995), "the 10000th value that the C++ standard requires");
    }

    #[test]
    fn overload_passes_on_in_the_order_of_the_key() {
        let hosts: Vec<u32> = (10..16).collect();
        let weights = [1.0 / 6.0; 6];
        let calm = |_: u32, _: f64| 1.0;
        assert_eq!(choose(7, 12, (&hosts, &weights), &calm), 12);
        let busy = |host: u32, _: f64| if host == 12 { 1.5 } else { 0.5 };
        let others: Vec<u32> = (0..200).map(|hash| choose(hash, 12, (&hosts, &weights), &busy)).collect();
        assert!(others.iter().all(|h| *h != 12));
        assert!((10..16).filter(|h| *h != 12).all(|h| others.contains(&h)), "spread over all others: {others:?}");
        assert_eq!(others, (0..200).map(|hash| choose(hash, 12, (&hosts, &weights), &busy)).collect::<Vec<_>>());
        let all = |host: u32, _: f64| f64::from(host);
        assert_eq!(choose(7, 12, (&hosts, &weights), &all), 10, "the least overloaded");
    }

    #[test]
    fn shares_follow_the_weight() {
        assert!(load(3, 9, 0.25, 100) <= 1.0, "10 slots, a quarter of them, rounded up");
        assert!(load(4, 9, 0.25, 100) > 1.0);
        assert!(load(1, 0, 1e-9, 100) <= 1.0, "everybody may have one");
        assert!(load(u32::MAX, u64::MAX, 1.0, u32::MAX).is_finite());
    }
}
