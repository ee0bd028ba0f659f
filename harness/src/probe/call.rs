//! Calls to Goldmane over an open TLS connection.

use std::time::Duration;

use catwalk_fixtures::AGGREGATION_SECONDS;
use catwalk_fixtures::api::flow_collector_client::FlowCollectorClient;
use catwalk_fixtures::api::flows_client::FlowsClient;
use catwalk_fixtures::api::{self, Flow, FlowKey, FlowListRequest, FlowUpdate};
use hyper_util::rt::TokioIo;
use time::OffsetDateTime;
use tokio::io::AsyncReadExt;
use tokio_rustls::client::TlsStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::tls::{Broken, Watched};
use crate::environment::Stream;
use crate::sight::{CallSeen, Push, Wanted};

type Tls = TlsStream<Box<dyn Stream>>;

/// How long a server's first bytes are waited for before the client speaks.
///
/// A server sends its HTTP/2 settings, or in TLS 1.3 its alert about our certificate, right after the handshake. Who
/// reads before writing cannot lose the alert to a connection reset (RFC 8446, 6.2; RFC 9113, 3.4).
const FIRST_BYTES: Duration = Duration::from_millis(500);

/// Lists no flows: a call that changes nothing, and that only an accepted client certificate gets answered.
pub async fn list_nothing(stream: Tls) -> CallSeen {
    let (channel, broken) = match channel(stream).await {
        Ok(open) => open,
        Err(seen) => return seen,
    };
    // A second in the distant past: Goldmane answers with an empty list.
    let request = FlowListRequest { start_time_gte: 1, start_time_lt: 2, page_size: 1, ..Default::default() };
    seen(FlowsClient::new(channel).list(request).await.map(|_| ()), &broken)
}

/// Pushes one flow that is at least one aggregation interval old, so that Goldmane lists it at once.
pub async fn push(stream: Tls, wanted: &Wanted) -> Push {
    let (channel, broken) = match channel(stream).await {
        Ok(open) => open,
        Err(seen) => return Push::Failed(words(&seen)),
    };
    let update = FlowUpdate { flow: Some(flow(wanted, OffsetDateTime::now_utc())) };
    // The stream stays open until the receipt is here: the real client does not half-close either.
    let updates =
        futures::StreamExt::chain(futures::stream::iter([update]), futures::stream::pending::<FlowUpdate>());
    let answered =
        async { FlowCollectorClient::new(channel).connect(updates).await?.into_inner().message().await };
    match answered.await {
        Ok(Some(_)) => Push::Receipted,
        Ok(None) => Push::Failed("Goldmane ended the stream without a receipt".to_owned()),
        Err(status) => Push::Failed(words(&seen(Err(status), &broken))),
    }
}

fn words(seen: &CallSeen) -> String {
    match (&seen.alert, &seen.broken) {
        (Some(alert), _) => format!("{}: TLS alert {alert}", seen.code),
        (None, Some(broken)) => format!("{}: {broken}", seen.code),
        (None, None) => format!("{}: {}", seen.code, seen.message),
    }
}

/// The canary: two intervals old, aligned as Goldmane aligns.
fn flow(wanted: &Wanted, now: OffsetDateTime) -> Flow {
    let start = now.unix_timestamp() / AGGREGATION_SECONDS * AGGREGATION_SECONDS - 2 * AGGREGATION_SECONDS;
    Flow {
        key: Some(FlowKey {
            source_name: wanted.source_name.clone(),
            source_namespace: wanted.source_namespace.clone(),
            source_type: api::EndpointType::WorkloadEndpoint.into(),
            dest_name: "catwalk-canary-target".to_owned(),
            dest_namespace: wanted.source_namespace.clone(),
            dest_type: api::EndpointType::WorkloadEndpoint.into(),
            dest_port: 80,
            proto: "tcp".to_owned(),
            reporter: api::Reporter::Src.into(),
            action: api::Action::Allow.into(),
            policies: Some(api::PolicyTrace::default()),
            ..FlowKey::default()
        }),
        start_time: start,
        end_time: start + AGGREGATION_SECONDS,
        packets_in: 1,
        packets_out: 1,
        bytes_in: 1,
        bytes_out: 1,
        num_connections_started: 1,
        ..Flow::default()
    }
}

async fn channel(mut stream: Tls) -> Result<(Channel, Broken), CallSeen> {
    let broken = Broken::default();
    let mut first = vec![0; 4096];
    let ahead = match tokio::time::timeout(FIRST_BYTES, stream.read(&mut first)).await {
        Ok(Ok(n)) => first[..n].to_vec(),
        Ok(Err(error)) => {
            let alert = match super::tls::tls_error(&error) {
                Some(rustls::Error::AlertReceived(alert)) => Some(format!("{alert:?}")),
                _ => None,
            };
            return Err(CallSeen {
                code: "Unavailable".to_owned(),
                message: "the connection ended before the call".to_owned(),
                alert,
                broken: Some(error.to_string()),
            });
        }
        Err(_) => Vec::new(),
    };
    let mut once = Some(Watched::new(stream, ahead, broken.clone()));
    let connector = service_fn(move |_| {
        let io = once.take().map(TokioIo::new);
        async move { io.ok_or_else(|| std::io::Error::other("the connection has ended")) }
    });
    // The address is never dialled: the connection is there already.
    let connected = Endpoint::from_static("http://goldmane").connect_with_connector(connector).await;
    match connected {
        Ok(channel) => Ok((channel, broken)),
        Err(error) => {
            let (alert, io) = broken.get();
            Err(CallSeen { code: "Unavailable".to_owned(), message: error.to_string(), alert, broken: io })
        }
    }
}

fn seen(answer: Result<(), tonic::Status>, broken: &Broken) -> CallSeen {
    let (alert, io) = broken.get();
    match answer {
        Ok(()) => CallSeen { code: "Ok".to_owned(), message: String::new(), alert: None, broken: None },
        // tonic says Unknown where the transport broke; gRPC's own word for that is Unavailable.
        Err(status) if io.is_some() && status.code() == Code::Unknown => CallSeen {
            code: "Unavailable".to_owned(),
            message: status.message().to_owned(),
            alert,
            broken: io,
        },
        Err(status) => CallSeen {
            code: format!("{:?}", status.code()),
            message: status.message().to_owned(),
            alert,
            broken: io,
        },
    }
}
