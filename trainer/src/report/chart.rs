//! Line charts as inline SVG; colours come from the page's style.
//!
//! In: curves. Out: a `<figure>`. Never: a script; a colour of its own.

use std::fmt::Write;

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 30.0;
/// About how many lines the grid has on a side.
const TICKS: f64 = 5.0;
/// Points of a curve; more cannot be told apart at this width.
const POINTS_MAX: usize = 600;

/// A curve.
#[derive(Clone, Debug)]
pub struct Series {
    /// What it is.
    pub name: &'static str,
    /// Its name in the style sheet.
    pub style: &'static str,
    /// x rising.
    pub points: Vec<(f64, f64)>,
}

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// What is drawn.
    pub title: &'static str,
    /// What x is.
    pub x_label: &'static str,
    /// Curves, the lowest first.
    pub series: Vec<Series>,
    /// Whether y begins at 0, or at the lowest point.
    pub from_zero: bool,
}

/// One side of a chart: values to places.
struct Axis {
    from: f64,
    to: f64,
    tick: f64,
    place_from: f64,
    place_to: f64,
}

impl Axis {
    fn new(from: f64, to: f64, place_from: f64, place_to: f64) -> Self {
        let range = if to > from { to - from } else { from.abs().max(1e-9) };
        let tick = nice(range / TICKS);
        let (from, to) = ((from / tick).floor() * tick, ((from + range) / tick).ceil() * tick);
        Self { from, to, tick, place_from, place_to }
    }

    fn place(&self, value: f64) -> f64 {
        let share = (value - self.from) / (self.to - self.from);
        self.place_from + share * (self.place_to - self.place_from)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> + '_ {
        let count = ((self.to - self.from) / self.tick).round() as u32;
        (0..=count).map(|at| self.from + f64::from(at) * self.tick)
    }

    /// A value with as many decimals as the ticks need.
    fn text(&self, value: f64) -> String {
        let decimals = (-self.tick.log10().floor()).max(0.0) as usize;
        format!("{value:.decimals$}")
    }
}

/// The next of 1, 2, 5, 10 … times a power of ten that is not smaller.
fn nice(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let times = [1.0, 2.0, 5.0].into_iter().find(|times| times * power >= step * 0.999);
    times.unwrap_or(10.0) * power
}

impl Chart {
    /// Whether there is anything to draw.
    pub fn has_points(&self) -> bool {
        self.series.iter().any(|series| !series.points.is_empty())
    }

    /// The chart with its title and legend.
    pub fn svg(&self) -> String {
        let all = || self.series.iter().flat_map(|series| &series.points);
        let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::MIN, f64::max);
        let lowest = all().map(|point| point.1).fold(f64::MAX, f64::min);
        let x_to = largest(&mut all().map(|point| point.0));
        let y_to = largest(&mut all().map(|point| point.1));
        let x = Axis { to: x_to, ..Axis::new(0.0, x_to, LEFT, WIDTH - RIGHT) };
        let y_from = if self.from_zero { 0.0 } else { lowest };
        let y = Axis::new(y_from, y_to, HEIGHT - BOTTOM, TOP);
        let mut out = format!(
            "<figure class=\"chart\">\n<figcaption>{}</figcaption>\n\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            self.title, self.title
        );
        self.draw_grid(&mut out, &x, &y);
        for series in &self.series {
            draw_series(&mut out, series, &x, &y);
        }
        out.push_str("</svg>\n<p class=\"legend\">");
        for series in self.series.iter().filter(|series| !series.points.is_empty()) {
            _ = write!(out, "<span class=\"key {}\">{}</span>", series.style, series.name);
        }
        out.push_str("</p>\n</figure>\n");
        out
    }

    fn draw_grid(&self, out: &mut String, x: &Axis, y: &Axis) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for value in y.ticks() {
            let (at, text) = (y.place(value), y.text(value));
            _ = writeln!(
                out,
                "<line class=\"grid-line\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" \
                 y2=\"{at:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                LEFT - 7.0,
                at + 4.0
            );
        }
        for value in x.ticks().filter(|&value| value <= x.to) {
            let (at, text) = (x.place(value), x.text(value));
            let y = bottom + 18.0;
            _ = writeln!(
                out,
                "<text x=\"{at:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{text}</text>"
            );
        }
        _ = writeln!(
            out,
            "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            right,
            HEIGHT - 1.0,
            self.x_label
        );
    }
}

fn draw_series(out: &mut String, series: &Series, x: &Axis, y: &Axis) {
    let stride = series.points.len().div_ceil(POINTS_MAX).max(1);
    let last = series.points.len().saturating_sub(1);
    let kept = series.points.iter().enumerate().filter(|(at, _)| at % stride == 0 || *at == last);
    let places: Vec<_> = kept.map(|(_, point)| (x.place(point.0), y.place(point.1))).collect();
    let text: String = places.iter().map(|(x, y)| format!("{x:.1},{y:.1} ")).collect();
    _ = writeln!(out, "<polyline class=\"{}\" points=\"{}\"/>", series.style, text.trim_end());
    // A few points are told apart by dots; a line of one point would not be seen at all.
    if places.len() <= 24 && series.style != "dashed" {
        for (x, y) in places {
            _ = writeln!(
                out,
                "<circle class=\"{}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>",
                series.style
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: &[(f64, f64)]) -> String {
        let series = Series { name: "model", style: "first", points: points.to_vec() };
        Chart { title: "Loss", x_label: "step", series: vec![series], from_zero: false }.svg()
    }

    #[test]
    fn ticks_are_round_numbers() {
        let axis = Axis::new(0.31, 2.4, 0.0, 100.0);
        let ticks: Vec<String> = axis.ticks().map(|tick| axis.text(tick)).collect();
        assert_eq!(ticks, ["0.0", "0.5", "1.0", "1.5", "2.0", "2.5"]);
    }

    #[test]
    fn the_first_and_the_last_point_are_drawn_of_a_long_curve() {
        let points: Vec<_> = (0..5000).map(|x| (f64::from(x), f64::from(x % 7))).collect();
        let svg = chart(&points);
        let line = svg.lines().find(|line| line.contains("<polyline")).unwrap();
        assert!(line.matches(',').count() <= POINTS_MAX + 1);
        assert!(line.contains("points=\"52.0,") && line.contains(" 446.0,"), "{line}");
    }

    #[test]
    fn a_curve_of_one_point_or_of_one_value_is_finite() {
        for points in [&[(1.0, 0.0)][..], &[(0.0, 5.0), (9.0, 5.0)]] {
            let svg = chart(points);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
