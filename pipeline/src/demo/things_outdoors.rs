//! Drawings of what stands, drives and flies outdoors.
//!
//! In: a pen on a box of −1 … 1 and the thing's own draws. Out: strokes inside the box.

use super::colour::{BROWN, GOLD, GREY, INK, RED, WHITE, about, darker, lighter, vivid};
use super::random::Draws;
use super::raster::{Pen, Point, arc_points};

/// Glass by day.
const PANE: [u8; 3] = [150, 200, 230];

/// An arched deck on two piers with a railing.
pub fn bridge(p: &mut Pen, d: &mut Draws) {
    let stone = about(d, &[GREY, [170, 140, 110], [190, 90, 60], [120, 80, 60]]);
    let mut outline = vec![[-1.0, 0.75], [-1.0, -0.15], [1.0, -0.15], [1.0, 0.75], [0.82, 0.75]];
    outline.extend(arc_points(0.44, 0.75, 0.36, 0.6, 0.0, -180.0));
    outline.extend(arc_points(-0.44, 0.75, 0.36, 0.6, 0.0, -180.0));
    outline.push([-0.82, 0.75]);
    p.poly(&outline, stone);
    p.line(&[[-0.95, -0.15], [0.95, -0.15]], 0.12, darker(stone, 0.3));
    p.line(&[[-0.95, -0.5], [0.95, -0.5]], 0.09, darker(stone, 0.3));
    for i in 0..7 {
        let x = i as f32 * 0.3 - 0.9;
        p.line(&[[x, -0.5], [x, -0.15]], 0.07, darker(stone, 0.3));
    }
}

/// A cabin with windows on a body with two wheels.
pub fn car(p: &mut Pen, d: &mut Draws) {
    let paint = vivid(d, 210.0);
    p.poly(&[[-0.58, -0.05], [-0.34, -0.55], [0.36, -0.55], [0.66, -0.05]], paint);
    p.poly(&[[-0.44, -0.06], [-0.27, -0.43], [-0.02, -0.43], [-0.02, -0.06]], PANE);
    p.poly(&[[0.06, -0.06], [0.06, -0.43], [0.3, -0.43], [0.5, -0.06]], PANE);
    p.blob(
        &[[-0.97, 0.1], [-0.6, -0.1], [0.66, -0.1], [0.97, 0.12], [0.97, 0.4], [-0.97, 0.4]],
        paint,
    );
    p.rect(-0.94, 0.3, 0.94, 0.4, darker(paint, 0.4));
    p.oval(0.9, 0.15, 0.08, 0.09, GOLD);
    for x in [-0.54, 0.54] {
        p.oval(x, 0.38, 0.25, 0.25, INK);
        p.oval(x, 0.38, 0.12, 0.12, [200, 204, 210]);
    }
}

/// Pointed boards on two rails.
pub fn fence(p: &mut Pen, d: &mut Draws) {
    let wood = about(d, &[WHITE, BROWN, [190, 150, 100], [120, 160, 170]]);
    for y in [-0.12, 0.4] {
        p.rect(-1.0, y, 1.0, y + 0.15, darker(wood, 0.25));
    }
    for i in 0..5 {
        let x = i as f32 * 0.42 - 0.84;
        p.poly(
            &[[x - 0.13, 0.75], [x - 0.13, -0.45], [x, -0.68], [x + 0.13, -0.45], [x + 0.13, 0.75]],
            wood,
        );
    }
}

/// A waving cloth with bars on a pole.
pub fn flag(p: &mut Pen, d: &mut Draws) {
    let colours =
        [vivid(d, 0.0), if d.chance(0.6) { WHITE } else { vivid(d, 60.0) }, vivid(d, 225.0)];
    let wave = |x: f32| 0.07 * (if x < 0.2 { x + 0.7 } else { 1.1 - x });
    for (i, &colour) in colours.iter().enumerate() {
        let y = -0.92 + 0.32 * i as f32;
        let upper: Vec<Point> =
            (0..=8).map(|k| k as f32 * 0.2 - 0.68).map(|x| [x, y + wave(x)]).collect();
        let lower = upper.iter().rev().map(|&[x, top]| [x, top + 0.33]);
        p.poly(&upper.iter().copied().chain(lower).collect::<Vec<_>>(), colour);
    }
    p.line(&[[-0.72, -0.9], [-0.72, 0.92]], 0.13, about(d, &[BROWN, GREY, [60, 60, 66]]));
    p.oval(-0.72, -0.9, 0.1, 0.09, GOLD);
}

