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

/// Serves `pages` one after another to whoever connects; the last one again
/// and again. `None` never answers.
async fn serve(pages: Vec<Option<Vec<u8>>>) -> (String, tokio::task::JoinSet<()>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}/metrics", listener.local_addr().expect("an address"));
    let mut tasks = tokio::task::JoinSet::new();
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
            let _length = stream.read(&mut request).await.expect("reads");
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
    (url, tasks)
}

fn answer(status: &str, body: &str) -> Option<Vec<u8>> {
    let length = body.len();
    Some(
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
            .into_bytes(),
    )
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
