//! Token buckets. Must never read the clock.

use std::time::{Duration, Instant};

/// How much may be done now: a burst at once, and then at a rate.
#[derive(Debug)]
pub struct Allowance {
    burst: f64,
    per_second: f64,
    left: f64,
    at: Instant,
}

impl Allowance {
    /// All of the burst is left.
    pub fn full(burst: f64, per_second: f64, now: Instant) -> Allowance {
        Allowance { burst, per_second, left: burst, at: now }
    }

    /// Takes one if there is one.
    pub fn take_now(&mut self, now: Instant) -> bool {
        self.gain(now);
        let is_there = self.left >= 1.0;
        if is_there {
            self.left -= 1.0;
        }
        is_there
    }

    /// Takes one, and says how long to wait for it.
    pub fn take(&mut self, now: Instant) -> Duration {
        self.gain(now);
        self.left -= 1.0;
        Duration::from_secs_f64((-self.left).max(0.0) / self.per_second)
    }

    fn gain(&mut self, now: Instant) {
        let gained = now.duration_since(self.at).as_secs_f64() * self.per_second;
        self.left = (self.left + gained).min(self.burst);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_at_once_and_the_rest_at_a_rate() {
        let now = Instant::now();
        let mut allowance = Allowance::full(300.0, 10.0, now);
        assert!((0..300).all(|_| allowance.take(now).is_zero()));
        let waited = (0..10).map(|_| allowance.take(now)).last().unwrap();
        assert!((waited.as_secs_f64() - 1.0).abs() < 0.001, "{waited:?}");
    }

    #[test]
    fn who_does_not_wait_is_refused_until_there_is_one_again() {
        let now = Instant::now();
        let mut allowance = Allowance::full(2.0, 10.0, now);
        assert_eq!([(); 3].map(|()| allowance.take_now(now)), [true, true, false]);
        let later = now + Duration::from_millis(150);
        assert_eq!([(); 2].map(|()| allowance.take_now(later)), [true, false]);
    }
}
