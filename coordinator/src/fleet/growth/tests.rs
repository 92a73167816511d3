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

/// The picture in the documentation is what the command draws today.
#[test]
fn the_documents_chart_is_what_the_command_draws() {
    let catalog = Catalog::default();
    let weeks = grow(&catalog, &Policy::of(&catalog), &Growth::default()).expect("a shared shape");
    let drawn = chart::svg(&weeks);
    let stored = include_str!("growth.svg");
    assert!(
        drawn == stored,
        "draw it again: webhost-coordinator simulate --svg coordinator/src/fleet/growth/growth.svg"
    );
}
