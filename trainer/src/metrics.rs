//! How good scores are: average precision, and the baseline that knows label frequencies only.
//!
//! In: scores and labels on the host. Out: numbers. Never: a tensor, a file.

use serde::{Deserialize, Serialize};

/// Average precision exactly as scikit-learn computes it:
/// `Σ over distinct scores, falling, of (recall − recall before) × precision`.
///
/// Rows with one score enter together, so their order does not matter; no interpolation. `None`
/// without a positive (scikit-learn gives 0 and warns).
///
/// # Panics
///
/// If the two differ in length, or a score is NaN.
pub fn average_precision(scores: &[f32], positives: &[bool]) -> Option<f64> {
    assert_eq!(scores.len(), positives.len(), "one score for each row");
    assert!(scores.iter().all(|score| !score.is_nan()), "scores are numbers");
    let num_positives = positives.iter().filter(|&&positive| positive).count();
    if num_positives == 0 {
        return None;
    }
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    order.sort_unstable_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
    let (mut hits, mut hits_before, mut sum) = (0_usize, 0_usize, 0.0);
    for (at, &row) in order.iter().enumerate() {
        hits += usize::from(positives[row as usize]);
        let next = order.get(at + 1).map(|&next| scores[next as usize]);
        // −0 and +0 are sorted apart and are one score.
        if next != Some(scores[row as usize]) {
            let precision = hits as f64 / (at + 1) as f64;
            sum += (hits - hits_before) as f64 / num_positives as f64 * precision;
            hits_before = hits;
        }
    }
    Some(sum)
}

/// Average precision over all labels at once (micro): every pair of a row and a label is ranked
/// among all pairs, as scikit-learn does with `average="micro"`.
///
/// Only the scores of positives are kept; the others are counted between them.
#[derive(Clone, Debug)]
pub struct MicroPrecision {
    /// Scores of the positive pairs, rising.
    positives: Vec<f32>,
    /// Pairs whose score is at least that of so many positives.
    above: Vec<u64>,
}

impl MicroPrecision {
    /// Begins with the scores of all positive pairs.
    pub fn new(mut positives: Vec<f32>) -> Self {
        positives.sort_unstable_by(f32::total_cmp);
        Self { above: vec![0; positives.len() + 1], positives }
    }

    /// Takes in scores of pairs, positive or not.
    pub fn add(&mut self, scores: &[f32]) {
        for &score in scores {
            self.above[self.positives.partition_point(|&positive| positive <= score)] += 1;
        }
    }

    /// The average precision over all that was taken in; `None` without a positive.
    pub fn finish(&self) -> Option<f64> {
        let count = self.positives.len();
        let (mut pairs, mut sum, mut end, mut seen) = (0, 0.0, count, count + 1);
        while end > 0 {
            // The positives of one score enter together, and the pairs that are not below it.
            let score = self.positives[end - 1];
            let start = self.positives[..end].partition_point(|&positive| positive < score);
            pairs += self.above[end..seen].iter().sum::<u64>();
            seen = end;
            let hits = count - start;
            sum += (end - start) as f64 / count as f64 * hits as f64 / pairs.max(1) as f64;
            end = start;
        }
        (count > 0).then_some(sum)
    }
}

/// How often each label occurs among the rows of the training set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelPriors {
    /// Rows of the training set.
    pub rows: u64,
    /// Rows that have each label.
    pub positives: Vec<u64>,
}

impl LabelPriors {
    /// No row yet.
    pub fn none(num_labels: usize) -> Self {
        Self { rows: 0, positives: vec![0; num_labels] }
    }

    /// Counts the labels of one row, which are unique.
    ///
    /// # Panics
    ///
    /// If a label is not below the number of labels.
    pub fn add(&mut self, labels: &[u32]) {
        self.rows += 1;
        labels.iter().for_each(|&label| self.positives[label as usize] += 1);
    }

    /// `ln(p ÷ (1 − p))` of each label. A label of no row, or of every row, counts for half a row,
    /// so that no logit is infinite.
    pub fn logits(&self) -> Vec<f64> {
        let rows = (self.rows as f64).max(1.0);
        self.positives
            .iter()
            .map(|&positives| (positives as f64).clamp(0.5, rows - 0.5))
            .map(|positives| (positives / (rows - positives)).ln())
            .collect()
    }

    /// The labels by falling frequency, ties by rising id.
    pub fn ranked(&self) -> Vec<usize> {
        let mut labels: Vec<usize> = (0..self.positives.len()).collect();
        labels.sort_by_key(|&label| std::cmp::Reverse(self.positives[label]));
        labels
    }

