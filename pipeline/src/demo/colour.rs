//! Colours of the demo's drawings.
//!
//! In: hue, saturation and value, or another colour. Out: [`Rgb`], 8 bits a channel, sRGB.

use super::random::Draws;

/// Red, green, blue, 0 … 255.
pub type Rgb = [u8; 3];

/// Near-black of pupils, tyres and tar.
pub const INK: Rgb = [35, 32, 38];
/// Paper, snow, sails.
pub const WHITE: Rgb = [246, 246, 242];
/// Wood.
pub const BROWN: Rgb = [124, 82, 48];
/// Iron.
pub const GREY: Rgb = [130, 134, 142];
/// Grass and stalks.
pub const GREEN: Rgb = [74, 146, 58];
/// Flames, brass.
pub const GOLD: Rgb = [236, 186, 54];
/// Ripe fruit.
pub const RED: Rgb = [206, 48, 42];

/// From hue in degrees (any number), saturation and value in 0 … 1.
pub fn hsv(hue: f32, saturation: f32, value: f32) -> Rgb {
    let sector = hue.rem_euclid(360.0) / 60.0;
    let channel = |shift: f32| {
        let k = (shift + sector) % 6.0;
        let dip = k.min(4.0 - k).clamp(0.0, 1.0);
        (255.0 * value * (1.0 - saturation * dip)) as u8
    };
    [channel(5.0), channel(3.0), channel(1.0)]
}

/// `t` = 0 gives `a`, 1 gives `b`.
pub fn blend(a: Rgb, b: Rgb, t: f32) -> Rgb {
    let one = |i: usize| (f32::from(a[i]) + (f32::from(b[i]) - f32::from(a[i])) * t) as u8;
    [one(0), one(1), one(2)]
}

/// Darker: 0 leaves the colour, 1 is black.
pub fn darker(colour: Rgb, by: f32) -> Rgb {
    blend(colour, [0, 0, 0], by)
}

/// Lighter: 0 leaves the colour, 1 is white.
pub fn lighter(colour: Rgb, by: f32) -> Rgb {
    blend(colour, [255, 255, 255], by)
}

/// A strong colour, four times of five within 20° of the `hue` that such a thing usually has.
pub fn vivid(draws: &mut Draws, hue: f32) -> Rgb {
    let spread = if draws.chance(0.8) { 20.0 } else { 180.0 };
    let (hue, saturation) = (hue + draws.between(-spread, spread), draws.between(0.5, 0.95));
    hsv(hue, saturation, draws.between(0.5, 0.95))
}

/// One of `choices`, three times of four the first, each channel moved by up to 18.
pub fn about(draws: &mut Draws, choices: &[Rgb]) -> Rgb {
    let usual = if draws.chance(0.7) { &choices[..1] } else { choices };
    draws.pick(usual).map(|c| (f32::from(c) + draws.between(-18.0, 18.0)).clamp(0.0, 255.0) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hues_are_where_painters_put_them() {
        assert_eq!(hsv(0.0, 1.0, 1.0), [255, 0, 0]);
        assert_eq!(hsv(60.0, 1.0, 1.0), [255, 255, 0]);
        assert_eq!(hsv(120.0, 1.0, 1.0), [0, 255, 0]);
        assert_eq!(hsv(-120.0, 1.0, 1.0), [0, 0, 255]);
        assert_eq!(hsv(200.0, 0.0, 0.5), [127, 127, 127]);
    }

    #[test]
    fn a_blend_ends_at_its_colours() {
        assert_eq!(blend(RED, GREEN, 0.0), RED);
        assert_eq!(blend(RED, GREEN, 1.0), GREEN);
        assert_eq!((lighter(RED, 1.0), darker(RED, 1.0)), ([255; 3], [0; 3]));
    }
}
