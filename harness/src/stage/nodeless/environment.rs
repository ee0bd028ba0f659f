//! A Calico whose operator, Goldmane and Whisker run, on a control plane without nodes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use catwalk_fixtures::CALICO_NAMESPACE;
use catwalk_fixtures::pki::{Leaf, LeafRequest};
use serde_json::Value;
use tokio::sync::Mutex;

use super::kubelet::Started;
use super::live::Live;
use super::pool::Pool;
use super::relay::Relay;
use crate::environment::{
    About, Capability, Claims, Environment, LookError, Pace, Reached, Stream, WhiskerDoor, WhiskerSide,
};
use crate::report::write_whole;
use crate::sight::Vantage;
use crate::stage::Provisioned;
use crate::stage::calico::{Calico, RENDERING};
use crate::stage::engine::Engine;

/// One domain on a control plane.
pub(super) struct NodelessEnvironment {
    pub about: About,
    pub calico: Calico,
    /// The TigeraStatus that tell that all is rendered.
    pub statuses: Vec<String>,
    pub engine: Engine,
    pub provenance: BTreeMap<String, String>,
    pub relay: Relay,
    pub dns: IpAddr,
    pub pool: Arc<Pool>,
    pub live: Mutex<Option<Live>>,
}

/// The longest wait for the end of the rendering before what was not delivered is looked at again.
const REST: Duration = Duration::from_secs(45);

impl NodelessEnvironment {
    /// Something of what runs.
    async fn of<T>(&self, what: &str, get: impl FnOnce(&Live) -> Option<T>) -> Result<T, LookError> {
        let found = self.live.lock().await.as_ref().and_then(get);
        found.ok_or_else(|| LookError {
            doing: format!("looking for {what}"),
            why: "it does not run".to_owned(),
        })
    }

    async fn address(
        &self,
        what: &str,
        get: impl Fn(&Live) -> &Option<Started>,
    ) -> Result<IpAddr, LookError> {
        self.of(what, |live| get(live).as_ref().map(|started| started.pod.address)).await
    }

    async fn open(&self, address: IpAddr, port: u16, what: &str) -> Result<Box<dyn Stream>, LookError> {
        let failed = |why: &str| LookError { doing: format!("connecting to {what}"), why: why.to_owned() };
        match self.relay.connect(SocketAddr::new(address, port)).await? {
            Reached::Open(stream) => Ok(stream),
            Reached::Refused => Err(failed("connection refused")),
            Reached::TimedOut => Err(failed("connection timed out")),
        }
    }
}

#[async_trait]
impl Environment for NodelessEnvironment {
    fn about(&self) -> &About {
        &self.about
    }

    fn can(&self) -> Vec<Capability> {
        vec![Capability::PushFlow, Capability::AskWhisker, Capability::ListRendered]
    }

    fn pace(&self) -> Pace {
        Pace {
            every: Duration::from_millis(200),
            settle: Duration::from_millis(1500),
            // A dial to an address that drops it is answered after 20 s.
            answer: Duration::from_secs(30),
            step: Duration::from_secs(5),
            patience: Duration::from_secs(60),
        }
    }

    fn vantage(&self) -> Vantage {
        Vantage::Beside
    }

    async fn whisker_side(&self) -> Result<WhiskerSide, LookError> {
        // Its own resolver's search list, as its containers read it.
        let search = self.of("Whisker", |live| live.whisker.as_ref().map(|w| w.search.clone())).await?;
        self.calico.whisker_side(search).await
    }

    async fn connect_dns(&self) -> Result<Box<dyn Stream>, String> {
        // Services come and go, and CoreDNS knows within a moment.
        if let Some(live) = self.live.lock().await.as_mut() {
            live.refresh_dns().await.map_err(|e| e.to_string())?;
        }
        self.open(self.dns, 53, "the DNS").await.map_err(|e| e.to_string())
    }

    async fn connect_goldmane(&self, address: Option<(IpAddr, u16)>) -> Result<Reached, LookError> {
        let (address, port) = match address {
            Some(resolved) => resolved,
            None => {
                let address = self.address("Goldmane", |live| &live.goldmane).await?;
                (address, self.calico.target_port("goldmane").await?)
            }
        };
        self.relay.connect(SocketAddr::new(address, port)).await
    }

    async fn issue(&self, request: &LeafRequest) -> Result<Leaf, LookError> {
        self.calico.issue(request).await
    }

