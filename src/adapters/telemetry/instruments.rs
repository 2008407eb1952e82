//! Builds instruments whose names begin with `vault_kube_kms.`.

use opentelemetry::metrics::{Counter, Gauge, Meter};

pub(super) fn gauge(meter: &Meter, name: &str, description: &'static str) -> Gauge<u64> {
    meter.u64_gauge(format!("vault_kube_kms.{name}")).with_description(description).build()
}

pub(super) fn counter(meter: &Meter, name: &str, description: &'static str) -> Counter<u64> {
    meter.u64_counter(format!("vault_kube_kms.{name}")).with_description(description).build()
}
