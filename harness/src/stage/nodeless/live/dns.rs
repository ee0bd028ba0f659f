//! The DNS of a domain: it answers for the Services that there are.

use super::*;
use crate::probe::dns;
use crate::stage::nodeless::no;

impl Live {
    /// Lets the DNS serve the Services that there are now, and waits until it does.
    pub(in crate::stage::nodeless) async fn refresh_dns(&mut self) -> Result<(), NoEnvironment> {
        let services = self.services().await.map_err(no)?;
        let about = &self.domain.about;
        let zone = json!({"domain": about.domain, "profile": about.dns, "services": services});
        let zone = serde_json::to_vec(&zone)
            .map_err(|e| NoEnvironment::because(format!("writing the DNS' zone: {e}")))?;
        if zone == self.zone {
            return Ok(());
        }
        self.plane.serve(&zone).await?;
        for (service, address) in services {
            let name = format!("{service}.svc.{}.", about.domain.as_str().trim_end_matches('.'));
            self.dns_answers(&name, address).await?;
        }
        self.zone = zone;
        Ok(())
    }

    async fn dns_answers(&self, name: &str, expected: IpAddr) -> Result<(), NoEnvironment> {
        let deadline = Instant::now() + Duration::from_secs(10);
        wait_for("the DNS profile", deadline, Duration::from_millis(50), &|_, _| {}, || async {
            match self.plane.relay.connect((self.plane.address, 53).into()).await {
                Ok(Reached::Open(mut stream)) => match dns::ask(&mut stream, name).await {
                    DnsAnswer::Addresses(addresses) if addresses.first() == Some(&expected) => {
                        Probe::Done(())
                    }
                    answer => Probe::NotYet(format!("{name} {answer:?}")),
                },
                Ok(_) => Probe::NotYet("it does not listen yet".to_owned()),
                Err(e) => Probe::NotYet(e.to_string()),
            }
        })
        .await
        .map_err(|e| NoEnvironment::because(e.to_string()))
    }

    /// Addresses of the Services that exist: those of pods that run at the pods' own, and a headless one, of whose
    /// pods it is said that they run, at nobody's (RFC 5737).
    async fn services(&self) -> Result<BTreeMap<String, IpAddr>, LookError> {
        let services = Calico::new(self.plane.client.clone()).services().await?;
        let of = |(name, address): (String, Option<IpAddr>)| (name, address.unwrap_or(NOBODY));
        let mut services: BTreeMap<String, IpAddr> = services.into_iter().map(of).collect();
        for (name, started) in self.pods() {
            services.entry(format!("{name}.{CALICO_NAMESPACE}")).and_modify(|at| *at = started.pod.address);
        }
        Ok(services)
    }
}