    async fn connect_whisker(&self) -> Result<WhiskerDoor, LookError> {
        let port = self.calico.target_port("whisker").await?;
        let address = self.address("Whisker", |live| &live.whisker).await?;
        self.calico.whisker_door(|| self.open(address, port, "Whisker")).await
    }

    async fn whisker_log(&self) -> Result<String, LookError> {
        let (container, _) = self.calico.dialling_container().await?;
        let doing = "reading Whisker's log";
        let of_pod = |live: &Live| live.whisker.as_ref()?.pod.container(&container).map(str::to_owned);
        let id = self.of("Whisker's container", of_pod).await?;
        self.engine.logs(&id, 0).await.map_err(LookError::while_(doing))
    }

    async fn rendered(&self) -> Result<Vec<Value>, LookError> {
        self.calico.rendered().await
    }

    async fn services(&self) -> Result<Vec<String>, LookError> {
        Ok(self.calico.services().await?.into_keys().collect())
    }

    async fn rendering_ended(&self) -> Result<(), LookError> {
        match self.live.lock().await.as_mut() {
            Some(live) => live.end_rendering(&self.statuses, RENDERING).await,
            None => Ok(()),
        }
    }

    async fn come_to_rest(&self) {
        if let Some(live) = self.live.lock().await.as_mut() {
            // Where it does not end, that is how the operator leaves it.
            let _ = live.end_rendering(&self.statuses, REST).await;
        }
    }

    async fn claims(&self) -> Claims {
        let mut claims = Claims { tigera_status: self.calico.tigera_status().await, ..Claims::default() };
        if let Some(live) = self.live.lock().await.as_ref() {
            for (name, started) in live.pods() {
                let mut words =
                    if super::kubelet::all_ready(&started.ready) { "Ready" } else { "not ready" }.to_owned();
                for (container, id) in started.pod.containers() {
                    match self.engine.state(id).await {
                        Ok(Some(state)) if state.restarts > 0 => {
                            words = format!("container {container} was restarted {} times", state.restarts);
                        }
                        Ok(Some(state)) if !state.running => {
                            words = format!("container {container} is stopped")
                        }
                        _ => {}
                    }
                }
                claims.pods.insert(format!("{CALICO_NAMESPACE}/{name}"), words);
            }
        }
        claims
    }

    async fn send_traffic(&self) -> Result<(String, String), LookError> {
        Err(LookError { doing: "sending traffic".to_owned(), why: "no calico-node runs here".to_owned() })
    }
}

#[async_trait]
impl Provisioned for NodelessEnvironment {
    fn environment(self: Arc<Self>) -> Arc<dyn Environment> {
        self
    }

    async fn provenance(&self) -> BTreeMap<String, String> {
        self.provenance.clone()
    }

    async fn collect(&self, folder: &Path) -> Vec<String> {
        match self.live.lock().await.as_ref() {
            Some(live) => collect(&self.engine, live, folder).await,
            None => vec!["the pods' logs: they are gone".to_owned()],
        }
    }

    async fn finish(&self) -> Result<(), String> {
        let Some(live) = self.live.lock().await.take() else { return Ok(()) };
        let plane = live.end().await.map_err(|e| e.to_string())?;
        self.pool.give_back(plane).await;
        Ok(())
    }

    async fn keep(&self) -> String {
        match self.live.lock().await.take() {
            Some(live) => self.pool.keep(live).await,
            None => "nothing is left to keep".to_owned(),
        }
    }
}

/// Lines of a container's log that are gathered.
const LOG_LINES: usize = 200;

/// Writes the logs of the operator's, Goldmane's and Whisker's containers; what could not be gathered.
pub(super) async fn collect(engine: &Engine, live: &Live, folder: &Path) -> Vec<String> {
    let mut missing = Vec::new();
    for (name, started) in live.pods() {
        for (container, id) in started.pod.containers() {
            let file = format!("{name}.{container}.log");
            let log = engine.logs(id, live.started).await.map_err(|e| e.to_string()).map(|text| {
                let lines: Vec<&str> = text.lines().collect();
                lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
            });
            let written = log.and_then(|text| {
                std::fs::create_dir_all(folder)
                    .and_then(|()| write_whole(&folder.join(&file), text.as_bytes()))
                    .map_err(|e| e.to_string())
            });
            missing.extend(written.err().map(|e| format!("{file}: {e}")));
        }
    }
    missing
}
