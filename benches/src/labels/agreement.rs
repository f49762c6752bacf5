//! Whether captions of one image get the same labels.
//!
//! In: the labels of the captions of many images. Out: their agreement beyond chance, and the bits
//! that they carry, so that a rule cannot win by saying less.
//!
//! With p the share of captions that have a label and P the share of pairs of captions of one image
//! that both have it, the agreement on the label is κ = (P − p²) ÷ (p − p²): 1 if all captions of
//! an image have it or none, 0 if chance would do as well. The agreement of a rule is the mean of κ
//! over its labels, each weighted by p; its bits are Σ P log₂(P ÷ p²), what two captions tell of
//! each other by the labels that they share. Only labels of [`IMAGES_MIN`] images count: rarer ones
//! have no κ to speak of.

use std::collections::{HashMap, HashSet};

use catlip_schemas::SynsetId;

/// Images that a label must come in.
pub const IMAGES_MIN: u32 = 3;

/// Agreement of a rule.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Agreement {
    /// Mean κ over the labels, weighted by how often each comes; at most 1.
    pub kappa: f64,
    /// Bits that two captions of an image share, a caption.
    pub bits: f64,
    /// κ of every label that counts.
    pub by_label: HashMap<SynsetId, f64>,
}

/// How often one label comes.
#[derive(Clone, Copy, Default)]
struct Count {
    images: u32,
    captions: u32,
    /// Ordered pairs of captions of one image that both have it.
    pairs: u64,
}

/// The agreement of labels. `images` holds the labels of the captions of each image; repeats within
/// a caption count once, and every image has the same number of captions.
pub fn agreement(images: &[Vec<HashSet<SynsetId>>]) -> Agreement {
    let mut counts = HashMap::<SynsetId, Count>::new();
    let (mut num_captions, mut num_pairs) = (0_u64, 0_u64);
    for captions in images {
        let len = captions.len() as u64;
        num_captions += len;
        num_pairs += len * len.saturating_sub(1);
        let mut here = HashMap::<SynsetId, u32>::new();
        for label in captions.iter().flatten() {
            *here.entry(*label).or_default() += 1;
        }
        for (label, times) in here {
            let count = counts.entry(label).or_default();
            count.images += 1;
            count.captions += times;
            count.pairs += u64::from(times) * u64::from(times - 1);
        }
    }
    let mut agreement = Agreement::default();
    let mut weight = 0.0;
    // In the order of the labels: a sum of floats must not depend on a hash.
    let mut counts: Vec<_> = counts.into_iter().filter(|(_, c)| c.images >= IMAGES_MIN).collect();
    counts.sort_by_key(|(label, _)| *label);
    for (label, count) in counts {
        let one = f64::from(count.captions) / num_captions as f64;
        let both = count.pairs as f64 / num_pairs as f64;
        let chance = one * one;
        let kappa = if one < 1.0 { (both - chance) / (one - chance) } else { 0.0 };
        agreement.kappa += one * kappa;
        weight += one;
        if both > 0.0 {
            agreement.bits += both * (both / chance).log2();
        }
        agreement.by_label.insert(label, kappa);
    }
    agreement.kappa /= if weight > 0.0 { weight } else { 1.0 };
    agreement
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(labels: &[[&[i32]; 2]]) -> Vec<Vec<HashSet<SynsetId>>> {
        let caption = |labels: &&[i32]| labels.iter().map(|&label| SynsetId(label)).collect();
        labels.iter().map(|captions| captions.iter().map(caption).collect()).collect()
    }

    #[test]
    fn captions_that_always_agree_have_kappa_one_and_the_bits_of_their_labels() {
        let half = agreement(&images(&[
            [&[1], &[1]],
            [&[1], &[1]],
            [&[1], &[1]],
            [&[], &[]],
            [&[], &[]],
            [&[], &[]],
        ]));
        assert!((half.kappa - 1.0).abs() < 1e-12);
        // Half of the pairs share a label of one bit.
        assert!((half.bits - 0.5).abs() < 1e-12);
    }

    #[test]
    fn captions_that_agree_as_often_as_chance_have_kappa_zero() {
        let chance = agreement(&images(&[[&[1], &[1]], [&[1], &[]], [&[], &[1]], [&[], &[]]]));
        assert!(chance.kappa.abs() < 1e-12 && chance.bits.abs() < 1e-12);
    }

    #[test]
    fn a_label_of_two_images_does_not_count() {
        let rare = agreement(&images(&[[&[1], &[1]], [&[1], &[1]], [&[], &[]]]));
        assert_eq!(rare, Agreement::default());
    }

    #[test]
    fn a_label_of_every_caption_tells_nothing() {
        let all = agreement(&images(&[[&[1][..], &[1]]; 3]));
        assert!(all.kappa.abs() < 1e-12 && all.bits.abs() < 1e-12);
    }
}