/// Walls, a pitched roof, a chimney, a door and two windows.
pub fn house(p: &mut Pen, d: &mut Draws) {
    let wall =
        about(d, &[[236, 220, 190], [200, 110, 90], [170, 200, 210], [240, 200, 110], WHITE]);
    let roof = about(d, &[[170, 60, 50], [90, 70, 70], [80, 90, 130], [110, 130, 80]]);
    let door = about(d, &[BROWN, [60, 90, 60], [40, 70, 130], RED]);
    p.rect(0.36, -0.9, 0.6, -0.2, darker(roof, 0.3));
    p.rect(-0.74, -0.15, 0.74, 0.95, wall);
    p.poly(&[[-0.97, -0.08], [0.0, -0.92], [0.97, -0.08]], roof);
    p.rect(-0.16, 0.32, 0.2, 0.95, door);
    p.oval(0.12, 0.66, 0.04, 0.04, GOLD);
    for x in [-0.46, 0.48] {
        p.rect(x - 0.18, 0.1, x + 0.18, 0.46, WHITE);
        p.rect(x - 0.13, 0.15, x + 0.13, 0.41, PANE);
        p.line(&[[x, 0.12], [x, 0.44]], 0.05, WHITE);
    }
}

/// A pointed hull with a porthole, fins and a flame.
pub fn rocket(p: &mut Pen, d: &mut Draws) {
    let hull = about(d, &[WHITE, [200, 206, 214], [90, 130, 200], [230, 190, 80]]);
    let fin = about(d, &[RED, [230, 120, 40], [60, 60, 130]]);
    p.blob(&[[0.0, 0.99], [0.2, 0.68], [0.0, 0.5], [-0.2, 0.68]], [250, 160, 40]);
    p.blob(&[[0.0, 0.85], [0.1, 0.66], [0.0, 0.5], [-0.1, 0.66]], [255, 236, 130]);
    for side in [-1.0, 1.0] {
        p.poly(
            &[[0.2 * side, 0.05], [0.62 * side, 0.5], [0.58 * side, 0.78], [0.2 * side, 0.56]],
            fin,
        );
    }
    p.blob(
        &[
            [0.0, -0.99],
            [0.3, -0.42],
            [0.32, 0.2],
            [0.22, 0.6],
            [-0.22, 0.6],
            [-0.32, 0.2],
            [-0.3, -0.42],
        ],
        hull,
    );
    p.poly(&[[0.0, -0.99], [0.24, -0.52], [-0.24, -0.52]], fin);
    p.oval(0.0, -0.16, 0.19, 0.19, darker(fin, 0.3));
    p.oval(0.0, -0.16, 0.13, 0.13, PANE);
}

/// A hull with a mast and two sails.
pub fn sailboat(p: &mut Pen, d: &mut Draws) {
    let hull = about(d, &[BROWN, [180, 50, 50], [50, 80, 140], [60, 110, 90]]);
    let sail = about(d, &[WHITE, [240, 220, 170], [240, 150, 120]]);
    p.line(&[[0.0, -0.94], [0.0, 0.5]], 0.08, [90, 60, 40]);
    p.poly(&[[0.08, -0.88], [0.8, 0.36], [0.08, 0.36]], sail);
    p.poly(&[[-0.08, -0.72], [-0.08, 0.36], [-0.7, 0.36]], darker(sail, 0.12));
    p.poly(&[[-0.97, 0.46], [0.97, 0.46], [0.62, 0.92], [-0.62, 0.92]], hull);
    p.line(&[[-0.88, 0.52], [0.88, 0.52]], 0.07, lighter(hull, 0.5));
}

