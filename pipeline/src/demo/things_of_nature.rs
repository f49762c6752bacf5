//! Drawings of what grows, crawls and shines.
//!
//! In: a pen on a box of −1 … 1 and the thing's own draws. Out: strokes inside the box.

use super::colour::{
    BROWN, GOLD, GREEN, GREY, INK, RED, WHITE, about, darker, hsv, lighter, vivid,
};
use super::random::Draws;
use super::raster::{Pen, Point, arc_points, sin_cos};

/// A point at `degrees` and distance `r` from the middle of the box.
fn polar(degrees: f32, r: f32) -> Point {
    let (sin, cos) = sin_cos(degrees);
    [r * cos, r * sin]
}

/// Round head of leaves, or a conifer's three tiers, on a trunk.
pub fn tree(p: &mut Pen, d: &mut Draws) {
    let bark = about(d, &[BROWN, [92, 62, 40]]);
    let crown = about(d, &[GREEN, [40, 110, 52], [120, 150, 50], [202, 120, 40]]);
    p.poly(&[[-0.13, 0.1], [0.13, 0.1], [0.19, 1.0], [-0.19, 1.0]], bark);
    if d.chance(0.35) {
        for (top, bottom, half) in [(-0.1, 0.62, 0.72), (-0.55, 0.2, 0.58), (-1.0, -0.25, 0.42)] {
            let crown = darker(crown, 0.25 * (bottom + 0.3));
            p.poly(&[[0.0, top], [half, bottom], [-half, bottom]], crown);
        }
    } else {
        let dark = darker(crown, 0.15);
        p.oval(-0.38, -0.05, 0.4, 0.36, dark);
        p.oval(0.38, -0.05, 0.4, 0.36, dark);
        p.oval(0.0, -0.45, 0.58, 0.52, crown);
        for (x, y) in [(-0.2, -0.6), (0.18, -0.35), (-0.35, -0.1), (0.4, -0.05)] {
            p.oval(x, y, 0.1, 0.08, lighter(crown, 0.2));
        }
    }
}

/// A disc with rays.
pub fn sun(p: &mut Pen, d: &mut Draws) {
    let colour = about(d, &[[250, 205, 50], [248, 170, 40], [240, 120, 40]]);
    let rays = 8 + d.below(5);
    for ray in 0..rays {
        let at = ray as f32 * 360.0 / rays as f32;
        let half = 360.0 / rays as f32 * 0.36;
        p.poly(&[polar(at - half, 0.6), polar(at, 0.98), polar(at + half, 0.6)], colour);
    }
    p.oval(0.0, 0.0, 0.56, 0.56, lighter(colour, 0.25));
}

/// A crescent.
pub fn moon(p: &mut Pen, d: &mut Draws) {
    let colour = about(d, &[[244, 236, 190], [226, 228, 236], [250, 214, 110]]);
    let thick = d.between(0.45, 0.7);
    let mut outline = arc_points(0.15, 0.0, 0.95, 0.95, 70.0, 290.0);
    let (sin, cos) = sin_cos(70.0);
    let (tip_x, tip_y) = (0.15 + 0.95 * cos, 0.95 * sin);
    // The inner edge: half an oval between the two tips.
    outline.extend(arc_points(tip_x, 0.0, 0.95 + tip_x - 0.15 - thick, tip_y, -90.0, -270.0));
    p.poly(&outline, colour);
    p.oval(-0.56, -0.3, 0.1, 0.1, darker(colour, 0.15));
    p.oval(-0.62, 0.15, 0.07, 0.07, darker(colour, 0.15));
}

/// Heaped ovals on a flat base.
pub fn cloud(p: &mut Pen, d: &mut Draws) {
    let colour = about(d, &[WHITE, [214, 220, 230], [176, 182, 196], [240, 214, 220]]);
    let shadow = darker(colour, 0.12);
    p.oval(-0.55, 0.22, 0.42, 0.32, shadow);
    p.oval(0.58, 0.24, 0.4, 0.3, shadow);
    p.rect(-0.55, 0.2, 0.58, 0.54, shadow);
    p.oval(-0.28, -0.12, 0.42, 0.4, colour);
    p.oval(0.25, -0.18, 0.48, 0.44, colour);
    p.oval(0.0, 0.16, 0.55, 0.28, colour);
}

