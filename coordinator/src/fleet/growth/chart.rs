//! The year as a picture: an SVG that needs nothing else.

use std::fmt::Write;

use super::Week;

const WIDTH: f64 = 720.0;
const PANEL: f64 = 150.0;
const LEFT: f64 = 64.0;
const GAP: f64 = 44.0;

/// One line of a panel: its name, its colour, its figures.
struct Line<'a> {
    name: &'a str,
    colour: &'a str,
    values: Vec<f64>,
}

/// Draws servers beside the least possible, the cost of a tenant, and the
/// moves of each week.
pub fn svg(weeks: &[Week]) -> String {
    let of = |value: fn(&Week) -> f64| weeks.iter().map(value).collect::<Vec<f64>>();
    let panels = [
        (
            "servers",
            vec![
                Line { name: "in use", colour: "#1f6feb", values: of(|w| f64::from(w.servers)) },
                Line {
                    name: "least possible",
                    colour: "#8b949e",
                    values: of(|w| f64::from(w.bound)),
                },
            ],
        ),
        (
            "dollars a month for each tenant",
            vec![Line {
                name: "cost",
                colour: "#bf8700",
                values: of(|w| w.cents_per_tenant as f64 / 100.0),
            }],
        ),
        (
            "a week",
            vec![
                Line {
                    name: "tenants moved",
                    colour: "#8250df",
                    values: of(|w| f64::from(w.moves)),
                },
                Line {
                    name: "servers overloaded",
                    colour: "#cf222e",
                    values: of(|w| f64::from(w.overloaded)),
                },
            ],
        ),
    ];
    let height = panels.len() as f64 * (PANEL + GAP) + 40.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    for (number, (title, lines)) in panels.iter().enumerate() {
        panel(&mut out, 28.0 + number as f64 * (PANEL + GAP), title, lines);
    }
    if let (Some(first), Some(last)) = (weeks.first(), weeks.last()) {
        let text = format!(
            "week {} with {} tenants to week {} with {}",
            first.week, first.tenants, last.week, last.tenants
        );
        let _in_memory = writeln!(
            out,
            "<text x=\"{LEFT}\" y=\"{}\" fill=\"#57606a\">{text}</text>",
            height - 14.0
        );
    }
    out.push_str("</svg>\n");
    out
}

fn panel(out: &mut String, top: f64, title: &str, lines: &[Line<'_>]) {
    let most = lines.iter().flat_map(|line| &line.values).fold(0.0_f64, |a, b| a.max(*b));
    let most = if most > 0.0 { most } else { 1.0 };
    let bottom = top + PANEL;
    let right = WIDTH - 16.0;
    let mut text = |x: f64, y: f64, colour: &str, anchor: &str, text: &str| {
        // Writing to a String does not fail.
        let _in_memory = writeln!(
            out,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{colour}\" text-anchor=\"{anchor}\">{text}</text>"
        );
    };
    text(LEFT, top - 8.0, "#24292f", "start", title);
    text(LEFT - 6.0, top + 4.0, "#57606a", "end", &figure(most));
    text(LEFT - 6.0, bottom + 4.0, "#57606a", "end", "0");
    for (number, line) in lines.iter().enumerate() {
        let x = right - 150.0 * (lines.len() - 1 - number) as f64;
        text(x, top - 8.0, line.colour, "end", line.name);
    }
    for y in [top, bottom] {
        let _in_memory =
            writeln!(out, "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#d0d7de\" fill=\"none\"/>");
    }
    for line in lines {
        let step = (right - LEFT) / (line.values.len().max(2) - 1) as f64;
        let points: Vec<String> = line
            .values
            .iter()
            .enumerate()
            .map(|(at, value)| {
                format!("{:.1},{:.1}", LEFT + at as f64 * step, bottom - value / most * PANEL)
            })
            .collect();
        let _in_memory = writeln!(
            out,
            "<polyline points=\"{}\" stroke=\"{}\" stroke-width=\"2\" fill=\"none\"/>",
            points.join(" "),
            line.colour
        );
    }
}

/// A figure at an axis: whole, or with its cents where it is small.
fn figure(value: f64) -> String {
    if value < 100.0 && value.fract() != 0.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.0}")
    }
}
