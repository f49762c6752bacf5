//! Drawings of what hands use.
//!
//! In: a pen on a box of −1 … 1 and the thing's own draws. Out: strokes inside the box.

use super::colour::{BROWN, GOLD, GREY, INK, RED, WHITE, about, darker, lighter, vivid};
use super::random::Draws;
use super::raster::{Pen, Point, arc_points};

/// A ring, a shank with a stock, and two curved arms with flukes.
pub fn anchor(p: &mut Pen, d: &mut Draws) {
    let colour = about(d, &[GREY, [60, 66, 84], [150, 110, 60], [40, 60, 110]]);
    p.arc([0.0, -0.76], [0.16, 0.16], 0.0, 360.0, 0.1, colour);
    p.line(&[[0.0, -0.6], [0.0, 0.85]], 0.17, colour);
    p.line(&[[-0.4, -0.4], [0.4, -0.4]], 0.15, colour);
    p.arc([0.0, 0.15], [0.74, 0.7], 12.0, 168.0, 0.17, colour);
    for side in [-1.0, 1.0] {
        p.poly(&[[0.98 * side, 0.42], [0.7 * side, -0.02], [0.45 * side, 0.38]], colour);
    }
}

/// A shaft, a broad head, two pairs of feathers.
pub fn arrow(p: &mut Pen, d: &mut Draws) {
    let colour = vivid(d, 0.0);
    p.line(&[[-0.85, 0.0], [0.5, 0.0]], 0.2, colour);
    p.poly(&[[0.98, 0.0], [0.3, -0.52], [0.45, 0.0], [0.3, 0.52]], colour);
    for x in [-0.62, -0.85] {
        p.line(&[[x - 0.1, -0.36], [x + 0.14, 0.0], [x - 0.1, 0.36]], 0.13, colour);
    }
}

/// A flaring bowl with a handle and a clapper.
pub fn bell(p: &mut Pen, d: &mut Draws) {
    let colour = about(d, &[GOLD, [200, 150, 60], [190, 190, 196], [184, 110, 60]]);
    p.arc([0.0, -0.8], [0.13, 0.13], 0.0, 360.0, 0.09, darker(colour, 0.3));
    p.oval(0.0, 0.76, 0.19, 0.19, darker(colour, 0.5));
    let half = [[0.0, -0.72], [0.34, -0.62], [0.48, -0.1], [0.6, 0.36], [0.9, 0.66]];
    let other = half[1..].iter().rev().map(|&[x, y]| [-x, y]);
    p.poly(&half.iter().copied().chain(other).collect::<Vec<_>>(), colour);
    p.oval(0.0, -0.5, 0.4, 0.26, colour);
    p.line(&[[-0.86, 0.64], [0.86, 0.64]], 0.14, darker(colour, 0.2));
    p.line(&[[-0.25, -0.45], [-0.38, 0.35]], 0.09, lighter(colour, 0.5));
}

/// An open volume: two pages with lines over a cover.
pub fn book(p: &mut Pen, d: &mut Draws) {
    let cover = vivid(d, 235.0);
    let page = about(d, &[WHITE, [238, 228, 200]]);
    p.poly(
        &[[-0.98, -0.5], [0.0, -0.38], [0.98, -0.5], [0.98, 0.7], [0.0, 0.84], [-0.98, 0.7]],
        cover,
    );
    for side in [-1.0, 1.0] {
        let x = |x: f32| x * side;
        let outline = [
            [0.0, -0.42],
            [x(0.3), -0.64],
            [x(0.88), -0.58],
            [x(0.88), 0.56],
            [x(0.3), 0.5],
            [0.0, 0.72],
        ];
        p.poly(&outline, darker(page, 0.05 + 0.05 * side));
        for y in [-0.36, -0.14, 0.08, 0.3] {
            p.line(&[[x(0.18), y + 0.04], [x(0.74), y]], 0.06, GREY);
        }
    }
    p.line(&[[0.0, -0.4], [0.0, 0.74]], 0.05, darker(cover, 0.4));
}

