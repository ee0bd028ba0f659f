//! How containers and networks go.

use std::time::Duration;

use futures::future::join_all;
use testcontainers::bollard::errors::Error;
use testcontainers::bollard::query_parameters::RemoveContainerOptionsBuilder;

use super::PLANE_LABEL;
use crate::stage::NoEnvironment;
use crate::stage::engine::{Engine, failed};

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
        loop {
            let containers = self.with_label(PLANE_LABEL, plane).await?;
            let volumes = self.volumes_of(plane).await?;
            if containers.is_empty() && volumes.is_empty() {
                return Ok(());
            }
            let none_left = containers.is_empty();
            let (sharing, own): (Vec<_>, Vec<_>) = containers.into_iter().partition(|c| c.shares_network);
            join_all(sharing.iter().map(|container| self.remove_container(&container.name)))
                .await
                .into_iter()
                .collect::<Result<(), _>>()?;
            for container in own {
                self.remove_from_network(&container.name).await?;
            }
            let removed = self.remove_volumes(&Vec::from_iter(volumes)).await;
            // A container that somebody else was removing may have had one a moment longer.
            if none_left {
                removed?;
            }
            tokio::time::sleep(BETWEEN_REMOVALS).await;
        }
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
