//! How containers and networks go.

use std::time::{Duration, Instant};

use futures::future::join_all;
use testcontainers::bollard::errors::Error;
use testcontainers::bollard::query_parameters::RemoveContainerOptionsBuilder;

use super::PLANE_LABEL;
use crate::stage::NoEnvironment;
use crate::stage::engine::{Engine, failed};
use crate::wait::{Probe, wait_for};

/// The longest that removing a control plane may take.
const REMOVAL: Duration = Duration::from_secs(120);
/// The pause before it is looked again whether all is removed.
const BETWEEN_REMOVALS: Duration = Duration::from_millis(100);

impl Engine {
    /// Removes a network; one that is gone is removed.
    pub(in crate::stage) async fn remove_network(&self, name: &str) -> Result<(), NoEnvironment> {
        match self.docker().remove_network(name).await {
            Ok(()) | Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            Err(e) => Err(failed(&format!("removing network {name}"), &e)),
        }
    }

    /// Removes the containers and volumes of a control plane, until there are none.
    pub(in crate::stage) async fn remove_plane(&self, plane: &str) -> Result<(), NoEnvironment> {
        let what = "the end of a control plane's containers and volumes";
        let removed = wait_for(what, Instant::now() + REMOVAL, BETWEEN_REMOVALS, &|_, _| {}, || async {
            match self.remove_what_goes(plane).await {
                Ok(true) => Probe::Done(()),
                Ok(false) => Probe::NotYet("some were there".to_owned()),
                Err(e) => Probe::Never(e.to_string()),
            }
        });
        removed.await.map_err(|e| NoEnvironment::because(e.to_string()))
    }

    /// Removes those that there are; whether there were none.
    async fn remove_what_goes(&self, plane: &str) -> Result<bool, NoEnvironment> {
        let containers = self.with_label(PLANE_LABEL, plane).await?;
        let volumes = self.volumes_of(plane).await?;
        if containers.is_empty() && volumes.is_empty() {
            return Ok(true);
        }
        let none_left = containers.is_empty();
        let (sharing, own): (Vec<_>, Vec<_>) = containers.into_iter().partition(|c| c.shares_network);
        let removed = join_all(sharing.iter().map(|container| self.remove_container(&container.name))).await;
        removed.into_iter().collect::<Result<(), _>>()?;
        for container in own {
            self.remove_from_network(&container.name).await?;
        }
        let removed = self.remove_volumes(&Vec::from_iter(volumes)).await;
        // A container that somebody else was removing may have had one a moment longer.
        if none_left {
            removed?;
        }
        Ok(false)
    }

    /// Removes a container that is on a network itself.
    ///
    /// One at a time: Docker before 20.10.27 can lock itself up for good when two leave one network at once
    /// (moby/moby#46661).
    pub(in crate::stage) async fn remove_from_network(&self, name: &str) -> Result<(), NoEnvironment> {
        let _leaving = self.leaving().await;
        self.remove_container(name).await
    }

    /// Removes a container, running or not; one that is gone is removed.
    pub(in crate::stage) async fn remove_container(&self, name: &str) -> Result<(), NoEnvironment> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.docker().remove_container(name, Some(options)).await {
            // 409: somebody else is removing it already.
            Ok(()) | Err(Error::DockerResponseServerError { status_code: 404 | 409, .. }) => Ok(()),
            Err(e) => Err(failed(&format!("removing container {name}"), &e)),
        }
    }
}
