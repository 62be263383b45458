//! Counters and histograms per route template, method and status, and how much there is in the vault. No names of
//! secrets, accounts or paths ever become a label, and of a sealed vault nothing is said but that it is sealed.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use keymoat_vault::Vault;
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::CertificateStatus;

/// The metrics of one server. They are its own, not the process's, so that several can live side by side; and they are
/// numbers from the first request on, so that what nobody collects does not grow.
#[derive(Default)]
pub(crate) struct Metrics(Mutex<HashMap<Labels, Answers>>);

/// What the answers are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Labels {
    route: &'static str,
    method: &'static str,
}

/// The answers to requests with the same labels.
#[derive(Debug, Default)]
struct Answers {
    by_status: BTreeMap<u16, u64>,
    /// How many took so long, and the last for what took longer than all bounds.
    by_time: [u64; BUCKETS.len() + 1],
    time: Duration,
}

/// Measures how long something takes.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

impl Metrics {
    /// Counts an answered request.
    pub(crate) fn answered(&self, method: &Method, route: &'static str, status: StatusCode, took: Duration) {
        let bucket = BUCKETS.partition_point(|bound| *bound < took.as_secs_f64());
        let mut all = self.all();
        let answers = all.entry(Labels { route, method: method_label(method) }).or_default();
        *answers.by_status.entry(status.as_u16()).or_default() += 1;
        answers.by_time[bucket] += 1;
        answers.time += took;
    }

    /// Everything in Prometheus' text format; without a vault, because it is sealed, little.
    pub(crate) fn render(
        &self,
        vault: Option<&Vault>,
        certificate: Option<CertificateStatus>,
        overloaded: Option<u64>,
    ) -> String {
        let mut text = self.requests().expect("a text takes everything");
        text.push_str(&now(vault, certificate, overloaded));
        text
    }

    fn requests(&self) -> Result<String, std::fmt::Error> {
        let all = self.all();
        let sorted: BTreeMap<&Labels, &Answers> = all.iter().collect();
        let mut text = format!("# HELP {REQUESTS} requests answered\n# TYPE {REQUESTS} counter\n");
        for (Labels { method, route }, answers) in &sorted {
            for (status, count) in &answers.by_status {
                writeln!(
                    text,
                    "{REQUESTS}{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}} {count}"
                )?;
            }
        }
        writeln!(text, "\n# HELP {DURATION} how long answering took\n# TYPE {DURATION} histogram")?;
        for (Labels { method, route }, answers) in &sorted {
            let labels = format!("method=\"{method}\",route=\"{route}\"");
            let mut count = 0;
            let bounds = BUCKETS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
            for (bound, here) in bounds.zip(answers.by_time) {
                count += here;
                writeln!(text, "{DURATION}_bucket{{{labels},le=\"{bound}\"}} {count}")?;
            }
            writeln!(text, "{DURATION}_sum{{{labels}}} {}", answers.time.as_secs_f64())?;
            writeln!(text, "{DURATION}_count{{{labels}}} {count}")?;
        }
        text.push('\n');
        Ok(text)
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Labels, Answers>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How things stand now. A recorder of its own each time: a gauge that once was set would be shown for ever.
fn now(vault: Option<&Vault>, certificate: Option<CertificateStatus>, overloaded: Option<u64>) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        metrics::describe_gauge!(SEALED, "1 when the server is sealed");
        metrics::gauge!(SEALED).set(f64::from(u8::from(vault.is_none())));
        if let Some(overloaded) = overloaded {
            metrics::describe_counter!(OVERLOADED, "requests refused because there was no room for them");
            metrics::counter!(OVERLOADED).absolute(overloaded);
        }
        if let Some(CertificateStatus { ends, is_stale }) = certificate {
            metrics::describe_gauge!(CERTIFICATE_ENDS, "when the certificate ends, in seconds since 1970");
            metrics::describe_gauge!(CERTIFICATE_STALE, "1 when a newer certificate could not be taken");
            metrics::gauge!(CERTIFICATE_ENDS).set(ends.as_second() as f64);
            metrics::gauge!(CERTIFICATE_STALE).set(f64::from(u8::from(is_stale)));
        }
        let Some(vault) = vault else { return };
        let counts = vault.counts();
        let gauges = [
            ("environments", counts.environments),
            ("companies", counts.companies),
            ("secrets", counts.secrets),
            ("accounts", counts.accounts),
            ("tokens", counts.tokens),
            ("grants", counts.grants),
            ("issued_keys", counts.issued_keys),
        ];
        metrics::describe_gauge!(ENTITIES, "how much there is in the vault");
        metrics::describe_gauge!(CHANGE, "number of the newest change");
        metrics::describe_gauge!(STOPPED, "1 when the store has stopped itself");
        metrics::describe_gauge!(
            CLOCK_BEHIND,
            metrics::Unit::Seconds,
            "how far the system's clock is behind what the vault has seen"
        );
        for (kind, count) in gauges {
            metrics::gauge!(ENTITIES, "kind" => kind).set(count as f64);
        }
        metrics::gauge!(CHANGE).set(counts.change as f64);
        metrics::gauge!(STOPPED).set(f64::from(u8::from(vault.stopped().is_some())));
        metrics::gauge!(CLOCK_BEHIND).set(vault.clock_behind_secs() as f64);
    });
    recorder.handle().render()
}

