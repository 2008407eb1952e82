//! Reports when the certificates of the keeper's servers expire. Each handshake updates the report.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    adapters::vault::vocabulary::SERVER_CERTIFICATE,
    domain::time::UnixTime,
    ports::telemetry::{Event, Telemetry},
};

/// The certificates of all servers. Reports the end of the certificate that expires first.
#[derive(Debug)]
pub(super) struct ServerCertificates {
    /// The ends by host and port. There are at most as many as configured addresses.
    ends: Mutex<HashMap<String, UnixTime>>,
    telemetry: Arc<dyn Telemetry>,
}

impl ServerCertificates {
    /// Starts without any certificate.
    pub(super) fn new(telemetry: Arc<dyn Telemetry>) -> Self {
        Self { ends: Mutex::default(), telemetry }
    }

    /// Records that the server at `place`, a host and a port, presented a chain that is valid until
    /// `end`. `None` means that the end is not known, for example with `--tls-skip-verify`.
    pub(super) fn shown(&self, place: &str, end: Option<UnixTime>) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let _before = match end {
            Some(end) => ends.insert(place.to_owned(), end),
            None => ends.remove(place),
        };
        let at = ends.values().min().copied();
        self.telemetry.record(Event::Expires { what: SERVER_CERTIFICATE, at });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::telemetry::MockTelemetry;

    #[test]
    fn reports_the_certificate_that_expires_first() {
        let reported = Arc::new(Mutex::new(Vec::new()));
        let (mut telemetry, recorded) = (MockTelemetry::new(), Arc::clone(&reported));
        telemetry.expect_record().returning(move |event| {
            let Event::Expires { what: SERVER_CERTIFICATE, at } = event else {
                panic!("{event:?}");
            };
            recorded.lock().unwrap().push(at.map(UnixTime::secs));
        });
        let certificates = ServerCertificates::new(Arc::new(telemetry));
        for (place, end) in
            [("a:1", Some(20)), ("b:1", Some(10)), ("b:1", Some(30)), ("a:1", None), ("b:1", None)]
        {
            certificates.shown(place, end.map(UnixTime::from_secs));
        }
        assert_eq!(*reported.lock().unwrap(), [Some(20), Some(10), Some(20), Some(30), None]);
    }
}
