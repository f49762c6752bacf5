//! The things that the demo can draw, with their names and synsets.
//!
//! Each name, singular and plural, gives exactly this synset under the corenet rule: its lemma's
//! first noun sense is headed by the lemma itself. Words whose first sense is something else than
//! the thing (table: of data; kite: a bad cheque; cherry: the wood) are not here.

use catlip_schemas::synset::SynsetId;

use super::random::Draws;
use super::raster::Pen;
use super::{things_of_nature as nature, things_of_use as used, things_outdoors as outdoors};

/// How far a thing may be turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It stands or hangs: up to 10° either way.
    Upright,
    /// It leans or flies: up to 20° either way.
    Leaning,
    /// It lies anyhow: up to 60° either way.
    Any,
}

/// One kind of thing.
#[derive(Clone, Copy, Debug)]
pub struct Thing {
    /// Its name, with its indefinite article left out.
    pub one: &'static str,
    /// The name of several.
    pub many: &'static str,
    /// What both names mean.
    pub synset: SynsetId,
    /// How far it may be turned.
    pub turn: Turn,
    /// Draws it into its box.
    pub draw: fn(&mut Pen, &mut Draws),
}

const fn thing(
    one: &'static str,
    many: &'static str,
    offset: i32,
    turn: Turn,
    draw: fn(&mut Pen, &mut Draws),
) -> Thing {
    Thing { one, many, synset: SynsetId(offset), turn, draw }
}

use Turn::{Any, Leaning, Upright};

/// All of them, by name.
pub const THINGS: [Thing; 48] = [
    thing("anchor", "anchors", 2_709_367, Leaning, used::anchor),
    thing("apple", "apples", 7_739_125, Leaning, nature::apple),
    thing("arrow", "arrows", 6_818_121, Any, used::arrow),
    thing("bell", "bells", 2_824_448, Leaning, used::bell),
    thing("book", "books", 6_410_904, Leaning, used::book),
    thing("bottle", "bottles", 2_876_657, Leaning, used::bottle),
    thing("bridge", "bridges", 2_898_711, Upright, outdoors::bridge),
    thing("butterfly", "butterflies", 2_274_259, Any, nature::butterfly),
    thing("cactus", "cacti", 11_842_204, Upright, nature::cactus),
    thing("candle", "candles", 2_948_072, Upright, used::candle),
    thing("car", "cars", 2_958_343, Upright, outdoors::car),
    thing("carrot", "carrots", 12_937_678, Any, nature::carrot),
    thing("chair", "chairs", 3_001_627, Upright, used::chair),
    thing("clock", "clocks", 3_046_257, Upright, used::clock),
    thing("cloud", "clouds", 11_439_690, Upright, nature::cloud),
    thing("cup", "cups", 3_147_509, Upright, used::cup),
    thing("drum", "drums", 3_249_569, Leaning, used::drum),
    thing("envelope", "envelopes", 3_291_819, Leaning, used::envelope),
    thing("fence", "fences", 3_327_234, Upright, outdoors::fence),
    thing("fish", "fish", 2_512_053, Leaning, nature::fish),
    thing("flag", "flags", 3_354_903, Upright, outdoors::flag),
    thing("flower", "flowers", 11_669_921, Leaning, nature::flower),
    thing("guitar", "guitars", 3_467_517, Any, used::guitar),
    thing("hat", "hats", 3_497_657, Leaning, used::hat),
    thing("house", "houses", 3_544_360, Upright, outdoors::house),
    thing("key", "keys", 3_613_294, Any, used::key),
    thing("ladder", "ladders", 3_632_277, Leaning, used::ladder),
    thing("lamp", "lamps", 3_636_248, Upright, used::lamp),
    thing("leaf", "leaves", 13_152_742, Any, nature::leaf),
    thing("moon", "moons", 9_358_358, Leaning, nature::moon),
    thing("mountain", "mountains", 9_359_803, Upright, nature::mountain),
    thing("mushroom", "mushrooms", 13_001_041, Leaning, nature::mushroom),
    thing("pear", "pears", 7_767_847, Leaning, nature::pear),
    thing("rainbow", "rainbows", 9_403_427, Upright, nature::rainbow),
    thing("rocket", "rockets", 4_099_429, Leaning, outdoors::rocket),
    thing("sailboat", "sailboats", 4_128_499, Upright, outdoors::sailboat),
    thing("scissors", "scissors", 4_148_054, Any, used::scissors),
    thing("snail", "snails", 1_944_390, Leaning, nature::snail),
    thing("snake", "snakes", 1_726_692, Leaning, nature::snake),
    thing("snowman", "snowmen", 4_251_983, Upright, outdoors::snowman),
    thing("spider", "spiders", 1_772_222, Any, nature::spider),
    thing("star", "stars", 9_444_100, Any, nature::star),
    thing("sun", "suns", 9_450_163, Any, nature::sun),
    thing("tent", "tents", 4_411_264, Upright, outdoors::tent),
    thing("tree", "trees", 13_104_059, Upright, nature::tree),
    thing("umbrella", "umbrellas", 4_507_155, Leaning, used::umbrella),
    thing("wheel", "wheels", 4_574_999, Any, outdoors::wheel),
    thing("window", "windows", 4_587_648, Upright, outdoors::window),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::raster::{Canvas, Place};
    use super::*;

    /// Part of its box that a thing covers when the box is `radius` × 2 of the canvas.
    fn cover(thing: &Thing, radius: f32, draw: u64) -> f32 {
        let place = Place {
            x: 0.5,
            y: 0.5,
            radius,
            stretch: 1.0,
            degrees: 0.0,
            mirrored: false,
            light: [0.0; 2],
        };
        let mut canvas = Canvas::new(96, |_, _| [0; 3]);
        (thing.draw)(&mut Pen::new(&mut canvas, place, 1), &mut Draws::new(3, &[draw]));
        let box_side = 2.0 * radius * canvas.fine() as f32;
        canvas.visible(1) as f32 / (box_side * box_side)
    }

    #[test]
    fn there_are_at_least_forty_synsets_in_order_of_their_names() {
        let synsets: BTreeSet<_> = THINGS.iter().map(|thing| thing.synset).collect();
        assert!(synsets.len() == THINGS.len() && THINGS.len() >= 40);
        assert!(THINGS.is_sorted_by_key(|thing| thing.one));
    }

    #[test]
    fn each_thing_fills_a_fair_part_of_its_box_and_nothing_outside() {
        for thing in &THINGS {
            for draw in 0..6 {
                // A box as large as the canvas loses what lies outside of it, a half box does not.
                let (cut, whole) = (cover(thing, 0.5, draw), cover(thing, 0.25, draw));
                assert!(whole > 0.1 && whole < 0.95, "{}: covers {whole} of its box", thing.one);
                assert!((cut - whole).abs() < 0.015, "{}: {cut} of {whole} inside", thing.one);
            }
        }
    }

    #[test]
    fn two_draws_of_a_thing_differ() {
        for thing in &THINGS {
            let pixels = |draw| {
                let place = Place {
                    x: 0.5,
                    y: 0.5,
                    radius: 0.4,
                    stretch: 1.0,
                    degrees: 0.0,
                    mirrored: false,
                    light: [0.0; 2],
                };
                let mut canvas = Canvas::new(32, |_, _| [0; 3]);
                (thing.draw)(&mut Pen::new(&mut canvas, place, 1), &mut Draws::new(3, &[draw]));
                canvas.to_rgb()
            };
            assert_ne!(pixels(0), pixels(1), "{}", thing.one);
            assert_eq!(pixels(0), pixels(0), "{}", thing.one);
        }
    }
}
