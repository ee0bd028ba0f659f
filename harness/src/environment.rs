//! What a stage gives to a scenario: one Calico, and the ways of looking at it.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use catwalk_fixtures::pki::{Identity, Leaf, LeafRequest};
use catwalk_fixtures::{ClusterDomain, DnsProfile, SearchList};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::sight::Vantage;

/// A connection of any kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Something that a scenario may need and an environment may be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Capability {
    /// Pushes a flow to Goldmane with a certificate of the cluster's own authority.
    PushFlow,
    /// Asks Whisker over HTTP and reads its log.
    AskWhisker,
    /// Runs pods whose traffic calico-node reports to Goldmane.
    NodeFlows,
    /// Lists what the operator rendered, and every Service.
    ListRendered,
}

/// What an environment is.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct About {
    /// The Calico version.
    pub calico: String,
    /// The domain that the cluster was set up with.
    pub domain: ClusterDomain,
    /// What its DNS serves.
    pub dns: DnsProfile,
    /// The stage's name.
    pub stage: String,
    /// Whether stand-ins run in place of Calico's programs.
    pub modelled: bool,
    /// Search domains of the host that resolv.conf has in front of the cluster's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_search: Vec<String>,
    /// What is set up beside Calico as released, sorted: files of `kind-configs/with`.
    #[serde(default)]
    pub with: Vec<String>,
    /// Which repetition it is, where the run has several of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repetition: Option<Repetition>,
}

/// One of several environments that are alike, to see whether what they show is too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Repetition {
    /// Which, from 1 on.
    pub index: usize,
    /// Of how many.
    pub of: usize,
}

impl About {
    /// `v3.30.1-corp.internal-strict`, `v3.30.1-corp.internal-strict+gatewayapi`, of a second repetition
    /// `v3.30.1-corp.internal-strict~2`: the environment's part of a case's id, and its folder's name.
    pub fn id(&self) -> String {
        let id = self.id_of_all();
        self.repetition.map_or(id.clone(), |repetition| format!("{id}~{}", repetition.index))
    }

    /// The same without the repetition.
    pub fn id_of_all(&self) -> String {
        let mut id = format!("{}-{}-{}", self.calico, self.domain, self.dns);
        for extra in &self.with {
            id.push('+');
            id.push_str(extra);
        }
        for domain in &self.host_search {
            id.push_str("+search-");
            id.push_str(domain);
        }
        id
    }
}

/// How fast this environment answers, and so how long it is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two looks.
    pub every: Duration,
    /// How long an undelivered verdict must hold before it is believed.
    pub settle: Duration,
    /// The longest wait for one answer of Whisker.
    pub answer: Duration,
    /// The longest wait for one connection, name or handshake of our own.
    pub step: Duration,
    /// The longest wait for a verdict that time may cure.
    pub patience: Duration,
}

/// Whisker's side of the link, read from the live objects.
pub struct WhiskerSide {
    /// `GOLDMANE_HOST` in force.
    pub goldmane_host: String,
    /// The search list of its resolver.
    pub search: SearchList,
    /// The certificates that it trusts, PEM.
    pub trust: String,
    /// The certificate that it shows, with its key: in memory only.
    pub identity: Identity,
}

/// An open way to Whisker's HTTP listener.
pub struct WhiskerDoor {
    /// The connection.
    pub stream: Box<dyn Stream>,
    /// What comes before `/flows`: `/whisker-backend` behind Whisker's nginx, else empty.
    pub prefix: &'static str,
}

/// What came of connecting to Goldmane.
pub enum Reached {
    /// Connected.
    Open(Box<dyn Stream>),
    /// Refused.
    Refused,
    /// No answer.
    TimedOut,
}

/// What the cluster says of itself, at the moment of a case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Claims {
    /// TigeraStatus by name: `Available`, `Degraded: ...`; empty where there is none.
    pub tigera_status: std::collections::BTreeMap<String, String>,
    /// Pods of Calico's namespaces, by name: `Ready`, or what keeps them.
    pub pods: std::collections::BTreeMap<String, String>,
}

/// What went wrong while looking, with what was being done.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {why}")]
pub struct LookError {
    /// As a gerund.
    pub doing: String,
    /// What came back.
    pub why: String,
}

impl LookError {
    /// For `map_err`.
    pub fn while_<E: std::fmt::Display>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        move |e| Self { doing, why: e.to_string() }
    }
}

/// One Calico on one stage.
#[async_trait]
pub trait Environment: Send + Sync {
    /// What it is.
    fn about(&self) -> &About;
    /// What it can do.
    fn can(&self) -> Vec<Capability>;
    /// How fast it answers.
    fn pace(&self) -> Pace;
    /// From where our own dial is made.
    fn vantage(&self) -> Vantage;
    /// Whisker's name for Goldmane, its trust and its certificate.
    async fn whisker_side(&self) -> Result<WhiskerSide, LookError>;
    /// Connects to the cluster's DNS, where it answers over TCP (RFC 7766); the error is what is seen of it instead.
    async fn connect_dns(&self) -> Result<Box<dyn Stream>, String>;
    /// Connects to Goldmane, at the address that its name resolved to where the stage can.
    async fn connect_goldmane(&self, address: Option<(IpAddr, u16)>) -> Result<Reached, LookError>;
    /// Issues a certificate by the cluster's own authority.
    async fn issue(&self, request: &LeafRequest) -> Result<Leaf, LookError>;
    /// Connects to Whisker; the error says what is seen of it instead.
    async fn connect_whisker(&self) -> Result<WhiskerDoor, LookError>;
    /// All that whisker-backend logged.
    async fn whisker_log(&self) -> Result<String, LookError>;
    /// The objects that the operator rendered. Of a Secret no data is among it, only its certificates, as
    /// `certificates`, PEM by key.
    async fn rendered(&self) -> Result<Vec<Value>, LookError>;
    /// Every Service that there is, rendered or not, as `name.namespace`.
    async fn services(&self) -> Result<Vec<String>, LookError>;
    /// Waits until the operator has rendered all that it was asked for, by its own word; bounded.
    async fn rendering_ended(&self) -> Result<(), LookError>;
    /// Lets what is on its way arrive, bounded: of a cluster that is not at rest only a delivery is believed.
    async fn come_to_rest(&self) {}
    /// What the cluster says of itself.
    async fn claims(&self) -> Claims;
    /// Sends traffic from one pod to another; the namespace and the beginning of the sender's name.
    async fn send_traffic(&self) -> Result<(String, String), LookError>;
}