/// A body with tail, fins, eye and gill.
pub fn fish(p: &mut Pen, d: &mut Draws) {
    let colour = vivid(d, 28.0);
    let fin = darker(colour, 0.3);
    p.blob(&[[0.4, 0.0], [0.98, -0.48], [0.85, 0.0], [0.98, 0.48]], fin);
    p.poly(&[[-0.3, -0.3], [0.25, -0.7], [0.3, -0.2]], fin);
    p.poly(&[[-0.1, 0.3], [0.2, 0.64], [0.25, 0.2]], fin);
    p.blob(
        &[[-0.98, 0.0], [-0.4, -0.42], [0.15, -0.36], [0.55, 0.0], [0.15, 0.36], [-0.4, 0.42]],
        colour,
    );
    if d.chance(0.5) {
        for x in [-0.2, 0.05, 0.28] {
            p.line(&[[x, -0.22], [x + 0.05, 0.22]], 0.09, lighter(colour, 0.5));
        }
    }
    p.arc([-0.62, 0.0], [0.16, 0.3], -70.0, 70.0, 0.05, fin);
    p.oval(-0.7, -0.1, 0.11, 0.11, WHITE);
    p.oval(-0.72, -0.1, 0.06, 0.06, INK);
}

/// Petals about an eye, on a stalk with a leaf.
pub fn flower(p: &mut Pen, d: &mut Draws) {
    let petals = 5 + d.below(4);
    let colour = about(
        d,
        &[[226, 60, 90], [240, 150, 190], [150, 90, 200], [244, 244, 240], [236, 120, 40]],
    );
    let eye = about(d, &[GOLD, [120, 70, 40]]);
    p.curve(&[[0.0, -0.3], [0.05, 0.3], [-0.03, 1.0]], 0.1, GREEN);
    p.turned_oval([0.25, 0.55], 0.27, 0.11, -30.0, GREEN);
    let first = d.between(0.0, 90.0);
    for petal in 0..petals {
        let at = first + petal as f32 * 360.0 / petals as f32;
        let [x, y] = polar(at, 0.36);
        let wide = 1.1 / petals as f32;
        p.turned_oval([x, y - 0.38], 0.26, wide, at, darker(colour, 0.08 * (petal % 2) as f32));
    }
    p.oval(0.0, -0.38, 0.18, 0.18, eye);
}

/// A dotted cap on a stem.
pub fn mushroom(p: &mut Pen, d: &mut Draws) {
    let cap = about(d, &[RED, BROWN, [196, 140, 90], [180, 90, 160]]);
    let stem = about(d, &[[238, 228, 206]]);
    p.blob(
        &[[-0.2, 0.0], [0.2, 0.0], [0.24, 0.5], [0.32, 0.95], [-0.32, 0.95], [-0.24, 0.5]],
        stem,
    );
    p.segment([0.0, 0.08], [0.92, 1.0], 180.0, 360.0, cap);
    p.oval(0.0, 0.08, 0.92, 0.16, darker(cap, 0.35));
    for (x, y, r) in
        [(-0.5, -0.3, 0.14), (0.02, -0.58, 0.17), (0.5, -0.35, 0.13), (0.05, -0.15, 0.1)]
    {
        p.oval(x, y, r, r * 0.85, WHITE);
    }
}

