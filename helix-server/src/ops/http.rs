//! What operators and their tools ask over HTTP: metrics, health, and the recovery of groups that wait for a leader.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::metrics::Metrics;
use super::recovery::{RECOVER_PATH, RecoverAnswer, RecoverRequest};

/// What [`Metrics::text`] writes.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const JSON_TYPE: &str = "application/json";
/// The longest request that is read.
const MAX_REQUEST_BYTES: usize = 16 << 10;
/// A request that is not through so long after the server was told to stop is cut off.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Whether the node should get traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Why not; empty when it is ready.
    pub reasons: Vec<String>,
}

impl Readiness {
    /// Nothing speaks against it.
    pub fn ready() -> Self {
        Self::default()
    }

    /// The node has not come far enough to say more.
    pub fn starting() -> Self {
        Self { reasons: vec!["the node is starting".to_owned()] }
    }

    /// Whether nothing speaks against it.
    pub fn is_ready(&self) -> bool {
        self.reasons.is_empty()
    }
}

/// What the answers are made of.
#[derive(Clone)]
pub struct HttpState {
    /// Behind `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Behind `/health/ready`; asked at each request, so it must answer at once.
    pub readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
    /// Behind `/admin/recover`; an error is a text for the operator.
    pub recovery: Arc<RecoveryHandler>,
}

/// Does what `helix-server recover` asks for.
pub type RecoveryHandler =
    dyn Fn(RecoverRequest) -> BoxFuture<'static, Result<RecoverAnswer, String>> + Send + Sync;

impl HttpState {
    /// Answers from these; `readiness` is asked at each request. Nothing can be recovered.
    pub fn new(metrics: Arc<Metrics>, readiness: impl Fn() -> Readiness + Send + Sync + 'static) -> Self {
        let nothing = |_| -> BoxFuture<'static, _> { Box::pin(async { Ok(RecoverAnswer::default()) }) };
        Self { metrics, readiness: Arc::new(readiness), recovery: Arc::new(nothing) }
    }
}

impl fmt::Debug for HttpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpState")
    }
}

/// Serves until `stop` is ready and the requests under way are through.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    state: HttpState,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route(RECOVER_PATH, post(recover).layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES)))
        .with_state(state)
        .into_make_service_with_connect_info::<SocketAddr>();
    let (stopping, stopped) = oneshot::channel();
    let stop = async move {
        stop.await;
        // Nobody waits for it any more only if serving has ended already.
        let _ = stopping.send(());
    };
    let cut_off = async move {
        match stopped.await {
            Ok(()) => tokio::time::sleep(STOP_GRACE).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        served = axum::serve(listener, router).with_graceful_shutdown(stop).into_future() => served,
        () = cut_off => Ok(()),
    }
}

async fn metrics(State(state): State<HttpState>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], state.metrics.text())
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
}

/// Only the node's own machine may ask for what can lose data, and no page in a browser: such a request would not have this type.
async fn recover(
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    State(state): State<HttpState>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !from.ip().to_canonical().is_loopback() {
        return (StatusCode::FORBIDDEN, "ask on the node's own machine").into_response();
    }
    if headers.get(header::CONTENT_TYPE).is_none_or(|kind| kind != JSON_TYPE) {
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, "the request must be application/json").into_response();
    }
    let request = match serde_json::from_slice::<RecoverRequest>(&body) {
        Ok(request) => request,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    match (state.recovery)(request).await {
        Ok(answer) => {
            let answer = serde_json::to_string(&answer).expect("names and numbers can be written as JSON");
            ([(header::CONTENT_TYPE, JSON_TYPE)], answer).into_response()
        }
        Err(reason) => (StatusCode::CONFLICT, reason).into_response(),
    }
}

async fn live() -> Response {
    health(StatusCode::OK, &Health { status: "live", reasons: Vec::new() })
}

async fn ready(State(state): State<HttpState>) -> Response {
    let readiness = (state.readiness)();
    if readiness.is_ready() {
        health(StatusCode::OK, &Health { status: "ready", reasons: Vec::new() })
    } else {
        health(StatusCode::SERVICE_UNAVAILABLE, &Health { status: "not ready", reasons: readiness.reasons })
    }
}

