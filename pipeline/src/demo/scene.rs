//! Composes and draws one scene: a ground, and one to five things on it.
//!
//! In: a seed and the scene's number. Out: [`Scene`], its pixels and what can be seen on them.
//! Never: a thing in the list of which less than [`VISIBLE_MIN`] is left to see.

use super::ground::Ground;
use super::random::Draws;
use super::raster::{Canvas, FINE, GROUND, Pen, Place};
use super::things::{THINGS, Turn};

/// The part of a thing's sub-pixels that later things must leave visible.
pub const VISIBLE_MIN: f32 = 0.6;
/// Least mean difference, 0 … 255 a channel, between a thing and what it covers.
const CONTRAST_MIN: f32 = 34.0;
/// Colours tried for one thing before the last is kept.
const COLOURS_TRIED: u64 = 8;
/// Layouts tried before scenes are thinned to one thing, which nothing can hide.
const LAYOUTS_TRIED: u64 = 24;
/// How many scenes have 1, 2, 3, 4 and 5 things, as weights.
const COUNTS: [f32; 5] = [0.3, 0.28, 0.18, 0.13, 0.11];
/// Least and greatest half height of a thing, by the number of things, in parts of the side.
const RADII: [(f32, f32); 5] =
    [(0.32, 0.46), (0.27, 0.38), (0.24, 0.33), (0.2, 0.28), (0.17, 0.24)];

/// A kind of thing that can be seen in a scene.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// Index in [`THINGS`].
    pub thing: usize,
    /// How many of it.
    pub count: usize,
    /// Half the height of the largest, in parts of the side.
    pub radius: f32,
    /// Turn of the last, clockwise.
    pub degrees: f32,
}

/// A drawn scene.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Pixels of one side.
    pub side_px: usize,
    /// Height × width × RGB.
    pub rgb: Vec<u8>,
    /// Index in [`super::ground::NAMED`] of a ground with a name.
    pub ground: Option<usize>,
    /// The kinds of things that can be seen, each once.
    pub seen: Vec<Seen>,
}

impl Scene {
    /// Draws scene `number` of the stream of `seed`.
    pub fn draw(seed: u64, number: u64, side_px: usize) -> Self {
        let mut layout = 0;
        loop {
            let mut d = Draws::new(seed, &[number, layout]);
            if let Some(scene) = Self::try_layout(&mut d, side_px, layout >= LAYOUTS_TRIED) {
                return scene;
            }
            layout += 1;
        }
    }

    /// `None` if a thing ends up hidden by later ones; never with one thing alone.
    fn try_layout(d: &mut Draws, side_px: usize, alone: bool) -> Option<Self> {
        let ground = Ground::new(d);
        let total = if alone { 1 } else { d.weighted(&COUNTS) + 1 };
        let kinds = kinds_of(d, total);
        let mut canvas = Canvas::new(side_px, |x, y| ground.colour(x, y));
        let mut seen: Vec<Seen> = Vec::new();
        let mut drawn = Vec::new();
        for (number, &thing) in kinds.iter().enumerate() {
            let place = place_of(d, total, thing, &drawn);
            let owner = GROUND + 1 + number as u8;
            canvas = paint(d, canvas, thing, place, owner);
            drawn.push((place, canvas.visible(owner)));
            match seen.iter_mut().find(|s| s.thing == thing) {
                Some(same) => {
                    same.count += 1;
                    same.radius = same.radius.max(place.radius);
                    same.degrees = place.degrees;
                }
                None => {
                    let (radius, degrees) = (place.radius, place.degrees);
                    seen.push(Seen { thing, count: 1, radius, degrees });
                }
            }
        }
        let hidden = drawn.iter().zip(GROUND + 1..).any(|(&(_, whole), owner)| {
            (canvas.visible(owner) as f32) < VISIBLE_MIN * whole as f32
        });
        if hidden {
            return None;
        }
        if d.chance(0.5) {
            canvas.outline(FINE / 2 + 1);
        }
        let rgb = as_photographed(d, canvas.to_rgb());
        Some(Self { side_px, rgb, ground: ground.named(), seen })
    }
}

/// `total` things, sometimes two or three of a kind, in the order in which they are drawn.
fn kinds_of(d: &mut Draws, total: usize) -> Vec<usize> {
    let mut kinds: Vec<usize> = Vec::new();
    while kinds.len() < total {
        let thing = d.below(THINGS.len());
        if kinds.contains(&thing) {
            continue;
        }
        let copies = if d.chance(0.2) { 2 + d.below(2) } else { 1 };
        kinds.extend(std::iter::repeat_n(thing, copies.min(total - kinds.len())));
    }
    kinds
}

