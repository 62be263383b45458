//! Counters and histograms per route template, method and status, and how much there is in the vault. No names of
//! secrets, accounts or paths ever become a label, and of a sealed vault nothing is said but that it is sealed.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use keymoat_vault::Vault;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::CertificateStatus;

/// The metrics of one server. They are its own, not the process's, so that several can live side by side.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
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
    pub(crate) fn new() -> Self {
        let builder = PrometheusBuilder::new()
            .set_buckets(&BUCKETS)
            .expect("the bounds are there, and the summary is replaced by them");
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        let metrics = Self { recorder, handle };
        metrics.describe();
        metrics
    }

    /// Counts an answered request.
    pub(crate) fn answered(&self, method: &Method, route: &str, status: StatusCode, took: Duration) {
        let labels = [
            ("method", method_label(method).to_owned()),
            ("route", route.to_owned()),
            ("status", status.as_str().to_owned()),
        ];
        metrics::with_local_recorder(&self.recorder, || {
            metrics::counter!(REQUESTS, &labels).increment(1);
            metrics::histogram!(DURATION, &labels[..2]).record(took.as_secs_f64());
        });
    }

    /// Everything in Prometheus' text format; without a vault, because it is sealed, little.
    pub(crate) fn render(
        &self,
        vault: Option<&Vault>,
        certificate: Option<CertificateStatus>,
        overloaded: Option<u64>,
    ) -> String {
        self.handle.run_upkeep();
        let mut text = self.handle.render();
        text.push_str(&now(vault, certificate, overloaded));
        text
    }

    fn describe(&self) {
        metrics::with_local_recorder(&self.recorder, || {
            metrics::describe_counter!(REQUESTS, "requests answered");
            metrics::describe_histogram!(DURATION, metrics::Unit::Seconds, "how long answering took");
        });
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