/// Methods that no route has share one label, so that a client cannot make up more.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

const REQUESTS: &str = "keymoat_http_requests_total";
const OVERLOADED: &str = "keymoat_http_overloaded_total";
const DURATION: &str = "keymoat_http_request_duration_seconds";
const ENTITIES: &str = "keymoat_vault_entities";
const CHANGE: &str = "keymoat_vault_change";
const STOPPED: &str = "keymoat_store_stopped";
const CERTIFICATE_ENDS: &str = "keymoat_tls_certificate_ends_seconds";
const CERTIFICATE_STALE: &str = "keymoat_tls_certificate_stale";
const SEALED: &str = "keymoat_sealed";
const CLOCK_BEHIND: &str = "keymoat_clock_behind_seconds";
/// Seconds: a read from memory with its record on a good disk, to a long poll.
const BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 10.0, 60.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_route_method_status_and_time() {
        let metrics = Metrics::default();
        let made_up = Method::from_bytes(b"MADE-UP").unwrap();
        metrics.answered(&Method::GET, "/healthz", StatusCode::OK, Duration::from_micros(500));
        metrics.answered(&Method::GET, "/healthz", StatusCode::OK, Duration::from_micros(501));
        metrics.answered(&Method::GET, "/healthz", StatusCode::NOT_FOUND, Duration::from_secs(61));
        metrics.answered(&made_up, "none", StatusCode::NOT_FOUND, Duration::ZERO);
        let text = metrics.render(None, None, None);
        for line in [
            "# TYPE keymoat_http_requests_total counter",
            "keymoat_http_requests_total{method=\"GET\",route=\"/healthz\",status=\"200\"} 2",
            "keymoat_http_requests_total{method=\"GET\",route=\"/healthz\",status=\"404\"} 1",
            "keymoat_http_requests_total{method=\"other\",route=\"none\",status=\"404\"} 1",
            "# TYPE keymoat_http_request_duration_seconds histogram",
            "keymoat_http_request_duration_seconds_bucket{method=\"GET\",route=\"/healthz\",le=\"0.0005\"} 1",
            "keymoat_http_request_duration_seconds_bucket{method=\"GET\",route=\"/healthz\",le=\"0.001\"} 2",
            "keymoat_http_request_duration_seconds_bucket{method=\"GET\",route=\"/healthz\",le=\"60\"} 2",
            "keymoat_http_request_duration_seconds_bucket{method=\"GET\",route=\"/healthz\",le=\"+Inf\"} 3",
            "keymoat_http_request_duration_seconds_sum{method=\"GET\",route=\"/healthz\"} 61.001001",
            "keymoat_http_request_duration_seconds_count{method=\"GET\",route=\"/healthz\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
