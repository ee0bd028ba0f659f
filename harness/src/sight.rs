//! What one look saw, raw: the questions asked and the answers got, with no judgement in it.
//!
//! A sight is evidence. It is written to the report and read again by tests, so that today's judgement can be held
//! against what a real cluster showed. It holds certificates and never a key.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One look at Whisker and Goldmane.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Sight {
    /// When it began, RFC 3339, UTC.
    pub at: String,
    /// The flow that Whisker should know of.
    pub wanted: Wanted,
    /// Whether Goldmane acknowledged the pushed flow; none where the flow comes from real traffic.
    pub pushed: Option<Push>,
    /// The first witness: our own dial with Whisker's name, trust and certificate.
    pub dial: Dial,
    /// The second witness: what Whisker answers.
    pub whisker: Said,
    /// What Whisker logged since it was asked; of a process that is not there, its last words.
    pub log: Vec<String>,
    /// Why its log could not be read, if so.
    #[serde(default)]
    pub log_not_seen: Option<String>,
    /// Milliseconds from the question to Whisker's answer.
    pub after_ms: u64,
}

/// The flow that Whisker should show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Wanted {
    /// Its source's namespace, by which Whisker is asked to filter.
    pub source_namespace: String,
    /// Its source's name, or the beginning of it.
    pub source_name: String,
}

/// What became of pushing a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Push {
    /// Goldmane sent a receipt.
    Receipted,
    /// It did not come so far.
    Failed(String),
}

/// From where an observation is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Vantage {
    /// On the same network as Whisker: what we reach, it reaches.
    Beside,
    /// Through a port-forward, which goes past the Service, kube-proxy and policy.
    PortForward,
}

/// Our own way from a name to an answered call, up to the first layer that breaks.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Dial {
    /// From where it was made.
    pub vantage: Vantage,
    /// `GOLDMANE_HOST` in force, `host:port`.
    pub target: String,
    /// Questions to the cluster's DNS with their answers, in order.
    pub names: Vec<(String, DnsAnswer)>,
    /// The connection, if a name resolved.
    pub connection: Option<Connection>,
    /// The TLS handshake, if connected.
    pub tls: Option<TlsSeen>,
    /// The call, if the handshake was good.
    pub call: Option<CallSeen>,
    /// Why it could not be made at all, if so: then nothing is known of the layers after what is recorded.
    #[serde(default)]
    pub not_seen: Option<String>,
}

/// The cluster DNS's answer to one A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DnsAnswer {
    /// NOERROR with these addresses; with none, the name exists without an address.
    Addresses(Vec<std::net::IpAddr>),
    /// NXDOMAIN.
    NoSuchName,
    /// Another response code.
    Failed(String),
    /// No answer.
    Unreachable(String),
}

/// What came of connecting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Connection {
    /// Open, to the resolved address or through a port-forward.
    Open(Option<SocketAddr>),
    /// Refused.
    Refused,
    /// No answer.
    TimedOut,
}

/// What a TLS handshake showed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TlsSeen {
    /// The certificates that the peer sent, PEM, leaf first.
    pub chain: Vec<String>,
    /// The certificates that Whisker trusts, PEM.
    pub roots: Vec<String>,
    /// The name that the certificate is held against.
    pub name: String,
    /// The time that it is held against, RFC 3339, UTC.
    pub now: String,
    /// How the handshake ended.
    pub end: TlsEnd,
}

/// How a TLS handshake ended on our side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TlsEnd {
    /// Complete. In TLS 1.3 this says nothing of our own certificate (RFC 8446, 4.4.2).
    Complete,
    /// The peer's bytes are no TLS.
    NotTls,
    /// The peer sent an alert.
    Alert(String),
    /// Something else.
    Failed(String),
}

/// What a call over the connection showed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CallSeen {
    /// The gRPC status code's name, `Ok` where it succeeded.
    pub code: String,
    /// The status message.
    pub message: String,
    /// The TLS alert that ended the connection.
    pub alert: Option<String>,
    /// The I/O error that ended the connection.
    pub broken: Option<String>,
}

/// What Whisker answered over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// No connection to it, or its process is gone.
    NotThere(String),
    /// No whole answer in time.
    Silent(String),
    /// An answer.
    Answer {
        /// HTTP status.
        status: u16,
        /// `Content-Type`.
        content_type: String,
        /// The body, or of an endless one what came until the wanted flow was in it.
        body: String,
    },
}
