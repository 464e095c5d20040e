//! A line plot, drawn by hand: a few lines of SVG are no reason for a plotting library.

use std::fmt::Write;

/// Lines over a common x axis; y is logarithmic, because a fork and a clone3 would not be seen on one scale otherwise.
#[derive(Debug)]
pub struct Drawing<'a> {
    /// Above it.
    pub title: &'a str,
    /// Below it.
    pub x: &'a str,
    /// What y is.
    pub y: &'a str,
    /// The lines.
    pub lines: Vec<Line<'a>>,
}

/// One line.
#[derive(Debug)]
pub struct Line<'a> {
    /// Its name, written at its right end.
    pub name: &'a str,
    /// Drawn thicker.
    pub strong: bool,
    /// x and y; y is greater than 0.
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 230.0;
const TOP: f64 = 45.0;
const BOTTOM: f64 = 55.0;
/// Told apart by most people who see colours differently.
const COLOURS: [&str; 10] =
    ["#0072b2", "#000000", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#8c564b", "#b5a800"];

/// Where things are on the paper.
struct Scale {
    x: (f64, f64),
    decades: (f64, f64),
}

impl Scale {
    fn of(lines: &[Line<'_>]) -> Self {
        let points = || lines.iter().flat_map(|line| line.points.iter().copied());
        let most = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::NEG_INFINITY, f64::max);
        let (low, high) = (-most(&mut points().map(|p| -p.0)), most(&mut points().map(|p| p.0)));
        let (bottom, top) = (-most(&mut points().map(|p| -p.1)), most(&mut points().map(|p| p.1)));
        let (bottom, top) = (bottom.log10().floor(), top.log10().ceil());
        Scale { x: (low, high.max(low + 1.0)), decades: (bottom, top.max(bottom + 1.0)) }
    }

    fn x(&self, x: f64) -> f64 {
        LEFT + (x - self.x.0) / (self.x.1 - self.x.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, y: f64) -> f64 {
        let up = (y.log10() - self.decades.0) / (self.decades.1 - self.decades.0);
        HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)
    }
}

/// The drawing as an SVG file; empty without a point.
#[must_use]
pub fn draw(drawing: &Drawing<'_>) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    if drawing.lines.iter().all(|line| line.points.is_empty()) {
        return svg + "</svg>\n";
    }
    let scale = Scale::of(&drawing.lines);
    axes(&mut svg, drawing, &scale);
    let ends = names(&drawing.lines, &scale);
    for ((line, colour), end) in drawing.lines.iter().zip(COLOURS.iter().cycle()).zip(ends) {
        let width = if line.strong { 3.0 } else { 1.5 };
        let points: Vec<String> =
            line.points.iter().map(|(x, y)| format!("{:.1},{:.1}", scale.x(*x), scale.y(*y))).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
            points.join(" ")
        );
        for (x, y) in &line.points {
            let (x, y) = (scale.x(*x), scale.y(*y));
            let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{:.1}\" fill=\"{colour}\"/>", width + 0.5);
        }
        text(&mut svg, WIDTH - RIGHT + 14.0, end + 4.0, "start", &format!("fill=\"{colour}\""), line.name);
    }
    svg + "</svg>\n"
}

fn axes(svg: &mut String, drawing: &Drawing<'_>, scale: &Scale) {
    text(svg, LEFT, 26.0, "start", "font-size=\"16\"", drawing.title);
    text(svg, f64::midpoint(LEFT, WIDTH - RIGHT), HEIGHT - 14.0, "middle", "", drawing.x);
    let turned = format!("transform=\"rotate(-90 18 {})\"", HEIGHT / 2.0);
    text(svg, 18.0, HEIGHT / 2.0, "middle", &turned, drawing.y);
    let mut decade = scale.decades.0;
    while decade <= scale.decades.1 {
        let y = scale.y(10_f64.powf(decade));
        rule(svg, (LEFT, y), (WIDTH - RIGHT, y));
        text(svg, LEFT - 8.0, y + 4.0, "end", "", &time(10_f64.powf(decade)));
        decade += 1.0;
    }
    let mut ticks: Vec<f64> = drawing.lines.iter().flat_map(|line| line.points.iter().map(|p| p.0)).collect();
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    for tick in ticks {
        let x = scale.x(tick);
        rule(svg, (x, HEIGHT - BOTTOM), (x, TOP));
        text(svg, x, HEIGHT - BOTTOM + 18.0, "middle", "", &tick.to_string());
    }
}

fn rule(svg: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = writeln!(svg, "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#dddddd\"/>");
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, more: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {more}>{words}</text>");
}

/// A number of microseconds.
fn time(micros: f64) -> String {
    if micros >= 1e6 {
        format!("{} s", micros / 1e6)
    } else if micros >= 1e3 {
        format!("{} ms", micros / 1e3)
    } else {
        format!("{micros} µs")
    }
}

/// Heights of the lines' names: at their ends, but not over one another.
fn names(lines: &[Line<'_>], scale: &Scale) -> Vec<f64> {
    const APART: f64 = 16.0;
    let mut ends: Vec<(usize, f64)> =
        lines.iter().map(|line| line.points.last().map_or(TOP, |(_, y)| scale.y(*y))).enumerate().collect();
    // From the bottom up, each at least so far above the one below it.
    ends.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut free = HEIGHT;
    for (_, y) in &mut ends {
        *y = y.min(free);
        free = *y - APART;
    }
    ends.sort_by_key(|(at, _)| *at);
    ends.into_iter().map(|(_, y)| y).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawing(points: Vec<(f64, f64)>) -> String {
        let lines = vec![
            Line { name: "ours", strong: true, points: points.clone() },
            Line { name: "a < b", strong: false, points },
        ];
        draw(&Drawing { title: "t", x: "GiB", y: "time", lines })
    }

    #[test]
    fn points_lie_between_the_axes_on_a_logarithmic_scale() {
        let svg = drawing(vec![(0.0, 100.0), (4.0, 1000.0), (8.0, 10_000.0)]);
        let middle = f64::midpoint(TOP, HEIGHT - BOTTOM);
        let (left, right, centre) = (LEFT, WIDTH - RIGHT, f64::midpoint(LEFT, WIDTH - RIGHT));
        let points = format!("points=\"{left:.1},{:.1} {centre:.1},{middle:.1} {right:.1},{TOP:.1}\"", HEIGHT - BOTTOM);
        assert!(svg.contains(&points), "{points}\n{svg}");
        assert!(svg.contains(">1 ms</text>") && svg.contains(">100 µs</text>"), "{svg}");
        assert!(svg.contains("a &lt; b"), "names are escaped: {svg}");
    }

    #[test]
    fn names_are_never_over_one_another() {
        let line = |y| Line { name: "", strong: false, points: vec![(0.0, y)] };
        let lines = [line(100.0), line(101.0), line(5000.0), line(99.0)];
        let mut heights = names(&lines, &Scale::of(&lines));
        heights.sort_by(f64::total_cmp);
        assert!(heights.windows(2).all(|pair| pair[1] - pair[0] > 15.9), "{heights:?}");
    }

    #[test]
    fn nothing_to_draw_is_an_empty_drawing() {
        assert!(drawing(Vec::new()).ends_with("fill=\"white\"/>\n</svg>\n"));
        assert!(!drawing(vec![(1.0, 5.0)]).contains("NaN"));
    }
}
