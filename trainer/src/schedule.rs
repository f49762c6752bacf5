//! The learning rate of each step: linear warm-up, then half a cosine or a plateau and a fall.
//!
//! In: the step, from 0. Out: the rate, rounded to eight decimals as the reference does.
//! Never: keeps state.

/// How the rate falls after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fall {
    /// Half a cosine from the warm-up to the end: CatLIP's.
    Cosine,
    /// Constant, then 1 − √ over the last steps (WSD; Hägele et al., arXiv 2405.18392): a run can
    /// be prolonged from any checkpoint of its plateau.
    LastSteps(u64),
}

/// Rates and lengths of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Rate of step 0 of the warm-up.
    pub warmup_start: f64,
    /// Rate at the end of the warm-up.
    pub lr_max: f64,
    /// Rate at the end.
    pub lr_min: f64,
    /// How it comes from the one to the other.
    pub fall: Fall,
    /// Steps of warm-up.
    pub warmup_steps: u64,
    /// Steps of the run.
    pub steps: u64,
}

impl Schedule {
    /// The rate of `step`, counted from 0.
    ///
    /// After the warm-up of w among s steps the cosine is
    /// `min + ½ (max − min) (1 + cos(π (step − w) ÷ (s − w)))`.
    /// The reference takes 200,001 steps with w = 10,000, so its divisor is 190,001. The fall over
    /// the last d steps is `min + (max − min) (1 − √((step − (s − d)) ÷ d))`.
    pub fn lr(&self, step: u64) -> f64 {
        let rate = if step < self.warmup_steps {
            let rise = (self.lr_max - self.warmup_start) / self.warmup_steps as f64;
            self.warmup_start + step as f64 * rise
        } else {
            let begin = match self.fall {
                Fall::Cosine => self.warmup_steps,
                Fall::LastSteps(last) => self.warmup_steps.max(self.steps.saturating_sub(last)),
            };
            let period = self.steps.saturating_sub(begin).max(1) as f64;
            let part = (step.saturating_sub(begin) as f64 / period).min(1.0);
            let left = match self.fall {
                Fall::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * part).cos()),
                Fall::LastSteps(_) => 1.0 - part.sqrt(),
            };
            self.lr_min + (self.lr_max - self.lr_min) * left
        };
        (rate.max(0.0) * 1e8).round() / 1e8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference's pre-training of ViT-B; its loop runs while the iteration is ≤ 200,000.
    const BASE: Schedule = Schedule {
        warmup_start: 1e-6,
        lr_max: 1e-3,
        lr_min: 1e-5,
        fall: Fall::Cosine,
        warmup_steps: 10_000,
        steps: 200_001,
    };

    #[test]
    fn warm_up_is_linear_from_its_start() {
        assert_eq!(BASE.lr(0), 1e-6);
        assert_eq!(BASE.lr(5_000), 0.000_500_5);
        assert_eq!(BASE.lr(9_999), 0.000_999_9);
    }

    #[test]
    fn the_cosine_falls_from_the_highest_to_the_lowest_rate() {
        assert_eq!(BASE.lr(10_000), 1e-3);
        assert_eq!(BASE.lr(105_000), 0.000_505);
        assert_eq!(BASE.lr(200_000), 1e-5);
        assert_eq!(BASE.lr(57_500), 0.000_855_02);
    }

    #[test]
    fn the_plateau_lasts_until_the_last_steps_fall() {
        let wsd = Schedule { fall: Fall::LastSteps(40_000), ..BASE };
        assert_eq!([wsd.lr(10_000), wsd.lr(160_001)], [1e-3, 1e-3]);
        assert_eq!(wsd.lr(170_001), 0.000_505);
        assert_eq!(wsd.lr(200_001), 1e-5);
    }

    #[test]
    fn rates_are_rounded_to_eight_decimals() {
        assert_eq!(BASE.lr(1), 0.000_001_1);
    }

    #[test]
    fn a_run_shorter_than_its_warm_up_still_has_rates() {
        let short = Schedule { steps: 5, warmup_steps: 10, ..BASE };
        assert!(short.lr(4) < short.lr_max);
        assert_eq!(short.lr(10), short.lr_max);
    }
}
