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

/// The numbers of a picture, and all that is none, each in order.
fn numbers(svg: &str) -> (Vec<f64>, Vec<&str>) {
    let (mut numbers, mut words) = (Vec::new(), Vec::new());
    for part in svg.split(|c: char| c.is_whitespace() || ",\"<>".contains(c)) {
        match part.parse() {
            Ok(number) => numbers.push(number),
            Err(_) => words.push(part),
        }
    }
    (numbers, words)
}

/// The picture in the documentation is what the command draws today. Figures
/// come of logarithms and powers, whose last bits may differ between machines:
/// now and then a week may have a server or a move more or less.
#[test]
fn the_documents_chart_is_what_the_command_draws() {
    let catalog = Catalog::default();
    let weeks = grow(&catalog, &Policy::of(&catalog), &Growth::default()).expect("a shared shape");
    let again = "draw it again: webhost-coordinator simulate --svg \
                 coordinator/src/fleet/growth/growth.svg";
    let svg = chart::svg(&weeks);
    let (drawn, words) = numbers(&svg);
    let (stored, stored_words) = numbers(include_str!("growth.svg"));
    assert_eq!(words, stored_words, "{again}");
    assert_eq!(drawn.len(), stored.len(), "{again}");
    let apart = |(drawn, stored): &(&f64, &f64)| (**drawn - **stored).abs() > 2.0;
    let apart = drawn.iter().zip(&stored).filter(apart).count();
    assert!(apart * 50 <= stored.len(), "{apart} of {} numbers differ: {again}", stored.len());
}

#[test]
fn a_picture_is_its_numbers_and_its_words() {
    let one = "<text x=\"1.5\" fill=\"#1f6feb\">2</text>";
    assert_eq!(numbers(one).0, [1.5, 2.0]);
    assert_eq!(numbers(one).1, numbers(&one.replace("1.5", "7")).1);
    assert_ne!(numbers(one).1, numbers(&one.replace("1f6feb", "2f6feb")).1);
}
