//! The lab: every part a stand-in, all in this process, on loopback. It needs nothing and proves nothing of Calico.
//!
//! It answers as the real programs were observed to, so it shows that the harness itself tells right from wrong: a
//! [`Plant`] puts one defect into one layer, and the verdict must name that layer.

mod environment;
mod plant;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use catwalk_fixtures::pki::{Authority, Identity, LeafRequest};
use catwalk_fixtures::standin::dns::{Dns, DnsConfig, DnsFault};
use catwalk_fixtures::standin::goldmane::{Goldmane, GoldmaneConfig};
use catwalk_fixtures::standin::ui::{Ui, UiConfig};
use catwalk_fixtures::standin::whisker::{Credentials, LogSink, Pem, Whisker, WhiskerConfig};
use catwalk_fixtures::standin::{Net, Reach, Route, operator};
use catwalk_fixtures::{CALICO_NAMESPACE, OPERATOR_SIGNER, Release, SearchList};
pub use plant::{DnsPlant, Plant, ServicePlant, WhiskerPlant};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use super::{NoEnvironment, Provisioned, Stage, objects};
use crate::environment::{About, Capability};
use crate::progress::Teller;
use crate::timing::Stopwatch;

/// Goldmane's Service, as the stand-ins' DNS gives it.
const SERVICE: (IpAddr, u16) = (IpAddr::V4(Ipv4Addr::new(10, 96, 42, 16)), 7443);
/// Where other Services are.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 42, 17));
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The stage.
pub struct Lab {
    releases: Vec<Release>,
    plant: Plant,
    patience: Duration,
}

impl Lab {
    /// What its environments can do.
    pub const CAN: [Capability; 3] = [Capability::PushFlow, Capability::AskWhisker, Capability::ListRendered];

    /// A lab over these releases.
    pub fn new(releases: Vec<Release>) -> Self {
        Self { releases, plant: Plant::default(), patience: Duration::from_secs(3) }
    }

    /// The same, believing sooner that what time may cure is there to stay.
    #[must_use]
    pub fn impatient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The same with a defect.
    #[must_use]
    pub fn with(mut self, plant: Plant) -> Self {
        self.plant = plant;
        self
    }
}

#[async_trait]
impl Stage for Lab {
    fn name(&self) -> &'static str {
        "lab"
    }

    fn modelled(&self) -> bool {
        true
    }

    fn carries(&self) -> usize {
        4 * std::thread::available_parallelism().map_or(1, usize::from)
    }

    fn not_covered(&self) -> Vec<String> {
        vec!["Calico itself, Kubernetes and a network: every program of the lab is a stand-in".to_owned()]
    }

    async fn prepare(&self, _: &[About], _: usize, _: &Teller) -> Result<(), Vec<NoEnvironment>> {
        Ok(())
    }

    async fn provision(
        &self,
        about: &About,
        teller: &Teller,
        stopwatch: &Stopwatch,
    ) -> Result<Arc<dyn Provisioned>, NoEnvironment> {
        teller.tell("starting the stand-ins", "");
        let release =
            self.releases.iter().find(|release| release.calico == about.calico).ok_or_else(|| {
                NoEnvironment::with_fix(
                    format!("the lab does not know Calico {}", about.calico),
                    "It models the releases of fixtures/data/releases.json",
                )
            })?;
        let env = stopwatch.part("start", false, start(about, release, &self.plant, self.patience)).await;
        env.map(|env| Arc::new(env) as Arc<dyn Provisioned>)
            .map_err(|e| NoEnvironment::because(format!("starting the lab's stand-ins: {e}")))
    }

    async fn abandon(&self, _: &About, _: Option<&Path>, _: bool) -> Vec<String> {
        Vec::new()
    }

    async fn reap(&self, _: bool, _: &Teller) -> Vec<String> {
        Vec::new()
    }
}

/// One Calico of stand-ins.
struct LabEnvironment {
    about: About,
    authority: Authority,
    goldmane_host: String,
    trust: String,
    identity: Identity,
    route: Route,
    goldmane: SocketAddr,
    dns: SocketAddr,
    ui: SocketAddr,
    prefix: &'static str,
    log: LogSink,
    /// Everything that an API server would have, rendered or not.
    objects: Vec<Value>,
    patience: Duration,
    running: Mutex<Option<Running>>,
}

/// What has to be stopped.
struct Running {
    dns: Option<Dns>,
    goldmane: Option<Goldmane>,
    whisker: Option<Whisker>,
    ui: Ui,
    /// Sockets that are bound so that nobody else gets them.
    _held: Vec<TcpListener>,
}

