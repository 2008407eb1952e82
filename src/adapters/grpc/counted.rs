//! Counts each request of a connection, from its headers until its answer was read or abandoned.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use tonic::body::Body;
use tower::{Layer, Service};

use super::{connection::begun, incoming::LIMITS, status};
use crate::{
    adapters::connections::table::Full,
    domain::error::{Code, KmsError},
};

/// The headers that the service reads. tonic reads the first four.
const READ: [&str; 6] = [
    "content-type",
    "grpc-timeout",
    "grpc-encoding",
    "grpc-accept-encoding",
    "traceparent",
    "tracestate",
];

/// The longest value of such a header, in bytes: the least that every trace system forwards (W3C
/// Trace Context, section 3.3.1.5).
const VALUE_MAX: usize = 512;

/// Wraps each service of a server in [`Counted`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Counting;

/// Counts the requests of the service inside.
#[derive(Clone, Debug)]
pub(super) struct Counted<S>(S);

impl<S> Layer<S> for Counting {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted(inner)
    }
}

impl<S> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let begun = match begun(request.extensions()) {
            Ok(begun) => begun,
            // Refuses without reading the message. The answer has only headers, so it needs no
            // flow-control window of the peer.
            Err(Full) => return Box::pin(async { Ok(status::of(&overloaded()).into_http()) }),
        };
        *request.headers_mut() = read_headers(request.headers());
        let answer = self.0.call(request);
        Box::pin(async move {
            let answer = too_large_is_invalid(answer.await?);
            Ok(answer.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    // The request counts as unfinished until this value is dropped.
                    let _counted = &begun;
                    frame
                }))
            }))
        })
    }
}

/// Returns a copy of the headers that the service reads. A request holds its headers until its
/// message is complete, so all others are dropped.
fn read_headers(all: &HeaderMap) -> HeaderMap {
    let mut read = HeaderMap::with_capacity(READ.len());
    for name in READ {
        if let Some(value) = all.get(name).filter(|value| value.len() <= VALUE_MAX) {
            // A value shares the memory of the whole list until it is copied.
            read.extend(
                HeaderValue::from_bytes(value.as_bytes())
                    .map(|value| (HeaderName::from_static(name), value)),
            );
        }
    }
    read
}

fn overloaded() -> KmsError {
    KmsError::new(
        Code::Overloaded,
        format!("{} requests are unfinished, which is the most at once", LIMITS.held),
        "find the process that leaves requests unfinished; the API server tries again by itself",
    )
}

/// Replaces the status `OUT_OF_RANGE`, which the transport sends for a message over the limit, by
/// `INVALID_ARGUMENT`. For a caller of KMS v2 this is an invalid request, as for every other value
/// that is too large. This program never sends `OUT_OF_RANGE` itself.
fn too_large_is_invalid(mut response: Response<Body>) -> Response<Body> {
    const OUT_OF_RANGE: HeaderValue = HeaderValue::from_static("11");
    const INVALID_ARGUMENT: HeaderValue = HeaderValue::from_static("3");
    if let Some(status) = response.headers_mut().get_mut("grpc-status")
        && *status == OUT_OF_RANGE
    {
        *status = INVALID_ARGUMENT;
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_only_short_headers_that_the_service_reads() {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", HeaderValue::from_static("3S"));
        headers.insert("traceparent", HeaderValue::from_static("00-1-2-01"));
        headers.insert("tracestate", HeaderValue::from_str(&"x".repeat(VALUE_MAX + 1)).unwrap());
        headers.insert("x-more", HeaderValue::from_static("x"));
        let read = read_headers(&headers);
        assert_eq!(read.len(), 2, "{read:?}");
        assert_eq!(read["grpc-timeout"], "3S");
        assert_eq!(read["traceparent"], "00-1-2-01");
    }
}