/// A body, shoulders, a long neck, a cork and a paper on its belly.
pub fn bottle(p: &mut Pen, d: &mut Draws) {
    let glass =
        about(d, &[[40, 110, 60], [110, 70, 40], [90, 150, 200], [150, 40, 60], [200, 210, 210]]);
    let half = [[0.15, -0.8], [0.15, -0.38], [0.42, -0.05], [0.42, 0.97]];
    let other = half.iter().rev().map(|&[x, y]| [-x, y]);
    p.rect(-0.11, -0.98, 0.11, -0.78, about(d, &[[200, 160, 110], RED]));
    p.poly(&half.iter().copied().chain(other).collect::<Vec<_>>(), glass);
    p.rect(-0.19, -0.84, 0.19, -0.74, darker(glass, 0.3));
    p.rect(-0.42, 0.2, 0.42, 0.68, about(d, &[WHITE, GOLD]));
    p.line(&[[-0.28, 0.0], [-0.28, 0.88]], 0.07, lighter(glass, 0.5));
}

/// A stick of wax with a drop, a wick and a flame, on a dish.
pub fn candle(p: &mut Pen, d: &mut Draws) {
    let wax = about(d, &[WHITE, [236, 214, 160], RED, [90, 130, 200], [150, 180, 110]]);
    p.oval(0.0, 0.84, 0.62, 0.14, about(d, &[GREY, GOLD]));
    p.rect(-0.25, -0.25, 0.25, 0.84, wax);
    p.oval(0.0, -0.25, 0.25, 0.08, lighter(wax, 0.4));
    p.line(&[[0.19, -0.2], [0.19, 0.2]], 0.12, lighter(wax, 0.3));
    p.line(&[[0.0, -0.25], [0.0, -0.42]], 0.06, INK);
    p.blob(&[[0.0, -0.99], [0.2, -0.55], [0.0, -0.36], [-0.2, -0.55]], [248, 150, 40]);
    p.blob(&[[0.0, -0.78], [0.1, -0.54], [0.0, -0.42], [-0.1, -0.54]], [254, 232, 120]);
}

/// A seat on legs with a barred back, seen a little from the side.
pub fn chair(p: &mut Pen, d: &mut Draws) {
    let wood = about(d, &[BROWN, [180, 120, 60], RED, [60, 90, 130], [90, 60, 50]]);
    let dark = darker(wood, 0.3);
    p.line(&[[-0.28, 0.1], [-0.28, 0.72]], 0.13, dark);
    p.line(&[[0.62, 0.1], [0.62, 0.72]], 0.13, dark);
    p.line(&[[-0.55, -0.92], [-0.5, 0.92]], 0.15, wood);
    p.line(&[[0.42, 0.2], [0.42, 0.92]], 0.15, wood);
    p.line(&[[0.12, -0.92], [0.15, 0.1]], 0.13, wood);
    for y in [-0.82, -0.54, -0.26] {
        p.line(&[[-0.55, y], [0.12, y]], 0.12, wood);
    }
    p.poly(&[[-0.62, 0.22], [-0.3, 0.0], [0.78, 0.0], [0.52, 0.22]], lighter(wood, 0.15));
    p.rect(-0.62, 0.2, 0.52, 0.34, dark);
}

/// A round face with twelve marks and two hands.
pub fn clock(p: &mut Pen, d: &mut Draws) {
    let rim = vivid(d, 50.0);
    let face = about(d, &[WHITE, [244, 232, 200]]);
    p.oval(0.0, 0.0, 0.97, 0.97, rim);
    p.oval(0.0, 0.0, 0.78, 0.78, face);
    for (hour, [x, y]) in arc_points(0.0, 0.0, 0.66, 0.66, 0.0, 360.0).into_iter().enumerate() {
        if hour % 4 == 0 {
            p.oval(x, y, 0.06, 0.06, INK);
        }
    }
    let hand = |d: &mut Draws, r: f32| arc_points(0.0, 0.0, r, r, d.between(0.0, 360.0), 400.0)[0];
    let (long, short) = (hand(d, 0.58), hand(d, 0.4));
    p.line(&[[0.0, 0.0], long], 0.08, INK);
    p.line(&[[0.0, 0.0], short], 0.13, INK);
    p.oval(0.0, 0.0, 0.09, 0.09, RED);
}

/// A tapering vessel with a handle and steam, on a saucer.
pub fn cup(p: &mut Pen, d: &mut Draws) {
    let colour = vivid(d, 175.0);
    p.oval(-0.1, 0.82, 0.84, 0.14, lighter(colour, 0.5));
    p.arc([0.52, 0.1], [0.33, 0.3], -100.0, 100.0, 0.14, colour);
    p.blob(
        &[[-0.78, -0.35], [0.6, -0.35], [0.55, 0.3], [0.25, 0.78], [-0.42, 0.78], [-0.74, 0.3]],
        colour,
    );
    p.oval(-0.09, -0.34, 0.7, 0.16, lighter(colour, 0.5));
    p.oval(-0.09, -0.32, 0.56, 0.1, [84, 52, 34]);
    for x in [-0.35, 0.1] {
        p.curve(&[[x, -0.5], [x + 0.1, -0.66], [x - 0.06, -0.8], [x + 0.04, -0.95]], 0.06, WHITE);
    }
}