fn health(status: StatusCode, body: &Health) -> Response {
    let body = serde_json::to_string(body).expect("a status and a list of texts can be written as JSON");
    (status, [(header::CONTENT_TYPE, JSON_TYPE)], body).into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use kafka_protocol::messages::ApiKey;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::task::JoinHandle;

    use super::*;

    struct Server {
        address: SocketAddr,
        ready: Arc<AtomicBool>,
        stop: oneshot::Sender<()>,
        serving: JoinHandle<io::Result<()>>,
    }

    async fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let ready = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&ready);
        let readiness = move || match asked.load(Ordering::SeqCst) {
            true => Readiness::ready(),
            false => Readiness { reasons: vec!["still \"recovering\"".to_owned()] },
        };
        let metrics = Arc::new(Metrics::new([ApiKey::Produce]));
        metrics.produce_held();
        let state = HttpState::new(metrics, readiness);
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(serve(listener, state, async {
            stopped.await.expect("told to stop");
        }));
        Server { address, ready, stop, serving }
    }

    /// The whole answer to a GET.
    async fn get(address: SocketAddr, path: &str) -> String {
        exchange(address, &format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")).await
    }

    async fn exchange(address: SocketAddr, request: &str) -> String {
        let mut socket = TcpStream::connect(address).await.expect("it listens");
        socket.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("it answers");
        answer
    }

    #[tokio::test]
    async fn metrics_and_health_are_served_until_told_to_stop() {
        let server = start().await;
        let metrics = get(server.address, "/metrics").await;
        assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
        assert!(metrics.contains("helix_produce_held_total 1\n"), "{metrics}");
        assert!(metrics.ends_with("# EOF\n"), "{metrics}");

        assert!(get(server.address, "/health/live").await.starts_with("HTTP/1.1 200 OK\r\n"));
        let not_ready = get(server.address, "/health/ready").await;
        assert!(not_ready.starts_with("HTTP/1.1 503 "), "{not_ready}");
        assert!(
            not_ready.ends_with(r#"{"status":"not ready","reasons":["still \"recovering\""]}"#),
            "{not_ready}"
        );
        server.ready.store(true, Ordering::SeqCst);
        let ready = get(server.address, "/health/ready").await;
        assert!(
            ready.starts_with("HTTP/1.1 200 OK\r\n") && ready.ends_with(r#"{"status":"ready"}"#),
            "{ready}"
        );
        assert!(get(server.address, "/nothing").await.starts_with("HTTP/1.1 404 "));

        server.stop.send(()).expect("it serves");
        server.serving.await.expect("it does not panic").expect("it ends well");
    }

    #[tokio::test]
    async fn a_recovery_is_asked_for_in_json() {
        let server = start().await;
        let asked = |kind: &str, body: &str| {
            format!(
                "POST /admin/recover HTTP/1.1\r\nHost: node\r\nConnection: close\r\nContent-Type: {kind}\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        let body = r#"{"groups":"all","force":true}"#;
        let refused = exchange(server.address, &asked("text/plain", body)).await;
        assert!(refused.starts_with("HTTP/1.1 415 "), "{refused}");
        let nonsense = exchange(server.address, &asked("application/json", r#"{"groups":"some"}"#)).await;
        assert!(nonsense.starts_with("HTTP/1.1 400 "), "{nonsense}");
        let answer = exchange(server.address, &asked("application/json", body)).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(r#"{"groups":[]}"#), "{answer}");
        server.stop.send(()).expect("it serves");
        server.serving.await.expect("it does not panic").expect("it ends well");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_finishes_does_not_hold_up_the_stop() {
        let server = start().await;
        let mut socket = TcpStream::connect(server.address).await.expect("it listens");
        socket.write_all(b"GET /metrics HTTP/1.1\r\n").await.expect("it reads");
        server.stop.send(()).expect("it serves");
        server.serving.await.expect("it does not panic").expect("it ends well");
    }
}
