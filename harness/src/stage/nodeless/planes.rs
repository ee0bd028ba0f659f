//! Where a domain's control plane comes from: one that has served, cleared, or a new one.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::plane::{self, Plane};
use super::pool::end_plane;
use super::{Nodeless, is_deployment, lock, no, reset};
use crate::environment::About;
use crate::progress::Teller;
use crate::stage::{NoEnvironment, api};
use crate::timing::Stopwatch;

impl Nodeless {
    /// A control plane of that release, in the state that it has before the operator runs.
    pub(super) async fn plane(
        &self,
        about: &About,
        deadline: Instant,
        teller: &Teller,
        stopwatch: &Stopwatch,
    ) -> Result<Plane, NoEnvironment> {
        let shared = self.shared()?;
        let calico = about.calico.as_str();
        if let Some(mut plane) = self.pool.take(calico).await? {
            lock(&self.serving).insert(about.id(), plane.name.clone());
            teller.tell("clearing a control plane", "");
            if let Some(baseline) = &plane.baseline {
                let restore = async { baseline.restore(&plane.client).await.map_err(no) };
                if let Err(e) = stopwatch.part("clear", false, restore).await {
                    // What does not go now is left to `reap`, which says so.
                    let _ = end_plane(&self.options.ledger, plane).await;
                    return Err(e);
                }
            }
            plane.served += 1;
            return Ok(plane);
        }
        let _core = stopwatch.part("wait for a core", true, self.cores.acquire()).await;
        teller.tell("starting a control plane", "");
        let number = self.pool.started.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", self.options.ledger.run());
        lock(&self.serving).insert(about.id(), name.clone());
        let made = self.new_plane(&name, calico, deadline, teller, stopwatch).await;
        if made.is_err() {
            // The engine may still be making a container of it: `reap` strikes it out.
            let _ = shared.engine.remove_plane(&name).await;
        }
        made
    }

    async fn new_plane(
        &self,
        name: &str,
        calico: &str,
        deadline: Instant,
        teller: &Teller,
        stopwatch: &Stopwatch,
    ) -> Result<Plane, NoEnvironment> {
        let shared = self.shared()?;
        let starting = async {
            let plane = Plane::start(
                &shared.engine,
                &self.options.ledger,
                name.to_owned(),
                shared.network.clone(),
                shared.plane_images.clone(),
                calico.to_owned(),
            );
            let (plane, manifests) = tokio::try_join!(plane, self.manifests(calico))?;
            plane.ready(&shared.engine, deadline, teller).await?;
            Ok::<_, NoEnvironment>((plane, manifests))
        };
        let (mut plane, manifests) = stopwatch.part("control plane", true, starting).await?;
        let tell = teller.as_tell();
        let applying = async {
            let mut objects = vec![plane::node()];
            if let Some(manifests) = manifests {
                teller.tell("applying Calico's CRDs", "");
                api::apply(&plane.client, &manifests.crds, deadline, &tell).await.map_err(no)?;
                objects.extend(manifests.operator.iter().filter(|object| !is_deployment(object)).cloned());
            }
            api::apply(&plane.client, &objects, deadline, &tell).await.map_err(no)?;
            let crds = manifests.map(|m| m.crds.as_slice()).unwrap_or_default();
            api::served(&plane.client, crds, deadline, &tell).await.map_err(no)?;
            plane.baseline = Some(reset::Baseline::take(&plane.client).await.map_err(no)?);
            Ok::<_, NoEnvironment>(())
        };
        stopwatch.part("apply CRDs", false, applying).await?;
        Ok(plane)
    }
}