async fn start(
    about: &About,
    release: &Release,
    plant: &Plant,
    patience: Duration,
) -> Result<LabEnvironment, Box<dyn std::error::Error + Send + Sync>> {
    let authority = Authority::generate(OPERATOR_SIGNER)?;
    let other = Authority::generate(OPERATOR_SIGNER)?;
    let mut objects = operator::render(release, &about.domain, &authority, "catwalk/standin:lab")?;
    objects.extend(plant.objects.iter().cloned());
    let deployment = objects::find(&objects, "Deployment", CALICO_NAMESPACE, "whisker");
    let goldmane_host = deployment
        .and_then(|d| objects::container_with(d, "GOLDMANE_HOST"))
        .map(|(_, value)| value.to_owned())
        .ok_or("the stand-in operator rendered no GOLDMANE_HOST")?;

    let mut services = addresses(&objects);
    if let DnsPlant::Lacks(service) = plant.dns {
        services.remove(service);
    }
    let dns = Dns::start(DnsConfig {
        listen: LOOPBACK,
        domain: about.domain.clone(),
        profile: about.dns,
        services,
        fault: if plant.dns == DnsPlant::Fails { DnsFault::ServesFail } else { DnsFault::None },
    })
    .await?;
    let dns_address = dns.address();
    let mut held = Vec::new();

    let mut request = LeafRequest::goldmane(&about.domain);
    (plant.certificate)(&mut request);
    let leaf = authority.issue(&request)?;
    let goldmane = Goldmane::start(GoldmaneConfig {
        listen: LOOPBACK,
        certificate_pem: leaf.certificate_pem().to_owned(),
        key_pem: leaf.key_pem().to_owned().into(),
        client_ca_pem: if plant.goldmane_distrusts { &other } else { &authority }
            .certificate_pem()
            .to_owned(),
        rollover: Duration::from_millis(100),
        fault: plant.goldmane,
    })
    .await?;
    let goldmane_address = goldmane.address();
    let goldmane = if plant.service == ServicePlant::Refuses {
        goldmane.stop().await;
        None
    } else {
        Some(goldmane)
    };
    let drops = plant.service == ServicePlant::Drops;
    let route: Route = Arc::new(move |address: SocketAddr| {
        if !drops && (address.ip(), address.port()) == SERVICE {
            Reach::Direct(goldmane_address)
        } else {
            Reach::Dropped
        }
    });
    let dns = if plant.dns == DnsPlant::Gone {
        dns.stop().await;
        None
    } else {
        Some(dns)
    };

    let own = authority.issue(&LeafRequest::whisker_backend(&about.domain))?;
    let trust = if plant.whisker_distrusts { &other } else { &authority }.certificate_pem().to_owned();
    let key = match plant.whisker {
        WhiskerPlant::LacksKey => Pem::file("/whisker-backend-key-pair/missing.key"),
        _ => Pem::text("/whisker-backend-key-pair/tls.key", own.key_pem()),
    };
    let credentials = Credentials {
        certificate: Pem::text("/whisker-backend-key-pair/tls.crt", own.certificate_pem()),
        key,
        ca: Pem::text(release.whisker_backend_default_ca_path.as_str(), trust.as_str()),
    };
    let search = SearchList::of_pod(CALICO_NAMESPACE, &about.domain);
    let net = Net::new(dns_address, search, route.clone());
    let mut config = WhiskerConfig::new(LOOPBACK, goldmane_host.clone(), credentials, net);
    config.dial_timeout = Duration::from_millis(400);
    let log = config.log.clone();
    let mut whisker = Whisker::start(config).await.ok();
    let mut backend = match &whisker {
        Some(whisker) => whisker.address(),
        None => unused().await?,
    };
    match plant.whisker {
        WhiskerPlant::Gone => {
            if let Some(whisker) = whisker.take() {
                whisker.stop().await;
            }
        }
        WhiskerPlant::Hangs => backend = silent(&mut held).await?,
        WhiskerPlant::Runs | WhiskerPlant::LacksKey | WhiskerPlant::ShowsIndexPage => {}
    }
    let prefix =
        if plant.whisker == WhiskerPlant::ShowsIndexPage { "/elsewhere" } else { "/whisker-backend" };
    let ui = Ui::start(UiConfig { listen: LOOPBACK, backend }).await?;
    Ok(LabEnvironment {
        about: about.clone(),
        goldmane_host,
        trust,
        identity: own.identity()?,
        route,
        goldmane: goldmane_address,
        dns: dns_address,
        ui: ui.address(),
        prefix,
        log,
        objects,
        patience,
        running: Mutex::new(Some(Running { dns, goldmane, whisker, ui, _held: held })),
        authority,
    })
}

/// Every Service as `name.namespace`, with an address: Goldmane's its own, where nobody listens the others'.
fn addresses(objects: &[Value]) -> BTreeMap<String, IpAddr> {
    let names = objects::services(objects).into_iter().map(|name| {
        let address = if name == format!("goldmane.{CALICO_NAMESPACE}") { SERVICE.0 } else { NOBODY };
        (name, address)
    });
    names.collect()
}

/// A port on which nobody listens for the moment.
async fn unused() -> std::io::Result<SocketAddr> {
    TcpListener::bind(LOOPBACK).await?.local_addr()
}

/// A port that takes connections and never says a word: the system completes them, nobody reads.
async fn silent(held: &mut Vec<TcpListener>) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(LOOPBACK).await?;
    let address = listener.local_addr()?;
    held.push(listener);
    Ok(address)
}
