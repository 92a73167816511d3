use std::collections::BTreeMap;

use super::page::Page;
use super::*;

const A: &str = "00000000-0000-7000-8000-00000000000a";
const B: &str = "00000000-0000-7000-8000-00000000000b";

fn read(totals: &mut Totals, text: &str) -> (AppReading, Option<String>) {
    let names = Names::new(&BTreeMap::new());
    let mut page = Page::new(&names, "customer_id");
    for line in text.split_inclusive('\n') {
        page.line(line.as_bytes());
    }
    let refusals = page.refusals();
    (totals.take(&page).0, refusals)
}

fn points(value: u64) -> String {
    format!("webhost_gps_points_total{{customer_id=\"{A}\"}} {value}\n")
}

#[test]
fn counters_are_counted_from_the_first_page_on_and_over_restarts() {
    let mut totals = Totals::new(0);
    let a = A.parse().expect("an id");
    for (value, total) in [(100, 0), (130, 30), (130, 30), (20, 50), (25, 55)] {
        let (reading, _) = read(&mut totals, &points(value));
        assert_eq!(reading.tenants[&a].gps_points, Some(total), "after {value}");
    }
    // A tenant that appears later began at zero while we watched.
    let b = B.parse().expect("an id");
    let later = format!("webhost_gps_points_total{{customer_id=\"{B}\"}} 7\n");
    assert_eq!(read(&mut totals, &later).0.tenants[&b].gps_points, Some(7));
}

#[test]
fn the_start_time_tells_a_restart_from_a_counter_that_falls() {
    let mut totals = Totals::new(1_000_000);
    let a = A.parse().expect("an id");
    let at =
        |start: u64, value: u64| format!("process_start_time_seconds {start}\n{}", points(value));
    for (start, value, total, why) in [
        (500, 40, 0, "started before us: count from here"),
        (500, 50, 10, "grew"),
        (500, 30, 10, "fell without a restart: nothing is invented"),
        (500, 35, 15, "grew from there"),
        (900, 50, 65, "restarted and passed the old value: all of it counts"),
    ] {
        let (reading, _) = read(&mut totals, &at(start, value));
        assert_eq!(reading.tenants[&a].gps_points, Some(total), "{why}");
    }
    let mut totals = Totals::new(1_000_000);
    let (reading, _) = read(&mut totals, &at(2_000, 9));
    assert_eq!(reading.tenants[&a].gps_points, Some(9), "born after us: all of it counts");
}

#[test]
fn garbage_is_refused_and_named_and_the_rest_counts() {
    let mut totals = Totals::new(0);
    read(&mut totals, &points(0));
    let text = format!(
        "webhost_api_calls_total{{customer_id=\"{A}\"}} NaN\n\
         webhost_api_errors_total{{customer_id=\"{A}\"}} -4\n\
         webhost_vehicles{{customer_id=\"nobody\"}} 4\n\
         webhost_vehicles{{customer_id=\"{A}\"}} 12\n\
         webhost_connected_clients{{customer_id=\"{B}\"}} +Inf\n\
         ]]garbage[[\n{}",
        points(5)
    );
    let (reading, refusals) = read(&mut totals, &text);
    let a = &reading.tenants[&A.parse().expect("an id")];
    assert_eq!((a.gps_points, a.vehicles, a.api_calls), (Some(5), Some(12), None));
    assert_eq!(reading.tenants.len(), 1, "a garbage value makes no tenant");
    let refusals = refusals.expect("refusals");
    assert!(refusals.starts_with("refused 5 values or lines, the first: "), "{refusals}");
    assert!(refusals.contains("webhost_api_calls_total"), "{refusals}");
}

#[test]
fn series_by_route_are_summed_and_durations_are_microseconds() {
    let mut totals = Totals::new(0);
    let page = |count: u64, seconds: f64, fast: u64| {
        format!(
            "webhost_request_duration_seconds_bucket{{customer_id=\"{A}\",le=\"0.1\"}} {fast}\n\
             webhost_request_duration_seconds_bucket{{customer_id=\"{A}\",le=\"+Inf\"}} {count}\n\
             webhost_request_duration_seconds_sum{{customer_id=\"{A}\",route=\"/a\"}} {seconds}\n\
             webhost_request_duration_seconds_sum{{customer_id=\"{A}\",route=\"/b\"}} 1\n\
             webhost_request_duration_seconds_count{{customer_id=\"{A}\"}} {count}\n"
        )
    };
    read(&mut totals, &page(0, 0.0, 0));
    let (reading, refusals) = read(&mut totals, &page(4, 0.25, 3));
    assert_eq!(refusals, None);
    let a = &reading.tenants[&A.parse().expect("an id")];
    assert_eq!(a.request_duration_us, Some(250_000));
    assert_eq!(a.api_calls, Some(4), "the number of durations serves where calls are not counted");
    assert_eq!(reading.bounds, [100_000, u64::MAX]);
    assert_eq!(a.buckets, [3, 4]);
}
