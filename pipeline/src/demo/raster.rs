//! A small antialiased rasteriser: polygons, ovals, strokes and smooth outlines.
//!
//! In: shapes in a thing's own box, x to the right and y down, both −1 … 1. Out: RGB pixels.
//! Antialiased by drawing [`FINE`]² sub-pixels a pixel and averaging them. Sub-pixels also carry
//! the number of the thing that owns them, so a scene can ask what is still visible.
//! Never: the platform's sine or cosine, whose last bits differ between machines.

use super::colour::{Rgb, darker};

/// Sub-pixels along one side of a pixel.
pub const FINE: usize = 3;
/// Points on a whole oval: at 64 px radius the flat sides miss the curve by 0.1 px.
const OVAL_POINTS: usize = 48;
/// Points of a smooth outline between two of its corners.
const SMOOTH_POINTS: usize = 8;
/// The owner of a sub-pixel that no thing covers.
pub const GROUND: u8 = 0;

/// A point in a thing's box.
pub type Point = [f32; 2];

/// Sine and cosine of an angle in degrees: Taylor's series on −45 … 45, so bit-equal everywhere.
pub fn sin_cos(degrees: f32) -> (f32, f32) {
    let quarters = (degrees / 90.0).round();
    let x = f64::from(degrees - quarters * 90.0) * (std::f64::consts::PI / 180.0);
    let x2 = x * x;
    let sin = x * (1.0 - x2 / 6.0 * (1.0 - x2 / 20.0 * (1.0 - x2 / 42.0 * (1.0 - x2 / 72.0))));
    let cos = 1.0 - x2 / 2.0 * (1.0 - x2 / 12.0 * (1.0 - x2 / 30.0 * (1.0 - x2 / 56.0)));
    let (sin, cos) = (sin as f32, cos as f32);
    match (quarters as i64).rem_euclid(4) {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

/// The points of an arc about (`x`, `y`), clockwise from degrees `from` to `to`; 0 is right,
/// 90 down.
pub fn arc_points(x: f32, y: f32, rx: f32, ry: f32, from: f32, to: f32) -> Vec<Point> {
    let steps = ((to - from).abs() / 360.0 * OVAL_POINTS as f32).ceil().max(2.0) as usize;
    let at = |step: usize| {
        let (sin, cos) = sin_cos(from + (to - from) * step as f32 / steps as f32);
        [x + rx * cos, y + ry * sin]
    };
    (0..=steps).map(at).collect()
}

/// A Catmull–Rom curve through `corners`, closed or open.
pub fn smooth(corners: &[Point], closed: bool) -> Vec<Point> {
    let n = corners.len() as isize;
    let corner = |i: isize| {
        let index = if closed { i.rem_euclid(n) } else { i.clamp(0, n - 1) };
        corners[index as usize]
    };
    let spans = if closed { n } else { n - 1 };
    let mut points = Vec::with_capacity(spans as usize * SMOOTH_POINTS + 1);
    for i in 0..spans {
        let (a, b, c, d) = (corner(i - 1), corner(i), corner(i + 1), corner(i + 2));
        for step in 0..SMOOTH_POINTS {
            let t = step as f32 / SMOOTH_POINTS as f32;
            points.push([0, 1].map(|k| {
                let slope = c[k] - a[k];
                let bend = 2.0 * a[k] - 5.0 * b[k] + 4.0 * c[k] - d[k];
                let twist = 3.0 * (b[k] - c[k]) + d[k] - a[k];
                b[k] + 0.5 * t * (slope + t * (bend + t * twist))
            }));
        }
    }
    if !closed {
        points.push(corner(n - 1));
    }
    points
}

/// A square of sub-pixels with their owners.
#[derive(Clone, Debug)]
pub struct Canvas {
    side_px: usize,
    pixels: Vec<Rgb>,
    owners: Vec<u8>,
}

impl Canvas {
    /// A canvas of `side_px` × `side_px` pixels whose colours come from `ground`, which is given
    /// the middle of each as 0 … 1 from the left and from the top. The ground is not antialiased:
    /// it is asked once a pixel, because it costs more than all things on it.
    pub fn new(side_px: usize, mut ground: impl FnMut(f32, f32) -> Rgb) -> Self {
        let fine = side_px * FINE;
        let place = |i: usize| (i as f32 + 0.5) / side_px as f32;
        let mut pixels = Vec::with_capacity(fine * fine);
        for row in 0..side_px {
            for column in 0..side_px {
                let colour = ground(place(column), place(row));
                pixels.extend([colour; FINE]);
            }
            for _ in 1..FINE {
                pixels.extend_from_within(row * FINE * fine..(row * FINE + 1) * fine);
            }
        }
        Self { side_px, pixels, owners: vec![GROUND; fine * fine] }
    }

    /// Sub-pixels along one side.
    pub fn fine(&self) -> usize {
        self.side_px * FINE
    }

    /// Sub-pixels that `owner` owns now.
    pub fn visible(&self, owner: u8) -> usize {
        self.owners.iter().filter(|&&o| o == owner).count()
    }

    /// Mean distance, 0 … 255 a channel, between `self` and `before` where `owner` is on top.
    pub fn contrast(&self, before: &Self, owner: u8) -> f32 {
        let (mut sum, mut count) = (0_u64, 0_u64);
        for (i, _) in self.owners.iter().enumerate().filter(|&(_, &o)| o == owner) {
            let channels = self.pixels[i].iter().zip(&before.pixels[i]);
            sum += channels.map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>();
            count += 3;
        }
        sum as f32 / count.max(1) as f32
    }

    /// Darkens the sub-pixels of things within `width_fine` of another owner.
    pub fn outline(&mut self, width_fine: usize) {
        let fine = self.fine();
        let owners = &self.owners;
        let edge = |row: usize, column: usize| {
            let own = owners[row * fine + column];
            let differs = |r: usize, c: usize| owners[r * fine + c] != own;
            own != GROUND
                && ((row >= width_fine && differs(row - width_fine, column))
                    || (row + width_fine < fine && differs(row + width_fine, column))
                    || (column >= width_fine && differs(row, column - width_fine))
                    || (column + width_fine < fine && differs(row, column + width_fine)))
        };
        for row in 0..fine {
            for column in 0..fine {
                if edge(row, column) {
                    let pixel = &mut self.pixels[row * fine + column];
                    *pixel = darker(*pixel, 0.7);
                }
            }
        }
    }

    /// The means of all pixels: height × width × RGB, `side_px`² × 3 bytes.
    pub fn to_rgb(&self) -> Vec<u8> {
        let fine = self.fine();
        let mut rgb = Vec::with_capacity(self.side_px * self.side_px * 3);
        for row in 0..self.side_px {
            for column in 0..self.side_px {
                let mut sums = [0_u32; 3];
                for sub_row in 0..FINE {
                    let start = (row * FINE + sub_row) * fine + column * FINE;
                    for pixel in &self.pixels[start..start + FINE] {
                        sums.iter_mut().zip(pixel).for_each(|(sum, &c)| *sum += u32::from(c));
                    }
                }
                let area = (FINE * FINE) as u32;
                rgb.extend(sums.map(|sum| ((sum + area / 2) / area) as u8));
            }
        }
        rgb
    }
}

/// Where a thing's box lies on the canvas.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Middle of the box, 0 … 1 from the left of the canvas.
    pub x: f32,
    /// Middle of the box, 0 … 1 from its top.
    pub y: f32,
    /// Half the box's height, as a part of the canvas's side.
    pub radius: f32,
    /// Width ÷ height.
    pub stretch: f32,
    /// Clockwise turn.
    pub degrees: f32,
    /// Left and right are swapped.
    pub mirrored: bool,
    /// How much brighter the thing grows per box radius to the right and down.
    pub light: [f32; 2],
}

/// Draws one thing at one place.
#[derive(Debug)]
pub struct Pen<'a> {
    canvas: &'a mut Canvas,
    place: Place,
    owner: u8,
    across: [f32; 2],
    down: [f32; 2],
}

