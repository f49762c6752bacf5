//! What lies behind the things: plain grounds without a name and six that captions name.
//!
//! In: a scene's draws. Out: [`Ground`], a colour for each place of the canvas.

use catlip_schemas::synset::SynsetId;

use super::colour::{Rgb, blend, darker, hsv, lighter};
use super::random::Draws;
use super::raster::sin_cos;

/// A ground that a caption may name.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// Its name.
    pub name: &'static str,
    /// What the name means.
    pub synset: SynsetId,
    /// Phrases that name it.
    pub phrases: [&'static str; 4],
}

/// All of them.
pub const NAMED: [Named; 6] = [
    Named {
        name: "grass",
        synset: SynsetId(12_102_133),
        phrases: ["on the grass", "in soft grass", "on wet grass", "amid the grass"],
    },
    Named {
        name: "sand",
        synset: SynsetId(15_019_030),
        phrases: ["on the sand", "in warm sand", "on golden sand", "in the sand"],
    },
    Named {
        name: "sea",
        synset: SynsetId(9_426_788),
        phrases: ["by the sea", "near a calm sea", "at the sea", "beside the sea"],
    },
    Named {
        name: "sky",
        synset: SynsetId(9_436_708),
        phrases: ["in the sky", "against a bright sky", "under a wide sky", "beneath the sky"],
    },
    Named {
        name: "snow",
        synset: SynsetId(11_508_382),
        phrases: ["in the snow", "on fresh snow", "amid the snow", "on soft snow"],
    },
    Named {
        name: "wall",
        synset: SynsetId(4_546_855),
        phrases: ["against a wall", "by the wall", "near a neat wall", "on a wall"],
    },
];

/// How a ground without a name is patterned.
#[derive(Clone, Copy, Debug)]
enum Pattern {
    Flat,
    Gradient,
    Stripes,
    Checks,
    Dots,
    Clouded,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Plain(Pattern),
    Named(usize),
}

/// One scene's ground.
#[derive(Clone, Debug)]
pub struct Ground {
    kind: Kind,
    first: Rgb,
    second: Rgb,
    /// Where land or water begins, 0 … 1 from the top.
    horizon: f32,
    /// Marks along one side.
    scale: f32,
    /// Sine and cosine of the direction of gradients and stripes.
    turn: (f32, f32),
    /// Makes this scene's noise its own.
    grain: u32,
}

impl Ground {
    /// A named ground in 11 of 20 scenes, else a plain one.
    pub fn new(d: &mut Draws) -> Self {
        let kind = if d.chance(0.55) {
            Kind::Named(d.below(NAMED.len()))
        } else {
            use Pattern::{Checks, Clouded, Dots, Flat, Gradient, Stripes};
            Kind::Plain(d.pick(&[Flat, Flat, Gradient, Gradient, Stripes, Checks, Dots, Clouded]))
        };
        let (hue, near) = (d.between(0.0, 360.0), d.between(-60.0, 60.0));
        let first = hsv(hue, d.between(0.05, 0.5), d.between(0.5, 0.98));
        let other = hsv(hue + near, d.between(0.1, 0.5), d.between(0.4, 0.98));
        // Marks must not be taken for things: stripes, checks and dots stay close to the ground.
        let second = match kind {
            Kind::Plain(Pattern::Gradient) => other,
            _ => blend(first, other, 0.4),
        };
        Self {
            kind,
            first,
            second,
            horizon: d.between(0.15, 0.5),
            scale: d.between(4.0, 9.0),
            turn: sin_cos(d.between(0.0, 360.0)),
            grain: (d.bits() >> 32) as u32,
        }
    }

    /// The index in [`NAMED`] of a ground that has a name.
    pub fn named(&self) -> Option<usize> {
        match self.kind {
            Kind::Plain(_) => None,
            Kind::Named(index) => Some(index),
        }
    }

    /// The colour at (`x`, `y`), both 0 … 1.
    pub fn colour(&self, x: f32, y: f32) -> Rgb {
        match self.kind {
            Kind::Plain(pattern) => self.plain(pattern, x, y),
            Kind::Named(index) => match NAMED[index].name {
                "sky" => self.sky(x, y, 0.0),
                "wall" => self.wall(x, y),
                "snow" => self.snow(x, y),
                _ if y < self.horizon => self.sky(x, y, 0.3),
                "grass" => self.grass(x, y),
                "sand" => self.sand(x, y),
                _ => self.sea(x, y),
            },
        }
    }

    fn plain(&self, pattern: Pattern, x: f32, y: f32) -> Rgb {
        let (sin, cos) = self.turn;
        let (u, v) = ((x - 0.5) * cos + (y - 0.5) * sin, (y - 0.5) * cos - (x - 0.5) * sin);
        let (cell_u, cell_v) = ((u * self.scale).floor(), (v * self.scale).floor());
        let second = match pattern {
            Pattern::Flat => 0.0,
            Pattern::Gradient => (u + 0.5).clamp(0.0, 1.0),
            Pattern::Stripes => f32::from(cell_u.rem_euclid(2.0) < 1.0),
            Pattern::Checks => f32::from((cell_u + cell_v).rem_euclid(2.0) < 1.0),
            Pattern::Dots => {
                let (du, dv) = (u * self.scale - cell_u - 0.5, v * self.scale - cell_v - 0.5);
                f32::from(du * du + dv * dv < 0.06)
            }
            Pattern::Clouded => self.noise(x * self.scale, y * self.scale),
        };
        blend(self.first, self.second, second)
    }

