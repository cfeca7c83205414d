use std::time::Duration;

use super::*;

fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find(|line| {
        line.strip_prefix(series)
            .is_some_and(|rest| rest.starts_with(' '))
    });
    line.unwrap_or_else(|| panic!("no {series} in {text}"))
        .rsplit(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(f64::NAN)
}

#[test]
fn counted_values_are_scraped() {
    let metrics = Metrics::new();
    let held = Metrics::hold(&metrics.connections);
    metrics.messages.inc();
    metrics.closed(CloseCode::TooSlow);
    metrics.error(Transport::Http, ErrorCode::NotFound);
    metrics.limit_hit("page");
    metrics.refused(RefusalReason::Origin);
    metrics.http(Some("/v1/users/{user}"), &Method::GET, 200);
    metrics.http(
        None,
        &Method::from_bytes(b"NONSENSE").unwrap_or_default(),
        405,
    );
    let text = metrics.encode();
    for series in [
        "chaos_connections",
        "chaos_messages_total",
        "chaos_closes_total{code=\"4009\"}",
        "chaos_errors_total{code=\"not_found\",transport=\"http\"}",
        "chaos_limits_hit_total{limit=\"page\"}",
        "chaos_connections_refused_total{reason=\"origin\"}",
        "chaos_http_requests_total{route=\"/v1/users/{user}\",method=\"GET\",status=\"200\"}",
        "chaos_http_requests_total{route=\"none\",method=\"other\",status=\"405\"}",
    ] {
        assert_eq!(value(&text, series), 1.0, "{series}");
    }
    assert_eq!(
        value(&text, "chaos_closes_total{code=\"4010\"}"),
        0.0,
        "known before it happens"
    );
    drop(held);
    assert_eq!(value(&metrics.encode(), "chaos_connections"), 0.0);
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn times_fall_into_their_buckets() {
    let metrics = Metrics::new();
    for time in [
        Duration::ZERO,
        Duration::from_micros(50),
        Duration::from_micros(51),
        Duration::from_secs(3600),
    ] {
        metrics.commit.observe(time);
    }
    let text = metrics.encode();
    assert_eq!(
        value(&text, "chaos_commit_seconds_bucket{le=\"0.00005\"}"),
        2.0
    );
    assert_eq!(
        value(&text, "chaos_commit_seconds_bucket{le=\"0.0001\"}"),
        3.0
    );
    assert_eq!(
        value(&text, "chaos_commit_seconds_bucket{le=\"30.0\"}"),
        3.0
    );
    assert_eq!(
        value(&text, "chaos_commit_seconds_bucket{le=\"+Inf\"}"),
        4.0
    );
    assert_eq!(value(&text, "chaos_commit_seconds_count"), 4.0);
    assert!((value(&text, "chaos_commit_seconds_sum") - 3_600.000_101).abs() < 1e-6);
}

#[test]
fn values_of_other_parts_are_read_at_the_scrape() {
    let metrics = Metrics::new();
    assert!(!metrics.encode().contains("chaos_topics"));
    metrics.watch(|| Readings {
        hub: fanout::hub::Stats {
            topics: 3,
            deliveries: 9,
            ..Default::default()
        },
        outboxes: fanout::outbox::OutboxCounts {
            queued_bytes: 7,
            too_slow: [1, 2, 3],
            ..Default::default()
        },
        gate: crate::limit::GateCounts {
            waiting: 4,
            turned_away: 5,
            ..Default::default()
        },
        requests_bytes: 6,
        journal: None,
        bus_connected: true,
        ready: false,
    });
    let text = metrics.encode();
    for (series, expected) in [
        ("chaos_topics", 3.0),
        ("chaos_deliveries_total", 9.0),
        ("chaos_outbox_bytes", 7.0),
        ("chaos_requests_bytes", 6.0),
        ("chaos_slow_readers_total{bound=\"total\"}", 3.0),
        ("chaos_connects_waiting", 4.0),
        ("chaos_connects_turned_away_total", 5.0),
        ("chaos_bus_connected", 1.0),
        ("chaos_ready", 0.0),
    ] {
        assert_eq!(value(&text, series), expected, "{series}");
    }
    #[cfg(target_os = "linux")]
    assert!(value(&text, "process_resident_memory_bytes") > 1e5);
}
