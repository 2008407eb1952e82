//! What is answered on which path.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;

use super::{local_name::is_for_this_machine, statusz::Statusz};

/// Whether the gRPC server takes calls, and why not.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Mutex<Result<(), &'static str>>>);

impl Readiness {
    /// Says from now on that calls are taken, or why they are not.
    pub fn set(&self, ready: Result<(), &'static str>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = ready;
    }

    /// Says whether calls are taken.
    ///
    /// # Errors
    /// Why they are not, for people.
    pub fn get(&self) -> Result<(), &'static str> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Err("plugin is not ready"))))
    }
}

/// How the process is now.
pub type StatuszNow = Arc<dyn Fn() -> Statusz + Send + Sync>;

/// The metrics in text form, or why there are none.
pub type MetricsText = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

/// One of the two groups of paths; each has a port of its own.
#[derive(Clone)]
pub enum Endpoints {
    /// `/healthz` and `/readyz`, for whoever probes from elsewhere.
    Health(Readiness),
    /// `/metrics` and `/statusz`, for this machine alone. A request that names another server is
    /// answered with 421.
    Inside(MetricsText, StatuszNow),
}

impl Endpoints {
    pub(super) fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET");
        }
        if matches!(self, Self::Inside(..)) && !is_for_this_machine(request) {
            return text(
                StatusCode::MISDIRECTED_REQUEST,
                "this port answers under a name or an address of this machine alone, such as localhost",
            );
        }
        match (self, request.uri().path()) {
            (Self::Health(_), "/healthz") => text(StatusCode::OK, "ok"),
            (Self::Health(readiness), "/readyz") => match readiness.get() {
                Ok(()) => text(StatusCode::OK, "ok"),
                Err(why) => text(StatusCode::INTERNAL_SERVER_ERROR, why),
            },
            (Self::Inside(_, statusz), "/statusz") => {
                statusz().answer(request.uri(), request.headers())
            }
            (Self::Inside(metrics, _), "/metrics") => match metrics() {
                Ok(metrics) => text(StatusCode::OK, metrics),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error),
            },
            _ => text(StatusCode::NOT_FOUND, "not found"),
        }
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Health(_) => "Health",
            Self::Inside(..) => "Inside",
        })
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(endpoints: &Endpoints, path: &str) -> u16 {
        endpoints.answer(&Request::get(path).body(()).unwrap()).status().as_u16()
    }

    #[test]
    fn metrics_are_answered_under_a_local_name_alone() {
        let metrics: MetricsText = Arc::new(|| Ok("up 1".to_owned()));
        let inside = Endpoints::Inside(metrics, Arc::new(|| unreachable!()));
        for (host, code) in [("localhost:9090", 200), ("evil.example", 421)] {
            let request = Request::get("/metrics").header(header::HOST, host);
            let answer = inside.answer(&request.body(()).unwrap());
            assert_eq!(answer.status().as_u16(), code, "{host}");
        }
    }

    #[test]
    fn alive_is_not_ready() {
        let readiness = Readiness::default();
        let health = Endpoints::Health(readiness.clone());
        assert_eq!((status(&health, "/healthz"), status(&health, "/readyz")), (200, 500));
        readiness.set(Ok(()));
        assert_eq!((status(&health, "/readyz"), status(&health, "/statusz")), (200, 404));
    }
}