/// A shell with zigzag cords between two hoops, and two sticks.
pub fn drum(p: &mut Pen, d: &mut Draws) {
    let shell = vivid(d, 355.0);
    let hoop = about(d, &[GOLD, WHITE, [90, 60, 40]]);
    p.rect(-0.82, -0.25, 0.82, 0.62, shell);
    p.oval(0.0, 0.62, 0.82, 0.26, shell);
    let cord: Vec<Point> =
        (0..=8).map(|i| [i as f32 * 0.2 - 0.8, if i % 2 == 0 { -0.1 } else { 0.7 }]).collect();
    p.line(&cord, 0.06, WHITE);
    p.arc([0.0, 0.62], [0.82, 0.26], 0.0, 180.0, 0.13, hoop);
    p.oval(0.0, -0.25, 0.88, 0.32, hoop);
    p.oval(0.0, -0.27, 0.76, 0.25, [240, 232, 214]);
    p.line(&[[-0.75, -0.9], [0.05, -0.3]], 0.09, BROWN);
    p.line(&[[0.8, -0.92], [-0.02, -0.22]], 0.09, darker(BROWN, 0.2));
}

/// A rectangle with a folded flap and a seal.
pub fn envelope(p: &mut Pen, d: &mut Draws) {
    let paper =
        about(d, &[WHITE, [222, 190, 140], [240, 226, 180], [180, 206, 232], [240, 190, 200]]);
    let fold = darker(paper, 0.35);
    p.rect(-0.97, -0.64, 0.97, 0.66, paper);
    p.line(&[[-0.95, 0.63], [-0.2, 0.0]], 0.06, fold);
    p.line(&[[0.95, 0.63], [0.2, 0.0]], 0.06, fold);
    p.poly(&[[-0.97, -0.64], [0.97, -0.64], [0.0, 0.22]], darker(paper, 0.12));
    p.line(&[[-0.95, -0.62], [0.0, 0.22], [0.95, -0.62]], 0.07, fold);
    p.oval(0.0, 0.14, 0.17, 0.17, about(d, &[RED, [60, 80, 160]]));
}

/// A waisted body with a hole, a neck, a head and strings.
pub fn guitar(p: &mut Pen, d: &mut Draws) {
    let wood =
        about(d, &[[200, 130, 60], [170, 80, 40], [216, 170, 90], [150, 40, 40], [50, 50, 60]]);
    p.line(&[[0.0, -0.75], [0.0, 0.2]], 0.15, [84, 56, 40]);
    p.rect(-0.15, -0.99, 0.15, -0.7, darker(wood, 0.4));
    let half = [[0.0, -0.12], [0.36, -0.05], [0.32, 0.25], [0.54, 0.62], [0.32, 0.95], [0.0, 0.99]];
    let other = half[1..5].iter().rev().map(|&[x, y]| [-x, y]);
    p.blob(&half.iter().copied().chain(other).collect::<Vec<_>>(), wood);
    p.line(&[[0.0, -0.7], [0.0, 0.05]], 0.13, [84, 56, 40]);
    p.oval(0.0, 0.3, 0.17, 0.17, INK);
    p.rect(-0.24, 0.66, 0.24, 0.76, [60, 40, 30]);
    for x in [-0.035, 0.035] {
        p.line(&[[x, -0.85], [x, 0.7]], 0.02, WHITE);
    }
}

/// A tall crown with a band on a wide brim.
pub fn hat(p: &mut Pen, d: &mut Draws) {
    let felt = about(d, &[INK, [90, 60, 40], [60, 70, 120], [120, 40, 60], [110, 120, 110]]);
    p.oval(0.0, 0.62, 0.98, 0.26, darker(felt, 0.15));
    p.poly(&[[-0.58, -0.72], [0.58, -0.72], [0.5, 0.6], [-0.5, 0.6]], felt);
    p.oval(0.0, 0.6, 0.5, 0.12, felt);
    p.oval(0.0, -0.72, 0.58, 0.16, lighter(felt, 0.2));
    p.poly(&[[-0.52, 0.25], [0.52, 0.25], [0.5, 0.58], [-0.5, 0.58]], vivid(d, 0.0));
}