impl<'a> Pen<'a> {
    /// A pen whose strokes belong to `owner`.
    pub fn new(canvas: &'a mut Canvas, place: Place, owner: u8) -> Self {
        let radius = place.radius * canvas.fine() as f32;
        let (sin, cos) = sin_cos(place.degrees);
        let width = radius * place.stretch * if place.mirrored { -1.0 } else { 1.0 };
        Self {
            canvas,
            place,
            owner,
            across: [cos * width, sin * width],
            down: [-sin * radius, cos * radius],
        }
    }

    /// Fills a polygon; where it crosses itself, by the non-zero rule.
    pub fn poly(&mut self, corners: &[Point], colour: Rgb) {
        let fine = self.canvas.fine() as f32;
        let (x0, y0) = (self.place.x * fine, self.place.y * fine);
        let on_canvas = |&[x, y]: &Point| {
            [x0 + x * self.across[0] + y * self.down[0], y0 + x * self.across[1] + y * self.down[1]]
        };
        let corners: Vec<Point> = corners.iter().map(on_canvas).collect();
        let top = corners.iter().fold(fine, |low, p| low.min(p[1])).max(0.0) as usize;
        let bottom = corners.iter().fold(0.0, |high: f32, p| high.max(p[1])).min(fine) as usize;
        let mut crossings: Vec<(f32, i32)> = Vec::new();
        for row in top..(bottom + 1).min(self.canvas.fine()) {
            let y = row as f32 + 0.5;
            crossings.clear();
            for (i, a) in corners.iter().enumerate() {
                let b = corners[(i + 1) % corners.len()];
                if (a[1] <= y) != (b[1] <= y) {
                    let x = a[0] + (y - a[1]) / (b[1] - a[1]) * (b[0] - a[0]);
                    crossings.push((x, if a[1] <= y { 1 } else { -1 }));
                }
            }
            crossings.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mut winding = 0;
            for pair in crossings.windows(2) {
                winding += pair[0].1;
                if winding != 0 {
                    self.span(row, pair[0].0, pair[1].0, colour);
                }
            }
        }
    }