    /// Blue that pales towards the horizon; `pale` is added everywhere.
    fn sky(&self, x: f32, y: f32, pale: f32) -> Rgb {
        let blue = hsv(198.0 + 18.0 * self.turn.0, 0.62, 0.92);
        let veil = 0.3 * self.noise(x * 3.0, y * 6.0);
        lighter(blue, (pale + 0.55 * y + veil).min(0.9))
    }

    fn grass(&self, x: f32, y: f32) -> Rgb {
        let base = hsv(96.0 + 14.0 * self.turn.0, 0.6, 0.62);
        let blades = self.noise(x * 70.0, y * 18.0);
        darker(base, 0.32 * blades + 0.15 * self.noise(x * 5.0, y * 5.0))
    }

    fn sand(&self, x: f32, y: f32) -> Rgb {
        let base = hsv(42.0 + 5.0 * self.turn.0, 0.38, 0.93);
        let ripple = self.noise(x * 5.0, y * 26.0);
        darker(base, 0.14 * ripple + 0.12 * self.noise(x * 90.0, y * 90.0))
    }

    fn sea(&self, x: f32, y: f32) -> Rgb {
        let base = hsv(210.0 + 16.0 * self.turn.0, 0.75, 0.62);
        let deep = (y - self.horizon) * 0.4;
        let crest = self.noise(x * 7.0, y * 34.0);
        let water = darker(base, deep);
        if crest > 0.7 { lighter(water, 0.5) } else { darker(water, 0.2 * crest) }
    }

    fn snow(&self, x: f32, y: f32) -> Rgb {
        let land = lighter([206, 222, 240], 0.6 * self.noise(x * 6.0, y * 12.0));
        let air = hsv(215.0, 0.2, 0.66);
        let (u, v) = (x * 14.0, y * 14.0);
        let (cell_u, cell_v) = (u.floor(), v.floor());
        let shift = self.lattice(cell_u as i32, cell_v as i32);
        let (du, dv) = (u - cell_u - 0.3 - 0.4 * shift, v - cell_v - 0.7 + 0.4 * shift);
        let flake = shift > 0.35 && du * du + dv * dv < 0.045;
        match (y < self.horizon, flake) {
            (_, true) => [250, 252, 255],
            (true, false) => air,
            (false, false) => land,
        }
    }

    fn wall(&self, x: f32, y: f32) -> Rgb {
        let brick = hsv(12.0 + 10.0 * self.turn.0, 0.5, 0.68);
        let (rows, row) = (2.0 * self.scale, (y * 2.0 * self.scale).floor());
        let u = x * self.scale + 0.5 * row.rem_euclid(2.0);
        let (du, dv) = (u - u.floor(), y * rows - row);
        if du < 0.07 || dv < 0.14 {
            return [206, 196, 184];
        }
        darker(brick, 0.25 * self.lattice(u.floor() as i32, row as i32))
    }

    /// A number 0 … 1 that belongs to a crossing of the grid.
    fn lattice(&self, column: i32, row: i32) -> f32 {
        let mut z = self.grain ^ (column as u32).wrapping_mul(0x9e37_79b1);
        z = (z ^ (row as u32).wrapping_mul(0x85eb_ca77)).wrapping_mul(0xc2b2_ae3d);
        z = (z ^ (z >> 15)).wrapping_mul(0x27d4_eb2f);
        ((z ^ (z >> 13)) & 0xffff) as f32 / 65_535.0
    }

    /// Smooth noise 0 … 1: the grid's numbers, blended.
    fn noise(&self, x: f32, y: f32) -> f32 {
        let (column, row) = (x.floor(), y.floor());
        let ease = |t: f32| t * t * (3.0 - 2.0 * t);
        let (u, v) = (ease(x - column), ease(y - row));
        let (column, row) = (column as i32, row as i32);
        let along = |row: i32| {
            let (left, right) = (self.lattice(column, row), self.lattice(column + 1, row));
            left + (right - left) * u
        };
        along(row) + (along(row + 1) - along(row)) * v
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phrase_names_its_ground_and_no_other() {
        for ground in &NAMED {
            for phrase in ground.phrases {
                let named: Vec<_> = NAMED
                    .iter()
                    .filter(|other| phrase.split(' ').any(|word| word == other.name))
                    .collect();
                assert!(named.len() == 1 && named[0].name == ground.name, "{phrase}");
            }
        }
    }

    #[test]
    fn every_ground_is_drawn_and_stays_what_it_is() {
        let mut seen = [0; NAMED.len() + 1];
        for scene in 0..400 {
            let ground = Ground::new(&mut Draws::new(5, &[scene]));
            seen[ground.named().unwrap_or(NAMED.len())] += 1;
            assert_eq!(ground.colour(0.3, 0.7), ground.colour(0.3, 0.7));
        }
        assert!(seen.iter().all(|&n| n >= 15), "{seen:?}");
    }
}
