use super::*;

#[test]
fn the_same_seed_gives_the_same_year_and_no_server_stays_overloaded() {
    let catalog = Catalog::default();
    let growth = Growth { from: 20, to: 300, weeks: 12, seed: 7 };
    let weeks = grow(&catalog, &Policy::of(&catalog), &growth).expect("a shared shape");
    assert_eq!(Some(&weeks), grow(&catalog, &Policy::of(&catalog), &growth).as_ref());
    assert_eq!(weeks.len(), 12);
    assert_eq!((weeks[0].tenants, weeks[11].tenants), (20, 300));
    for week in &weeks {
        assert!(week.servers >= week.bound, "{week:?}");
        let month = catalog.costs.shared_server_month().0.unsigned_abs();
        let cost = month * u64::from(week.servers) / u64::from(week.tenants);
        assert_eq!(week.cents_per_tenant, cost, "{week:?}");
    }
    assert!(weeks[11].servers > weeks[0].servers);
}

#[test]
fn the_chart_has_a_point_for_each_week() {
    let catalog = Catalog::default();
    let growth = Growth { from: 5, to: 9, weeks: 4, seed: 7 };
    let weeks = grow(&catalog, &Policy::of(&catalog), &growth).expect("a shared shape");
    let svg = chart::svg(&weeks);
    let lines: Vec<&str> = svg.lines().filter(|line| line.starts_with("<polyline")).collect();
    assert_eq!(lines.len(), 5);
    for line in lines {
        let points = line.split('"').nth(1).expect("its points");
        assert_eq!(points.split(' ').count(), 4, "{points}");
        assert!(!points.contains("NaN"), "{points}");
    }
    assert!(svg.ends_with("</svg>\n"));
}

/// The numbers of a picture, in order, and the text between them.
fn numbers(svg: &str) -> (Vec<f64>, String) {
    let is_part = |c: char| c.is_ascii_digit() || c == '.';
    let mut found = Vec::new();
    let mut between = String::new();
    let mut rest = svg;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let end = rest[start..].find(|c| !is_part(c)).map_or(rest.len(), |end| start + end);
        let number = rest[start..end].trim_end_matches('.');
        // A colour is text.
        let is_colour = rest[..start].rfind('#').is_some_and(|at| !rest[at..start].contains('"'));
        match number.parse() {
            Ok(number) if !is_colour => found.push(number),
            _ => between.push_str(number),
        }
        between.push_str(&rest[..start]);
        rest = &rest[start + number.len()..];
    }
    between.push_str(rest);
    (found, between)
}

/// The picture in the documentation is what the command draws today. Figures
/// come of logarithms and powers, whose last bits may differ between machines:
/// a year may end a server or a move apart, a picture by a few points.
#[test]
fn the_documents_chart_is_what_the_command_draws() {
    let catalog = Catalog::default();
    let weeks = grow(&catalog, &Policy::of(&catalog), &Growth::default()).expect("a shared shape");
    let again = "draw it again: webhost-coordinator simulate --svg \
                 coordinator/src/fleet/growth/growth.svg";
    let (drawn, shape) = numbers(&chart::svg(&weeks));
    let (stored, stored_shape) = numbers(include_str!("growth.svg"));
    assert_eq!(shape, stored_shape, "{again}");
    assert_eq!(drawn.len(), stored.len(), "{again}");
    for (drawn, stored) in drawn.iter().zip(&stored) {
        assert!((drawn - stored).abs() <= 3.0, "{drawn} and {stored}: {again}");
    }
}

#[test]
fn a_picture_with_another_line_is_another_picture() {
    let one = "<text x=\"1.5\" fill=\"#1f6feb\">2</text>";
    assert_eq!(numbers(one).0, [1.5, 2.0]);
    assert_eq!(numbers(one).1, numbers(&one.replace("1.5", "7")).1);
    assert_ne!(numbers(one).1, numbers(&one.replace("1f6feb", "2f6feb")).1);
}
