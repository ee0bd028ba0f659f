//! The lab's environment, looked at as every other is.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use catwalk_fixtures::pki::{Leaf, LeafRequest};
use catwalk_fixtures::standin::Reach;
use catwalk_fixtures::{CALICO_NAMESPACE, SearchList};
use serde_json::Value;
use tokio::net::TcpStream;

use super::{Lab, LabEnvironment};
use crate::environment::{
    About, Capability, Claims, Environment, LookError, Pace, Reached, Stream, WhiskerDoor, WhiskerSide,
};
use crate::sight::Vantage;
use crate::stage::{Provisioned, objects};

/// Without Nagle's algorithm (RFC 9293, 3.7.4), which waits for acknowledgements that loopback delays by 40 ms.
async fn open(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn connect(address: SocketAddr) -> std::io::Result<Reached> {
    match open(address).await {
        Ok(stream) => Ok(Reached::Open(Box::new(stream))),
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => Ok(Reached::Refused),
        Err(e) => Err(e),
    }
}

#[async_trait]
impl Environment for LabEnvironment {
    fn about(&self) -> &About {
        &self.about
    }

    fn can(&self) -> Vec<Capability> {
        Lab::CAN.to_vec()
    }

    fn pace(&self) -> Pace {
        Pace {
            every: Duration::from_millis(50),
            settle: Duration::from_millis(100),
            answer: Duration::from_secs(2),
            step: Duration::from_millis(1500),
            patience: self.patience,
        }
    }

    fn vantage(&self) -> Vantage {
        Vantage::Beside
    }

    async fn whisker_side(&self) -> Result<WhiskerSide, LookError> {
        Ok(WhiskerSide {
            goldmane_host: self.goldmane_host.clone(),
            search: SearchList::of_pod(CALICO_NAMESPACE, &self.about.domain),
            trust: self.trust.clone(),
            identity: self.identity.clone(),
        })
    }

    async fn connect_dns(&self) -> Result<Box<dyn Stream>, String> {
        open(self.dns).await.map(|stream| Box::new(stream) as Box<dyn Stream>).map_err(|e| e.to_string())
    }

    async fn connect_goldmane(&self, address: Option<(IpAddr, u16)>) -> Result<Reached, LookError> {
        let reach = match address {
            Some(address) => (self.route)(address.into()),
            None => Reach::Direct(self.goldmane),
        };
        match reach {
            Reach::Direct(address) => {
                connect(address).await.map_err(LookError::while_("connecting to Goldmane"))
            }
            Reach::Dropped => Ok(Reached::TimedOut),
        }
    }

    async fn issue(&self, request: &LeafRequest) -> Result<Leaf, LookError> {
        self.authority.issue(request).map_err(LookError::while_("issuing a certificate"))
    }

    async fn connect_whisker(&self) -> Result<WhiskerDoor, LookError> {
        let doing = "connecting to Whisker";
        let stream = open(self.ui).await.map_err(LookError::while_(doing))?;
        Ok(WhiskerDoor { stream: Box::new(stream), prefix: self.prefix })
    }

    async fn whisker_log(&self) -> Result<String, LookError> {
        Ok(self.log.text())
    }

    async fn rendered(&self) -> Result<Vec<Value>, LookError> {
        let rendered = self.objects.iter().filter(|object| objects::is_rendered(object)).cloned();
        Ok(rendered.map(objects::certificates_alone).collect())
    }

    async fn services(&self) -> Result<Vec<String>, LookError> {
        Ok(objects::services(&self.objects))
    }

    async fn rendering_ended(&self) -> Result<(), LookError> {
        Ok(())
    }

    async fn claims(&self) -> Claims {
        Claims::default()
    }

    async fn send_traffic(&self) -> Result<(String, String), LookError> {
        Err(LookError { doing: "sending traffic".to_owned(), why: "the lab has no pods".to_owned() })
    }
}

#[async_trait]
impl Provisioned for LabEnvironment {
    fn environment(self: Arc<Self>) -> Arc<dyn Environment> {
        self
    }

    async fn provenance(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("programs".to_owned(), "stand-ins".to_owned())])
    }

    async fn collect(&self, _: &Path) -> Vec<String> {
        Vec::new()
    }

    async fn finish(&self) -> Result<(), String> {
        if let Some(running) = self.running.lock().await.take() {
            running.ui.stop().await;
            if let Some(whisker) = running.whisker {
                whisker.stop().await;
            }
            if let Some(goldmane) = running.goldmane {
                goldmane.stop().await;
            }
            if let Some(dns) = running.dns {
                dns.stop().await;
            }
        }
        Ok(())
    }

    async fn keep(&self) -> String {
        "the lab ends with its process: there is nothing to keep".to_owned()
    }
}
