//! Control planes of a run from domain to domain: taken, given back, kept, ended.

use std::sync::atomic::AtomicUsize;

use super::live::Live;
use super::plane::Plane;
use crate::owner::{Ledger, Owned};
use crate::stage::NoEnvironment;

/// The control planes of a run that serve no domain now.
pub(super) struct Pool {
    pub ledger: Ledger,
    pub idle: tokio::sync::Mutex<Vec<Plane>>,
    pub started: AtomicUsize,
}

impl Pool {
    /// One of that release; one of another is ended for it, so that they do not become more.
    pub(super) async fn take(&self, calico: &str) -> Result<Option<Plane>, NoEnvironment> {
        let mut idle = self.idle.lock().await;
        if let Some(at) = idle.iter().position(|plane| plane.calico == calico) {
            return Ok(Some(idle.swap_remove(at)));
        }
        let other = idle.pop();
        drop(idle);
        if let Some(other) = other {
            end_plane(&self.ledger, other).await?;
        }
        Ok(None)
    }

    pub(super) async fn give_back(&self, plane: Plane) {
        self.idle.lock().await.push(plane);
    }

    /// Leaves a domain's programs standing on purpose; how to use them.
    pub(super) async fn keep(&self, live: Live) -> String {
        let Plane { name, network, images, .. } = &live.plane;
        let kept = self.ledger.keep(Owned::Plane, name);
        // Others of this run may be kept too.
        let _ = self.ledger.keep(Owned::Network, network);
        let _ = self.ledger.keep(Owned::Image, &images.own);
        match kept {
            Ok(()) => format!(
                "kept: the containers of control plane {name}. `docker ps --filter label=dev.catwalk.plane={name}` \
                 lists them; `cargo xtask clean --kept` removes them"
            ),
            Err(e) => format!("control plane {name} cannot be kept: writing the ledger: {e}"),
        }
    }
}

/// Ends a control plane, and strikes it out of the ledger once nothing of it is left.
pub(super) async fn end_plane(ledger: &Ledger, plane: Plane) -> Result<(), NoEnvironment> {
    // By its owner's name rather than by what is known of it: what was half made is known to nobody.
    plane.pod.engine().remove_plane(&plane.name).await?;
    let struck = ledger.strike(Owned::Plane, &plane.name);
    struck.map_err(|e| NoEnvironment::because(format!("writing the ledger: {e}")))
}
