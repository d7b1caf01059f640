//! One TCP connection while it speaks HTTP.

use std::convert::Infallible;
use std::future::{Future, poll_fn, ready};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use axum::body::Body;
use bytes::Bytes;
use http::header::TRANSFER_ENCODING;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use tokio::net::TcpStream;

use super::PublicServer;
use super::pace::{Pace, PacedStream};
use super::proxy_protocol;
use crate::engine::{Answer, Begun, Takeover};

/// Most bytes of one request's head: more than browsers send with many cookies.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A connection that goes on as a WebSocket.
pub struct Upgraded {
    pub takeover: Takeover,
    pub stream: TcpStream,
    pub received: Bytes,
}

/// Serves HTTP on a connection until it ends, or becomes something else.
pub async fn serve(
    server: &Arc<PublicServer>,
    stream: TcpStream,
    peer: IpAddr,
) -> Option<Upgraded> {
    let mut stream = stream;
    let mut peer = peer;
    if server.config.proxy_protocol && server.resolver.trusts(peer) {
        let header = proxy_protocol::read(&mut stream);
        match tokio::time::timeout(server.config.header_timeout, header).await {
            Ok(Ok(client)) => peer = client.unwrap_or(peer),
            _ => {
                server.metrics.connections_refused.with_label_values(&["proxy_header"]).inc();
                return None;
            }
        }
    }
    let pace = Pace::new(server.config.header_timeout, server.config.keep_alive);
    let takeover = Arc::new(Mutex::new(None));
    let service = HttpService {
        server: server.clone(),
        peer,
        pace: pace.clone(),
        takeover: takeover.clone(),
    };
    let mut connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(PacedStream::new(stream, pace.clone()), service);
    let mut sleep = pin!(tokio::time::sleep(server.config.header_timeout));
    let served = poll_fn(|cx| {
        if let Poll::Ready(result) = connection.poll_without_shutdown(cx) {
            return Poll::Ready(result.is_ok());
        }
        // While a request is answered there is no deadline, and the timer is left as it is.
        let Some(deadline) = pace.deadline() else { return Poll::Pending };
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(cx).map(|()| false)
    })
    .await;
    let takeover = takeover.lock().unwrap_or_else(PoisonError::into_inner).take();
    let parts = connection.into_parts();
    let stream = parts.io.into_inner();
    match takeover {
        Some(takeover) if served => Some(Upgraded { takeover, stream, received: parts.read_buf }),
        _ => {
            // Dropping ends the connection; a response that was not read yet is not worth a wait.
            drop(stream);
            None
        }
    }
}

/// Requests of one connection.
#[derive(Clone)]
struct HttpService {
    server: Arc<PublicServer>,
    peer: IpAddr,
    pace: Arc<Pace>,
    takeover: Arc<Mutex<Option<Takeover>>>,
}

impl Service<Request<Incoming>> for HttpService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.pace.request_began();
        let chunked = request.headers().contains_key(TRANSFER_ENCODING);
        let session = match self.server.begin(&request, self.peer) {
            Begun::Answered(answer) => return Box::pin(ready(Ok(self.end(answer, chunked)))),
            Begun::Polling(session) => session,
        };
        let service = self.clone();
        Box::pin(async move {
            let answer = service.server.engine.finish(session, request).await;
            Ok(service.end(answer, chunked))
        })
    }
}

impl HttpService {
    fn end(&self, mut answer: Answer, chunked: bool) -> Response<Body> {
        self.server.complete(&mut answer, chunked);
        if answer.takeover.is_some() {
            *self.takeover.lock().unwrap_or_else(PoisonError::into_inner) = answer.takeover;
        }
        self.pace.request_ended();
        answer.response
    }
}