    /// Paints the sub-pixels of `row` whose middles lie in `from` … `to`.
    fn span(&mut self, row: usize, from: f32, to: f32, colour: Rgb) {
        let fine = self.canvas.fine();
        let column = |x: f32| (x - 0.5).ceil().clamp(0.0, fine as f32) as usize;
        let per_fine = 1.0 / (self.place.radius * fine as f32);
        let dy = (row as f32 + 0.5 - self.place.y * fine as f32) * per_fine;
        let middle = self.place.x * fine as f32;
        for column in column(from)..column(to) {
            let dx = (column as f32 + 0.5 - middle) * per_fine;
            let light = 1.0 + self.place.light[0] * dx + self.place.light[1] * dy;
            let at = row * fine + column;
            self.canvas.pixels[at] = colour.map(|c| (f32::from(c) * light) as u8);
            self.canvas.owners[at] = self.owner;
        }
    }

    /// Fills an upright rectangle between two corners.
    pub fn rect(&mut self, x0: f32, y0: f32, x1: f32, y1: f32, colour: Rgb) {
        self.poly(&[[x0, y0], [x1, y0], [x1, y1], [x0, y1]], colour);
    }

    /// Fills an oval about (`x`, `y`).
    pub fn oval(&mut self, x: f32, y: f32, rx: f32, ry: f32, colour: Rgb) {
        self.poly(&arc_points(x, y, rx, ry, 0.0, 360.0), colour);
    }

    /// Fills an oval that is turned clockwise by `degrees` about its own middle.
    pub fn turned_oval(&mut self, middle: Point, rx: f32, ry: f32, degrees: f32, colour: Rgb) {
        let (sin, cos) = sin_cos(degrees);
        let turn = |[x, y]: Point| [middle[0] + x * cos - y * sin, middle[1] + x * sin + y * cos];
        let points = arc_points(0.0, 0.0, rx, ry, 0.0, 360.0);
        self.poly(&points.into_iter().map(turn).collect::<Vec<_>>(), colour);
    }

    /// Fills the smooth closed outline through `corners`.
    pub fn blob(&mut self, corners: &[Point], colour: Rgb) {
        self.poly(&smooth(corners, true), colour);
    }