/// A pointed blade with veins and a stalk.
pub fn leaf(p: &mut Pen, d: &mut Draws) {
    let colour = about(d, &[GREEN, [120, 170, 60], [206, 110, 40], [170, 50, 40]]);
    let vein = lighter(colour, 0.45);
    p.line(&[[0.5, 0.0], [0.97, 0.05]], 0.08, darker(colour, 0.3));
    p.blob(
        &[[-0.98, 0.0], [-0.5, -0.4], [0.1, -0.5], [0.66, 0.0], [0.1, 0.5], [-0.5, 0.4]],
        colour,
    );
    p.line(&[[-0.85, 0.0], [0.62, 0.0]], 0.06, vein);
    for x in [-0.45, -0.1, 0.25] {
        p.line(&[[x - 0.2, -0.3], [x, 0.0], [x - 0.2, 0.3]], 0.04, vein);
    }
}

/// Two peaks, the front one with snow on top.
pub fn mountain(p: &mut Pen, d: &mut Draws) {
    let rock = about(d, &[GREY, [110, 100, 90], [96, 104, 130], [120, 84, 70]]);
    p.poly(&[[-0.1, 0.75], [0.5, -0.4], [1.0, 0.75]], darker(rock, 0.25));
    p.poly(&[[-1.0, 0.75], [-0.2, -0.9], [0.65, 0.75]], rock);
    p.poly(&[[-0.2, -0.9], [0.65, 0.75], [0.1, 0.75]], darker(rock, 0.15));
    let snow =
        [[-0.2, -0.9], [0.1, -0.31], [-0.02, -0.42], [-0.14, -0.22], [-0.28, -0.4], [-0.5, -0.28]];
    p.poly(&snow, WHITE);
}

/// A round fruit with two shoulders, stalk and leaf.
pub fn apple(p: &mut Pen, d: &mut Draws) {
    let colour = about(d, &[RED, [178, 30, 50], [140, 180, 60], [222, 180, 70]]);
    let outline = [
        [0.0, -0.42],
        [0.42, -0.58],
        [0.82, -0.25],
        [0.74, 0.35],
        [0.35, 0.9],
        [0.0, 0.8],
        [-0.35, 0.9],
        [-0.74, 0.35],
        [-0.82, -0.25],
        [-0.42, -0.58],
    ];
    p.blob(&outline, colour);
    p.line(&[[0.0, -0.42], [0.06, -0.92]], 0.1, BROWN);
    p.turned_oval([0.36, -0.8], 0.3, 0.13, -20.0, GREEN);
    p.turned_oval([-0.42, -0.15], 0.12, 0.24, 25.0, lighter(colour, 0.55));
}

/// Five points.
pub fn star(p: &mut Pen, d: &mut Draws) {
    let colour = about(d, &[GOLD, [250, 230, 120], RED, [90, 130, 220], WHITE]);
    let point =
        |i: usize| polar(i as f32 * 36.0 - 90.0, if i.is_multiple_of(2) { 0.98 } else { 0.42 });
    let outline: Vec<Point> = (0..10).map(point).collect();
    p.poly(&outline, colour);
    // Each ray has a lit and a shaded side.
    for i in (0..10).step_by(2) {
        p.poly(&[[0.0, 0.0], outline[i], outline[i + 1]], darker(colour, 0.14));
    }
}

/// Four spotted wings, a body and feelers.
pub fn butterfly(p: &mut Pen, d: &mut Draws) {
    let colour = vivid(d, 280.0);
    let spot = if d.chance(0.5) { lighter(colour, 0.6) } else { vivid(d, 45.0) };
    for side in [-1.0, 1.0] {
        let upper = [[0.05, -0.1], [0.35, -0.72], [0.92, -0.78], [0.88, -0.15], [0.4, 0.05]];
        let lower = [[0.05, 0.0], [0.5, 0.05], [0.76, 0.4], [0.5, 0.82], [0.18, 0.5]];
        p.blob(&upper.map(|[x, y]| [x * side, y]), colour);
        p.blob(&lower.map(|[x, y]| [x * side, y]), darker(colour, 0.25));
        p.oval(0.6 * side, -0.42, 0.17, 0.17, spot);
        p.oval(0.46 * side, 0.42, 0.12, 0.14, spot);
        p.curve(&[[0.0, -0.5], [0.1 * side, -0.75], [0.22 * side, -0.92]], 0.05, INK);
    }
    p.oval(0.0, 0.0, 0.09, 0.56, INK);
}