/// A ring, a shank and two teeth.
pub fn key(p: &mut Pen, d: &mut Draws) {
    let metal = about(d, &[GOLD, GREY, [190, 196, 206], [150, 100, 60]]);
    p.arc([-0.56, 0.0], [0.3, 0.3], 0.0, 360.0, 0.2, metal);
    p.line(&[[-0.26, 0.0], [0.86, 0.0]], 0.18, metal);
    p.rect(0.42, 0.0, 0.56, 0.42, metal);
    p.rect(0.72, 0.0, 0.92, 0.48, metal);
    p.line(&[[-0.2, -0.22], [-0.2, 0.22]], 0.1, metal);
}

/// Two rails and seven rungs.
pub fn ladder(p: &mut Pen, d: &mut Draws) {
    let wood = about(d, &[BROWN, [206, 160, 90], GREY, [200, 70, 50]]);
    for i in 0..6 {
        let y = -0.78 + i as f32 * 0.31;
        p.line(&[[-0.4, y], [0.4, y]], 0.11, lighter(wood, 0.15));
    }
    p.line(&[[-0.36, -0.93], [-0.42, 0.93]], 0.14, wood);
    p.line(&[[0.36, -0.93], [0.42, 0.93]], 0.14, wood);
}

/// A shade on a thin stand, with a lit bulb's glow under it.
pub fn lamp(p: &mut Pen, d: &mut Draws) {
    let shade = vivid(d, 320.0);
    let stand = about(d, &[GREY, GOLD, INK]);
    p.poly(&[[-0.4, -0.12], [0.4, -0.12], [0.62, 0.3], [-0.62, 0.3]], [255, 240, 150]);
    p.line(&[[0.0, -0.2], [0.0, 0.85]], 0.13, stand);
    p.oval(0.0, 0.86, 0.48, 0.13, stand);
    p.poly(&[[-0.36, -0.96], [0.36, -0.96], [0.8, -0.08], [-0.8, -0.08]], shade);
    p.poly(&[[-0.74, -0.2], [0.74, -0.2], [0.8, -0.08], [-0.8, -0.08]], lighter(shade, 0.5));
}

/// Two crossed blades with two rings for the fingers.
pub fn scissors(p: &mut Pen, d: &mut Draws) {
    let handle = vivid(d, 20.0);
    let steel = about(d, &[[200, 204, 212], GREY]);
    for side in [-1.0, 1.0] {
        let x = |x: f32| x * side;
        p.poly(&[[x(-0.5), -0.96], [x(0.14), 0.2], [x(-0.06), 0.26], [x(-0.62), -0.8]], steel);
        p.line(&[[x(0.02), 0.05], [x(0.24), 0.4]], 0.14, handle);
        p.arc([x(0.4), 0.64], [0.24, 0.27], 0.0, 360.0, 0.15, handle);
    }
    p.oval(0.0, 0.02, 0.08, 0.08, INK);
}

/// A scalloped canopy in gores over a hooked stick.
pub fn umbrella(p: &mut Pen, d: &mut Draws) {
    let colour = vivid(d, 265.0);
    let other = if d.chance(0.5) { lighter(colour, 0.6) } else { vivid(d, 60.0) };
    p.line(&[[0.0, -0.9], [0.0, 0.72]], 0.09, BROWN);
    p.arc([0.17, 0.72], [0.17, 0.2], 0.0, 180.0, 0.09, BROWN);
    p.line(&[[0.0, -0.97], [0.0, -0.8]], 0.07, INK);
    p.segment([0.0, 0.05], [0.97, 0.9], 180.0, 360.0, colour);
    p.poly(&[[0.0, -0.85], [-0.34, 0.05], [0.34, 0.05]], other);
    let gore = arc_points(0.0, 0.05, 0.97, 0.9, 180.0, 222.0);
    p.poly(&[gore, vec![[0.0, -0.85], [-0.62, 0.05]]].concat(), other);
    let gore = arc_points(0.0, 0.05, 0.97, 0.9, 318.0, 360.0);
    p.poly(&[gore, vec![[0.62, 0.05], [0.0, -0.85]]].concat(), other);
    for (x, c) in [
        (-0.8, other),
        (-0.48, colour),
        (-0.17, other),
        (0.17, other),
        (0.48, colour),
        (0.8, other),
    ] {
        p.oval(x, 0.05, 0.17, 0.1, c);
    }
}