    /// Strokes the straight lines through `points`, `width` wide, with round ends and joints.
    pub fn line(&mut self, points: &[Point], width: f32, colour: Rgb) {
        let half = width / 2.0;
        for pair in points.windows(2) {
            let ([ax, ay], [bx, by]) = (pair[0], pair[1]);
            let (dx, dy) = (bx - ax, by - ay);
            let length = (dx * dx + dy * dy).sqrt().max(1e-6);
            let (nx, ny) = (-dy / length * half, dx / length * half);
            let quad =
                [[ax + nx, ay + ny], [bx + nx, by + ny], [bx - nx, by - ny], [ax - nx, ay - ny]];
            self.poly(&quad, colour);
        }
        for &[x, y] in points {
            self.oval(x, y, half, half, colour);
        }
    }

    /// Strokes the smooth open curve through `corners`.
    pub fn curve(&mut self, corners: &[Point], width: f32, colour: Rgb) {
        self.line(&smooth(corners, false), width, colour);
    }

    /// Strokes an arc about `middle` from degrees `from` to `to`; 0 is right, 90 down.
    pub fn arc(
        &mut self,
        middle: Point,
        radii: Point,
        from: f32,
        to: f32,
        width: f32,
        colour: Rgb,
    ) {
        self.line(&arc_points(middle[0], middle[1], radii[0], radii[1], from, to), width, colour);
    }

    /// Fills the piece of an oval between its arc and the arc's chord.
    pub fn segment(&mut self, middle: Point, radii: Point, from: f32, to: f32, colour: Rgb) {
        self.poly(&arc_points(middle[0], middle[1], radii[0], radii[1], from, to), colour);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upright(radius: f32) -> Place {
        Place {
            x: 0.5,
            y: 0.5,
            radius,
            stretch: 1.0,
            degrees: 0.0,
            mirrored: false,
            light: [0.0; 2],
        }
    }

    #[test]
    fn sine_and_cosine_agree_with_the_platforms() {
        for degrees in -720..=720 {
            let (sin, cos) = sin_cos(degrees as f32 + 0.25);
            let (s, c) = (f64::from(degrees) + 0.25).to_radians().sin_cos();
            assert!((f64::from(sin) - s).abs() < 1e-6 && (f64::from(cos) - c).abs() < 1e-6);
        }
    }

    #[test]
    fn areas_are_those_of_geometry() {
        let area = |draw: &dyn Fn(&mut Pen)| {
            let mut canvas = Canvas::new(100, |_, _| [0; 3]);
            draw(&mut Pen::new(&mut canvas, upright(0.5), 1));
            canvas.visible(1) as f32 / (canvas.fine() * canvas.fine()) as f32 * 4.0
        };
        let near = |found: f32, expected: f32| (found - expected).abs() < 0.02;
        assert!(near(area(&|p| p.rect(-1.0, -1.0, 1.0, 1.0, RED)), 4.0));
        assert!(near(area(&|p| p.oval(0.0, 0.0, 0.8, 0.5, RED)), 0.8 * 0.5 * std::f32::consts::PI));
        assert!(near(area(&|p| p.poly(&[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], RED)), 0.5));
        assert!(near(area(&|p| p.line(&[[-0.5, 0.0], [0.5, 0.0]], 0.2, RED)), 0.2 + 0.0314));
        assert!(near(area(&|p| p.rect(-3.0, -3.0, 3.0, 3.0, RED)), 4.0));
        assert!(near(area(&|p| p.rect(2.0, 2.0, 3.0, 3.0, RED)), 0.0));
    }

    #[test]
    fn an_edge_through_the_middle_of_a_pixel_gives_a_half_tone() {
        let mut canvas = Canvas::new(2, |_, _| [0; 3]);
        let mut pen = Pen::new(&mut canvas, upright(0.5), 1);
        pen.rect(-1.0, -1.0, -1.0 / 3.0, 1.0, [255; 3]);
        // Of the first pixel's three columns of sub-pixels two are white; the second is black.
        assert_eq!(canvas.to_rgb()[..6], [170, 170, 170, 0, 0, 0]);
    }

    #[test]
    fn a_smooth_outline_passes_through_its_corners() {
        let corners = [[0.0, -1.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]];
        let closed = smooth(&corners, true);
        assert!(corners.iter().all(|c| closed.contains(c)));
        assert_eq!(smooth(&corners, false).last(), Some(&[-1.0, 0.0]));
    }

    const RED: Rgb = [200, 0, 0];
}