/// A ribbed column with two raised arms.
pub fn cactus(p: &mut Pen, d: &mut Draws) {
    let colour = about(d, &[GREEN, [60, 120, 80], [110, 150, 70]]);
    let rib = darker(colour, 0.3);
    let (left, right) = (d.between(0.1, 0.4), d.between(-0.1, 0.25));
    p.line(&[[0.0, left], [-0.62, left], [-0.62, left - 0.55]], 0.28, colour);
    p.line(&[[0.0, right], [0.62, right], [0.62, right - 0.5]], 0.28, colour);
    p.line(&[[0.0, -0.72], [0.0, 0.82]], 0.46, colour);
    p.rect(-0.23, 0.75, 0.23, 1.0, colour);
    for x in [-0.1, 0.1] {
        p.line(&[[x, -0.7], [x, 0.95]], 0.05, rib);
    }
    for y in [-0.6, -0.25, 0.1, 0.45, 0.8] {
        p.line(&[[-0.3, y], [-0.16, y]], 0.04, WHITE);
        p.line(&[[0.3, y], [0.16, y]], 0.04, WHITE);
    }
    if d.chance(0.4) {
        p.oval(0.0, -0.92, 0.14, 0.08, [230, 80, 140]);
    }
}

/// Eight bent legs on a body in two parts.
pub fn spider(p: &mut Pen, d: &mut Draws) {
    let colour = about(d, &[INK, [70, 50, 40], [96, 40, 40]]);
    for side in [-1.0, 1.0] {
        for (knee, foot) in [([0.5, -0.68], [0.7, -0.98]), ([0.66, -0.38], [0.97, -0.42])] {
            p.line(
                &[[0.1 * side, -0.15], [knee[0] * side, knee[1]], [foot[0] * side, foot[1]]],
                0.08,
                colour,
            );
        }
        for (knee, foot) in [([0.66, 0.14], [0.97, 0.42]), ([0.5, 0.42], [0.66, 0.97])] {
            p.line(
                &[[0.1 * side, 0.0], [knee[0] * side, knee[1]], [foot[0] * side, foot[1]]],
                0.08,
                colour,
            );
        }
    }
    p.oval(0.0, 0.3, 0.36, 0.42, colour);
    p.oval(0.0, -0.22, 0.24, 0.22, colour);
    if d.chance(0.6) {
        p.poly(&[[-0.12, 0.12], [0.12, 0.12], [-0.12, 0.5], [0.12, 0.5]], RED);
    }
    p.oval(-0.09, -0.32, 0.05, 0.05, WHITE);
    p.oval(0.09, -0.32, 0.05, 0.05, WHITE);
}

/// A winding body with a head, an eye and a forked tongue.
pub fn snake(p: &mut Pen, d: &mut Draws) {
    let colour = about(d, &[[90, 150, 60], [150, 120, 50], [190, 90, 50], [60, 120, 130]]);
    let path = [
        [0.92, 0.62],
        [0.6, 0.72],
        [0.42, 0.1],
        [0.2, -0.38],
        [-0.02, 0.2],
        [-0.22, 0.62],
        [-0.46, 0.1],
        [-0.62, -0.42],
    ];
    p.curve(&path, 0.25, colour);
    p.curve(&path, 0.08, lighter(colour, 0.45));
    p.line(&[[-0.8, -0.62], [-0.96, -0.7]], 0.05, RED);
    p.turned_oval([-0.68, -0.56], 0.25, 0.18, 30.0, colour);
    p.oval(-0.68, -0.62, 0.07, 0.07, WHITE);
    p.oval(-0.7, -0.62, 0.04, 0.04, INK);
}

