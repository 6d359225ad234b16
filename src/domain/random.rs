//! Luck, from a seed: the same seed draws the same numbers on every machine.

use core::time::Duration;

/// `SplitMix64` (Steele, Lea, Flood 2014): one word of state, good enough to keep elections apart.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    #[expect(clippy::should_implement_trait, reason = "it never ends, and is no iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Something up to and with `most`: full jitter.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX - 1).min(u64::MAX - 1);
        Duration::from_nanos(self.next() % (most + 1))
    }

    /// Something from `least` up to, not including, twice `least`.
    pub(crate) fn once_to_twice(&mut self, least: Duration) -> Duration {
        let span = u64::try_from(least.as_nanos()).unwrap_or(u64::MAX);
        // Where there is nothing to choose from nothing is drawn: cores that differ in their luck alone stay equal.
        if span <= 1 { least } else { least + Duration::from_nanos(self.next() % span) }
    }
}