/// A place for the next thing: of four, the one that is farthest from the things before it.
fn place_of(d: &mut Draws, total: usize, thing: usize, drawn: &[(Place, usize)]) -> Place {
    let (least, greatest) = RADII[total - 1];
    let radius = d.between(least, greatest);
    let spot = |d: &mut Draws| {
        let margin = radius * 0.92;
        (d.between(margin, 1.0 - margin), d.between(margin, 1.0 - margin))
    };
    let room = |x: f32, y: f32| {
        let gap = |(p, _): &(Place, usize)| {
            ((p.x - x) * (p.x - x) + (p.y - y) * (p.y - y)).sqrt() / (p.radius + radius)
        };
        drawn.iter().map(gap).fold(f32::MAX, f32::min)
    };
    let mut best = spot(d);
    for _ in 0..3 {
        let other = spot(d);
        if room(other.0, other.1) > room(best.0, best.1) {
            best = other;
        }
    }
    let most = match THINGS[thing].turn {
        Turn::Upright => 10.0,
        Turn::Leaning => 20.0,
        Turn::Any => 60.0,
    };
    Place {
        x: best.0,
        y: best.1,
        radius,
        stretch: d.between(0.85, 1.15),
        degrees: d.between(-most, most),
        mirrored: d.chance(0.5),
        light: [d.between(-0.12, 0.12), d.between(-0.12, 0.12)],
    }
}

/// Draws one thing in colours that stand out from what they cover.
fn paint(d: &mut Draws, canvas: Canvas, thing: usize, place: Place, owner: u8) -> Canvas {
    let seed = d.bits();
    let mut painted = canvas.clone();
    for colours in 0..COLOURS_TRIED {
        let mut draws = Draws::new(seed, &[colours]);
        painted.clone_from(&canvas);
        (THINGS[thing].draw)(&mut Pen::new(&mut painted, place, owner), &mut draws);
        if painted.contrast(&canvas, owner) >= CONTRAST_MIN {
            break;
        }
    }
    painted
}

/// Light, tint and grain of a camera.
fn as_photographed(d: &mut Draws, mut rgb: Vec<u8>) -> Vec<u8> {
    let grain = d.between(0.0, 9.0);
    let bright = d.between(0.86, 1.1);
    let tint = [0; 3].map(|_| bright * d.between(0.96, 1.04));
    for pixel in rgb.chunks_exact_mut(3) {
        for (channel, gain) in pixel.iter_mut().zip(tint) {
            // The sum of two uniform draws: a triangle about 0.
            let noise = (d.unit() + d.unit() - 1.0) * grain;
            *channel = (f32::from(*channel) * gain + noise + 0.5) as u8;
        }
    }
    rgb
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_scene_is_a_function_of_its_seed_and_number() {
        let scene = |seed, number| Scene::draw(seed, number, 48).rgb;
        assert_eq!(scene(1, 2), scene(1, 2));
        assert_ne!(scene(1, 2), scene(1, 3));
        assert_ne!(scene(1, 2), scene(2, 2));
    }

    #[test]
    fn scenes_hold_one_to_five_things_and_every_kind_comes() {
        let (mut totals, mut kinds) = ([0; 6], BTreeSet::new());
        for number in 0..600 {
            let scene = Scene::draw(9, number, 32);
            assert_eq!(scene.rgb.len(), 32 * 32 * 3);
            totals[scene.seen.iter().map(|seen| seen.count).sum::<usize>()] += 1;
            kinds.extend(scene.seen.iter().map(|seen| seen.thing));
        }
        assert!(totals[0] == 0 && totals[1..].iter().all(|&n| n >= 40), "{totals:?}");
        assert_eq!(kinds.len(), THINGS.len());
    }

    #[test]
    fn a_thing_stands_out_from_its_ground() {
        for colour in [0, 90, 180, 250] {
            let canvas = Canvas::new(64, |_, _| [colour; 3]);
            for (thing, _) in THINGS.iter().enumerate() {
                let mut d = Draws::new(4, &[thing as u64, u64::from(colour)]);
                let place = place_of(&mut d, 1, thing, &[]);
                let painted = paint(&mut d, canvas.clone(), thing, place, 1);
                let contrast = painted.contrast(&canvas, 1);
                assert!(contrast > 20.0, "{} on {colour}: {contrast}", THINGS[thing].one);
            }
        }
    }
}