    /// Binary cross-entropy per row of these logits, the same for every row, on other rows:
    /// `positives` of `rows` have each label.
    pub fn bce_on(&self, positives: &[u64], rows: u64) -> f64 {
        let rows = rows as f64;
        let labels = self.logits().into_iter().zip(positives);
        labels.map(|(z, &positives)| softplus(z) - positives as f64 / rows * z).sum()
    }
}

/// `ln(1 + eᶻ)` without overflow.
fn softplus(z: f64) -> f64 {
    z.max(0.0) + (-z.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, by counting for every distinct score.
    fn by_definition(scores: &[f32], positives: &[bool]) -> f64 {
        let mut thresholds = scores.to_vec();
        thresholds.sort_by(|a, b| b.total_cmp(a));
        thresholds.dedup();
        let total = positives.iter().filter(|p| **p).count() as f64;
        let (mut sum, mut recall_before) = (0.0, 0.0);
        for threshold in thresholds {
            let taken = scores.iter().zip(positives).filter(|(s, _)| **s >= threshold);
            let hits = taken.clone().filter(|(_, p)| **p).count() as f64;
            sum += (hits / total - recall_before) * hits / taken.count() as f64;
            recall_before = hits / total;
        }
        sum
    }

    proptest! {
        #[test]
        fn micro_precision_is_that_of_all_pairs_in_one_list(
            pairs in prop::collection::vec((-4_i8..4, any::<bool>()), 1..60)
        ) {
            let scores: Vec<f32> = pairs.iter().map(|(score, _)| f32::from(*score)).collect();
            let positives: Vec<bool> = pairs.iter().map(|(_, positive)| *positive).collect();
            let of_positives = pairs.iter().filter(|(_, p)| *p).map(|(s, _)| f32::from(*s));
            let mut micro = MicroPrecision::new(of_positives.collect());
            let middle = scores.len() / 2;
            micro.add(&scores[..middle]);
            micro.add(&scores[middle..]);
            match (micro.finish(), average_precision(&scores, &positives)) {
                (Some(found), Some(expected)) => prop_assert!((found - expected).abs() < 1e-12),
                (found, expected) => prop_assert_eq!(found, expected),
            }
        }
    }

    #[derive(Deserialize)]
    struct Case {
        name: String,
        scores: Vec<f32>,
        positives: Vec<bool>,
        value: f64,
    }

    #[test]
    fn average_precision_is_that_of_scikit_learn() {
        let golden = include_str!("../golden/average_precision.json");
        let cases: Vec<Case> = serde_json::from_str(golden).unwrap();
        assert_eq!(cases.len(), 10);
        for case in cases {
            let found = average_precision(&case.scores, &case.positives).unwrap();
            assert!((found - case.value).abs() < 1e-12, "{}: {found} {}", case.name, case.value);
        }
    }

    proptest! {
        #[test]
        fn average_precision_is_its_definition_also_with_ties(
            rows in prop::collection::vec((0_u8..12, any::<bool>()), 1..60)
        ) {
            let scores: Vec<f32> = rows.iter().map(|row| f32::from(row.0) - 6.0).collect();
            let positives: Vec<bool> = rows.iter().map(|row| row.1).collect();
            match average_precision(&scores, &positives) {
                Some(found) => {
                    let expected = by_definition(&scores, &positives);
                    prop_assert!((found - expected).abs() < 1e-12);
                }
                None => prop_assert!(!positives.contains(&true)),
            }
        }
    }

    #[test]
    fn a_constant_score_has_the_prevalence() {
        let positives = [true, false, false, false];
        assert_eq!(average_precision(&[0.3; 4], &positives), Some(0.25));
        assert_eq!(average_precision(&[0.0, -0.0, 0.0, -0.0], &positives), Some(0.25));
    }

    #[test]
    fn priors_have_the_logits_of_their_frequencies() {
        let mut priors = LabelPriors::none(3);
        let rows: [&[u32]; 4] = [&[0, 1], &[0], &[0], &[0]];
        rows.iter().for_each(|labels| priors.add(labels));
        assert_eq!(priors, LabelPriors { rows: 4, positives: vec![4, 1, 0] });
        let [all, quarter, none] = priors.logits()[..] else { unreachable!() };
        assert!((quarter - (1.0_f64 / 3.0).ln()).abs() < 1e-12);
        assert!((all - 7.0_f64.ln()).abs() < 1e-12 && (all + none).abs() < 1e-12);
        assert_eq!(priors.ranked(), [0, 1, 2]);
    }

    #[test]
    fn the_baseline_on_its_own_rows_has_the_entropy_of_the_labels() {
        let priors = LabelPriors { rows: 8, positives: vec![2, 4] };
        let entropy = |p: f64| -p * p.ln() - (1.0 - p) * (1.0 - p).ln();
        let expected = entropy(0.25) + entropy(0.5);
        assert!((priors.bce_on(&[2, 4], 8) - expected).abs() < 1e-12);
    }
}
