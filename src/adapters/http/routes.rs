//! Answers the paths of the HTTP ports.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;

use super::{local_name::is_for_this_machine, statusz::Statusz};

/// Whether the gRPC server accepts calls. If not, the reason.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Mutex<Result<(), &'static str>>>);

impl Readiness {
    /// Sets whether calls are accepted, or the reason why not.
    pub fn set(&self, ready: Result<(), &'static str>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = ready;
    }

    /// Reports whether calls are accepted.
    ///
    /// # Errors
    /// Returns the reason why not, for people.
    pub fn get(&self) -> Result<(), &'static str> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Err("plugin is not ready"))))
    }
}

/// Returns the present state of the process.
pub type StatuszNow = Arc<dyn Fn() -> Statusz + Send + Sync>;

/// Returns the metrics in text form, or why they cannot be collected.
pub type MetricsText = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

/// One of the two groups of paths. Each has its own port.
#[derive(Clone)]
pub enum Routes {
    /// `/healthz` and `/readyz`, for probes from any host.
    Health(Readiness),
    /// `/metrics` and `/statusz`, for this machine only. A request that names another server gets
    /// 421.
    Admin(MetricsText, StatuszNow),
}

impl Routes {
    pub(super) fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are allowed");
        }
        if matches!(self, Self::Admin(..)) && !is_for_this_machine(request) {
            return text(
                StatusCode::MISDIRECTED_REQUEST,
                "this port answers only requests that name this machine; use a local name such as localhost",
            );
        }
        match (self, request.uri().path()) {
            (Self::Health(_), "/healthz") => text(StatusCode::OK, "ok"),
            (Self::Health(readiness), "/readyz") => match readiness.get() {
                Ok(()) => text(StatusCode::OK, "ok"),
                Err(why) => text(StatusCode::INTERNAL_SERVER_ERROR, why),
            },
            (Self::Admin(_, statusz), "/statusz") => {
                statusz().answer(request.uri(), request.headers())
            }
            (Self::Admin(metrics, _), "/metrics") => match metrics() {
                Ok(metrics) => text(StatusCode::OK, metrics),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error),
            },
            _ => text(StatusCode::NOT_FOUND, "not found"),
        }
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Health(_) => "Health",
            Self::Admin(..) => "Admin",
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

    fn status(routes: &Routes, path: &str) -> u16 {
        routes.answer(&Request::get(path).body(()).unwrap()).status().as_u16()
    }

    #[test]
    fn answers_metrics_and_statusz_under_a_local_name_only() {
        let metrics: MetricsText = Arc::new(|| Ok("up 1".to_owned()));
        let admin = Routes::Admin(metrics, Arc::new(|| unreachable!("no other name gets it")));
        for (path, host, code) in [
            ("/metrics", "localhost:9090", 200),
            ("/metrics", "evil.example", 421),
            ("/statusz", "evil.example", 421),
            ("/statusz?format=json", "localhost.evil.example", 421),
        ] {
            let request = Request::get(path).header(header::HOST, host);
            let answer = admin.answer(&request.body(()).unwrap());
            assert_eq!(answer.status().as_u16(), code, "{path} {host}");
        }
    }

    #[test]
    fn is_alive_before_it_is_ready() {
        let readiness = Readiness::default();
        let health = Routes::Health(readiness.clone());
        assert_eq!((status(&health, "/healthz"), status(&health, "/readyz")), (200, 500));
        readiness.set(Ok(()));
        assert_eq!((status(&health, "/readyz"), status(&health, "/statusz")), (200, 404));
    }
}
