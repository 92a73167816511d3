use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::page::{Format, Page};
use super::*;

const A: &str = "00000000-0000-7000-8000-00000000000a";
const B: &str = "00000000-0000-7000-8000-00000000000b";

fn read(totals: &mut Totals, text: &str) -> (AppReading, Option<String>) {
    read_as(Format::Text, &BTreeMap::new(), totals, text)
}

fn read_as(
    format: Format,
    names: &BTreeMap<String, String>,
    totals: &mut Totals,
    text: &str,
) -> (AppReading, Option<String>) {
    let names = Names::new(names);
    let mut page = Page::new(&names, "customer_id", format);
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

/// Serves `pages` one after another to whoever connects; the last one again
/// and again. `None` never answers.
async fn serve(pages: Vec<Option<Vec<u8>>>) -> (String, tokio::task::JoinSet<()>) {
    let (url, _, tasks) = serve_and_note(pages).await;
    (url, tasks)
}

/// As [`serve`]; also what was asked.
async fn serve_and_note(
    pages: Vec<Option<Vec<u8>>>,
) -> (String, Arc<Mutex<Vec<String>>>, tokio::task::JoinSet<()>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}/metrics", listener.local_addr().expect("an address"));
    let mut tasks = tokio::task::JoinSet::new();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&asked);
    tasks.spawn(async move {
        let mut held = Vec::new();
        let mut pages = pages.into_iter().peekable();
        loop {
            let page = match pages.len() {
                1 => pages.peek().cloned(),
                _ => pages.next(),
            };
            let (mut stream, _) = listener.accept().await.expect("accepts");
            let mut request = [0; 2048];
            let length = stream.read(&mut request).await.expect("reads");
            let text = String::from_utf8_lossy(&request[..length]).to_lowercase();
            note.lock().expect("unpoisoned").push(text);
            match page.flatten() {
                Some(page) => {
                    // The reader may hang up on a page that is too large.
                    let _hung_up = stream.write_all(&page).await;
                    let _hung_up = stream.shutdown().await;
                }
                None => held.push(stream),
            }
        }
    });
    (url, asked, tasks)
}

fn answer(status: &str, body: &str) -> Option<Vec<u8>> {
    answer_as("text/plain; version=0.0.4", status, body)
}

fn answer_as(kind: &str, status: &str, body: &str) -> Option<Vec<u8>> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n"
    );
    Some((head + body).into_bytes())
}

fn source(url: String) -> AppSource {
    AppSource::new(&crate::config::App::at(url), 0).expect("a source")
}

/// What a reading came to, in words.
async fn told(source: &mut AppSource) -> String {
    match tokio::time::timeout(LIMIT, source.read()).await {
        Err(_) => "hangs".into(),
        Ok(Outcome::Good(reading)) => format!("good: {} tenants", reading.tenants.len()),
        Ok(Outcome::Partial(_, why)) => format!("partial: {why}"),
        Ok(Outcome::Failed(why)) => format!("failed: {why}"),
        Ok(Outcome::Off(why)) => format!("off: {why}"),
    }
}

#[tokio::test]
async fn a_page_that_hangs_is_wrong_or_is_gone_costs_one_reading_each() {
    let huge = "# a comment that says nothing at all\n".repeat(300_000);
    let mut cut = answer("200 OK", &points(90)).expect("a page");
    cut.truncate(cut.len() - 10);
    let (url, tasks) = serve(vec![
        answer("200 OK", &points(10)),
        None,
        answer("503 Service Unavailable", ""),
        answer("200 OK", "<html>\n<body>no metrics here</body>\n"),
        answer("200 OK", &huge),
        Some(cut),
        answer("200 OK", "up 1\n"),
        answer("200 OK", &points(12)),
    ])
    .await;
    let mut source = source(url);
    for expected in [
        "good: 1 tenants",
        "hangs",
        "answered 503",
        "is not a Prometheus page: refused 2 values or lines, the first: \"<html>",
        "is larger than 8388608 bytes",
        "failed: ",
        "partial: no series of ours carries the label \"customer_id\"",
        "good: 1 tenants",
    ] {
        let told = told(&mut source).await;
        assert!(told.contains(expected), "{told:?}\nnot {expected:?}");
    }
    // Nothing of what went wrong in between was counted.
    let Outcome::Good(reading) = source.read().await else { panic!("good") };
    assert_eq!(reading.tenants[&A.parse().expect("an id")].gps_points, Some(2));
    drop(tasks);
    // The server is gone with its task once that has ended.
    tokio::task::yield_now().await;
    assert!(told(&mut source).await.starts_with("failed: http://127.0.0.1:"));
}

/// A page as Python's client library writes it.
const OPEN: &str = include_str!("../testdata/openmetrics.txt");