/// Nested half rings in the order of their colours.
pub fn rainbow(p: &mut Pen, d: &mut Draws) {
    let bands = 5 + d.below(2);
    let width = 0.56 / bands as f32;
    let (saturation, value) = (d.between(0.6, 0.85), d.between(0.85, 0.98));
    for band in 0..bands {
        let radius = 0.92 - width * (band as f32 + 0.5);
        let hue = 280.0 * band as f32 / (bands - 1) as f32;
        let colour = hsv(hue, saturation, value);
        let outer = arc_points(
            0.0,
            0.45,
            radius + width * 0.55,
            (radius + width * 0.55) * 1.3,
            180.0,
            360.0,
        );
        let inner = arc_points(
            0.0,
            0.45,
            radius - width * 0.55,
            (radius - width * 0.55) * 1.3,
            360.0,
            180.0,
        );
        p.poly(&[outer, inner].concat(), colour);
    }
}

/// A tapering root with rings and a tuft.
pub fn carrot(p: &mut Pen, d: &mut Draws) {
    let colour = about(d, &[[236, 124, 36], [220, 96, 30], [244, 150, 60]]);
    for (x, y) in [(-0.32, -0.88), (-0.1, -0.98), (0.14, -0.98), (0.34, -0.85)] {
        p.curve(&[[0.0, -0.42], [x * 0.6, -0.7], [x, y]], 0.12, GREEN);
    }
    p.blob(
        &[[0.0, -0.52], [0.34, -0.4], [0.24, 0.1], [0.0, 0.98], [-0.24, 0.1], [-0.34, -0.4]],
        colour,
    );
    for (x, y) in [(-0.28, -0.25), (0.08, -0.05), (-0.18, 0.2), (0.02, 0.45)] {
        p.line(&[[x, y], [x + 0.18, y + 0.02]], 0.05, darker(colour, 0.3));
    }
}

/// A fruit with a narrow neck.
pub fn pear(p: &mut Pen, d: &mut Draws) {
    let colour = about(d, &[[180, 196, 70], [214, 200, 80], [150, 170, 60], [196, 140, 60]]);
    let half = [[0.0, -0.72], [0.22, -0.58], [0.27, -0.2], [0.62, 0.25], [0.56, 0.76], [0.0, 0.97]];
    let other = half[1..5].iter().rev().map(|&[x, y]| [-x, y]);
    p.blob(&half.iter().copied().chain(other).collect::<Vec<_>>(), colour);
    p.line(&[[0.0, -0.7], [0.08, -0.97]], 0.09, BROWN);
    p.turned_oval([0.28, -0.86], 0.22, 0.09, -15.0, GREEN);
    p.turned_oval([-0.28, 0.3], 0.1, 0.22, 15.0, lighter(colour, 0.5));
}

/// A coiled shell on a foot with two feelers.
pub fn snail(p: &mut Pen, d: &mut Draws) {
    let shell = about(d, &[[190, 120, 70], [220, 170, 90], [150, 90, 110], [100, 120, 150]]);
    let skin = about(d, &[[206, 190, 140], [170, 160, 150]]);
    p.blob(
        &[[-0.95, 0.85], [-0.85, 0.1], [-0.62, 0.1], [-0.5, 0.5], [0.5, 0.6], [0.98, 0.88]],
        skin,
    );
    p.line(&[[-0.8, 0.15], [-0.95, -0.3]], 0.06, skin);
    p.line(&[[-0.7, 0.15], [-0.66, -0.32]], 0.06, skin);
    p.oval(-0.95, -0.3, 0.05, 0.05, INK);
    p.oval(-0.66, -0.32, 0.05, 0.05, INK);
    p.oval(0.14, -0.06, 0.66, 0.66, shell);
    let coil = (0..=24).map(|step| {
        let [x, y] = polar(step as f32 * 37.0, 0.06 + step as f32 * 0.022);
        [x + 0.14, y - 0.06]
    });
    p.line(&coil.collect::<Vec<_>>(), 0.07, darker(shell, 0.4));
}
