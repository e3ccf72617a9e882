//! A histogram of durations with 32 buckets per power of two, so that a quantile is off by 3 % at
//! most.
//!
//! It holds one count per bucket and nothing else: a hundred million durations take as much memory
//! as one.

use std::fmt;

/// Buckets per power of two, as a power of two.
const SUB_BUCKET_BITS: u32 = 5;

/// Enough buckets for every `u64`.
const BUCKET_COUNT: usize = ((64 - SUB_BUCKET_BITS as usize) + 1) << SUB_BUCKET_BITS;

/// Durations in nanoseconds, counted.
#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKET_COUNT],
            total: 0,
            max: 0,
        }
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99] = [0.5, 0.99].map(|share| self.quantile_ms(share));
        write!(f, "{} of p50 {p50:.3} ms, p99 {p99:.3} ms", self.total)
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, ns: u64) {
        self.counts[bucket(ns)] += 1;
        self.total += 1;
        self.max = self.max.max(ns);
    }

    /// The count of durations.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The duration in milliseconds that this share of all stays below; NaN if there are none.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let target = share * self.total as f64;
        let mut below = 0;
        for (index, count) in self.counts.iter().enumerate() {
            below += count;
            if below > 0 && below as f64 >= target {
                return self.max.min(upper(index)) as f64 / 1e6;
            }
        }
        f64::NAN
    }
}

fn bucket(ns: u64) -> usize {
    let power = (u64::BITS - ns.leading_zeros()).saturating_sub(SUB_BUCKET_BITS + 1);
    // Less than twice 32.
    let within = usize::try_from(ns >> power).unwrap_or(0);
    ((power as usize) << SUB_BUCKET_BITS) + within
}

/// The largest duration of a bucket.
fn upper(bucket: usize) -> u64 {
    let power = (bucket >> SUB_BUCKET_BITS).saturating_sub(1);
    let first = bucket - (power << SUB_BUCKET_BITS);
    ((first as u64 + 1) << power).wrapping_sub(1)
}