#[test]
fn openmetrics_is_read_like_the_older_text() {
    let mut totals = Totals::new(0);
    let zero: String = OPEN
        .lines()
        .map(|line| match line.split_once("} ") {
            Some((series, _)) => format!("{series}}} 0.0\n"),
            None => format!("{line}\n"),
        })
        .collect();
    let read = |totals: &mut Totals, text: &str| {
        read_as(Format::OpenMetrics, &BTreeMap::new(), totals, text)
    };
    assert_eq!(read(&mut totals, &zero).1, None);
    let (reading, refusals) = read(&mut totals, OPEN);
    assert_eq!(refusals, None);
    let expected = AppTenant {
        gps_points: Some(1_024),
        api_calls: Some(17),
        request_duration_us: Some(450_000),
        client_connections: Some(3),
        buckets: vec![15, 17, 17],
        ..AppTenant::default()
    };
    assert_eq!(reading.tenants[&A.parse().expect("an id")], expected);
    assert_eq!(reading.bounds, [50_000, 1_000_000, u64::MAX]);
    assert_eq!(reading.tenants.len(), 1, "what was created when is nobody's count");
}

#[test]
fn queries_are_counted_and_the_oldest_point_is_the_oldest_of_all_tables() {
    let mut totals = Totals::new(0);
    let page = |queries: u64| {
        format!(
            "webhost_db_queries_total{{customer_id=\"{A}\"}} {queries}\n\
             webhost_oldest_gps_point_timestamp_seconds{{customer_id=\"{A}\",table=\"a\"}} 1.7e9\n\
             webhost_oldest_gps_point_timestamp_seconds{{customer_id=\"{A}\",table=\"empty\"}} 0\n\
             webhost_oldest_gps_point_timestamp_seconds{{customer_id=\"{A}\",table=\"b\"}} 1.6e9\n"
        )
    };
    read(&mut totals, &page(100));
    let (reading, refusals) = read(&mut totals, &page(140));
    assert_eq!(refusals, None);
    let a = &reading.tenants[&A.parse().expect("an id")];
    assert_eq!((a.queries, a.oldest_point), (Some(40), Some(1_600_000_000)));
}

#[test]
fn a_counter_may_have_its_suffix_from_the_format_alone() {
    let names = BTreeMap::from([("gps_points".to_owned(), "points".to_owned())]);
    let a = A.parse().expect("an id");
    for (format, known) in [(Format::OpenMetrics, true), (Format::Text, false)] {
        let mut totals = Totals::new(0);
        let text = format!("points_total{{customer_id=\"{A}\"}} 5\n# EOF\n");
        let (reading, _) = read_as(format, &names, &mut totals, &text);
        assert_eq!(reading.tenants.contains_key(&a), known, "{format:?}");
    }
}

#[test]
fn nothing_comes_after_the_end() {
    let mut totals = Totals::new(0);
    let text = format!("{OPEN}{}\n", points(5));
    let (_, refusals) = read_as(Format::OpenMetrics, &BTreeMap::new(), &mut totals, &text);
    let refusals = refusals.expect("refused");
    assert!(refusals.starts_with("refused \"webhost_gps_points_total"), "{refusals}");
    assert!(refusals.contains("after # EOF"), "{refusals}");
    // To the older format it is a comment.
    assert_eq!(read(&mut Totals::new(0), &text).1, None);
}

#[test]
fn formats_by_table() {
    for (kind, expected) in [
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", Format::OpenMetrics),
        ("Application/OpenMetrics-Text", Format::OpenMetrics),
        ("text/plain; version=0.0.4", Format::Text),
        ("application/openmetrics-texture", Format::Text),
        ("", Format::Text),
    ] {
        assert_eq!(Format::of(kind), expected, "{kind:?}");
    }
}

#[tokio::test]
async fn openmetrics_is_asked_for_and_a_page_without_its_end_changes_nothing() {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let page = |value: u64, end: &str| answer_as(kind, "200 OK", &(points(value) + end));
    let (url, asked, tasks) = serve_and_note(vec![
        page(10, "# EOF\n"),
        // A proxy that gave up half way, and says nothing of it.
        page(3, ""),
        page(15, "# EOF"),
    ])
    .await;
    let mut source = source(url);
    for expected in ["good: 1 tenants", "ended before its # EOF", "good: 1 tenants"] {
        let told = told(&mut source).await;
        assert!(told.contains(expected), "{told:?}\nnot {expected:?}");
    }
    let Outcome::Good(reading) = source.read().await else { panic!("good") };
    assert_eq!(reading.tenants[&A.parse().expect("an id")].gps_points, Some(5));
    let asked = asked.lock().expect("unpoisoned").join("");
    assert!(
        asked.contains("accept: application/openmetrics-text;version=1.0.0,text/plain"),
        "{asked}"
    );
    drop(tasks);
}