/// Balls of snow with a hat, a carrot, buttons and twigs.
pub fn snowman(p: &mut Pen, d: &mut Draws) {
    let snow = about(d, &[WHITE, [226, 236, 246]]);
    let hat = about(d, &[INK, RED, [60, 80, 150]]);
    p.line(&[[-0.3, 0.0], [-0.78, -0.32]], 0.07, BROWN);
    p.line(&[[0.3, 0.0], [0.78, -0.28]], 0.07, BROWN);
    p.oval(0.0, 0.58, 0.52, 0.42, darker(snow, 0.08));
    p.oval(0.0, 0.02, 0.38, 0.32, darker(snow, 0.04));
    p.oval(0.0, -0.45, 0.29, 0.28, snow);
    p.line(&[[-0.36, -0.62], [0.36, -0.62]], 0.09, hat);
    p.rect(-0.22, -0.98, 0.22, -0.62, hat);
    p.line(&[[-0.3, -0.2], [0.28, -0.2], [0.34, 0.12]], 0.1, vivid(d, 200.0));
    p.poly(&[[0.0, -0.5], [0.36, -0.4], [0.0, -0.36]], [240, 130, 40]);
    for (x, y) in [(-0.11, -0.52), (0.11, -0.54), (0.0, 0.0), (0.0, 0.42), (0.0, 0.66)] {
        p.oval(x, y, 0.05, 0.05, INK);
    }
}

/// A ridge with two sides and an open, dark entrance.
pub fn tent(p: &mut Pen, d: &mut Draws) {
    let cloth =
        about(d, &[[220, 120, 50], [80, 140, 80], [60, 110, 170], [200, 60, 60], [200, 180, 120]]);
    p.line(&[[-0.06, -0.86], [0.1, -0.62]], 0.07, BROWN);
    p.line(&[[0.06, -0.86], [-0.1, -0.62]], 0.07, BROWN);
    p.poly(&[[0.0, -0.72], [0.98, 0.8], [-0.98, 0.8]], cloth);
    p.poly(&[[0.0, -0.72], [0.98, 0.8], [0.3, 0.8]], darker(cloth, 0.2));
    p.poly(&[[0.0, -0.2], [0.34, 0.8], [-0.34, 0.8]], [50, 40, 40]);
    p.poly(&[[0.0, -0.2], [-0.34, 0.8], [-0.5, 0.8]], lighter(cloth, 0.4));
    p.line(&[[-0.95, 0.8], [0.95, 0.8]], 0.07, darker(cloth, 0.4));
}

/// A tyre, a rim, eight spokes and a hub.
pub fn wheel(p: &mut Pen, d: &mut Draws) {
    let tyre = about(d, &[INK, BROWN, [90, 90, 96]]);
    let spoke = about(d, &[[206, 210, 216], GOLD, [180, 130, 80], RED]);
    p.arc([0.0, 0.0], [0.85, 0.85], 0.0, 360.0, 0.24, tyre);
    p.arc([0.0, 0.0], [0.7, 0.7], 0.0, 360.0, 0.09, spoke);
    for [x, y] in arc_points(0.0, 0.0, 0.7, 0.7, 0.0, 360.0).into_iter().step_by(6) {
        p.line(&[[0.0, 0.0], [x, y]], 0.1, spoke);
    }
    p.oval(0.0, 0.0, 0.2, 0.2, darker(spoke, 0.3));
}

/// A frame with four panes, curtains and a sill.
pub fn window(p: &mut Pen, d: &mut Draws) {
    let frame = about(d, &[WHITE, BROWN, [60, 90, 70], [110, 60, 60]]);
    let pane = about(d, &[PANE, [250, 226, 130], [70, 90, 130]]);
    p.rect(-0.72, -0.95, 0.72, 0.85, frame);
    for (x, y) in [(-0.6, -0.83), (0.06, -0.83), (-0.6, 0.02), (0.06, 0.02)] {
        p.rect(x, y, x + 0.54, y + 0.71, pane);
        p.line(&[[x + 0.1, y + 0.3], [x + 0.3, y + 0.1]], 0.06, lighter(pane, 0.5));
    }
    p.rect(-0.9, 0.8, 0.9, 0.97, darker(frame, 0.2));
}
