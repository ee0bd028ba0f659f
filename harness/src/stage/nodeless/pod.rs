//! Pods in the engine: a sandbox that holds the network, volumes of memory, and containers that share both.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures::future::join_all;

use super::spec::Planned;
use crate::stage::NoEnvironment;
use crate::stage::containers::{Network, NewContainer, Running, VolumeFile, VolumeMount};
use crate::stage::engine::Engine;

/// The line with which the sandbox's program says that it is ready.
pub(super) use catwalk_fixtures::standin::sandbox::READY;

/// The program of the project's own image. Named wherever it runs: Podman's import does not give an image an
/// entrypoint (seen with 4.3).
pub(super) const STANDIN: &str = "/catwalk-standin";
/// Where a sandbox has the pod's volumes, so that files can be written into them.
const VOLUMES: &str = "/volumes";
/// Seconds that a program gets to end by itself.
const GRACE: i32 = 5;

/// What a new pod is to be.
#[derive(Clone, Default)]
pub(super) struct Setup {
    /// Its name in the engine: unique.
    pub name: String,
    pub plane: String,
    pub network: String,
    /// The project's own image.
    pub sandbox_image: String,
    pub hostname: String,
    /// `/etc/resolv.conf`; none leaves the engine's own.
    pub resolv_conf: Option<String>,
    /// Lines for `/etc/hosts`.
    pub hosts: Option<String>,
    /// Files by volume.
    pub volumes: BTreeMap<String, Vec<VolumeFile>>,
    /// TCP ports that this machine alone can reach.
    pub published: Vec<u16>,
    /// What the sandbox's relay asks for; none lets it relay nothing.
    pub relay_token: Option<String>,
}

/// A pod in the engine. What of it is not ended by [`Pod::end`] goes with its control plane.
pub(super) struct Pod {
    engine: Engine,
    setup: Setup,
    sandbox: Running,
    containers: Vec<(String, Running)>,
    pub address: IpAddr,
    pub published: BTreeMap<u16, u16>,
}

impl Pod {
    /// Creates the pod without its containers.
    pub(super) async fn create(engine: &Engine, setup: Setup) -> Result<Self, NoEnvironment> {
        let mut env = BTreeMap::new();
        let texts = [
            ("RESOLV_CONF", &setup.resolv_conf),
            ("HOSTS", &setup.hosts),
            ("RELAY_TOKEN", &setup.relay_token),
        ];
        for (name, text) in texts {
            env.extend(text.iter().map(|text| (name.to_owned(), text.clone())));
        }
        let mounts = setup.volumes.keys().map(|volume| VolumeMount {
            volume: volume_name(&setup, volume),
            path: format!("{VOLUMES}/{volume}"),
            read_only: false,
            sub_path: None,
        });
        let network = Network::Named(setup.network.clone());
        let new = NewContainer {
            // The kernel takes no longer ones.
            hostname: Some(setup.hostname.chars().take(63).collect()),
            command: vec![STANDIN.to_owned()],
            args: vec!["sandbox".to_owned()],
            env,
            mounts: mounts.collect(),
            published: setup.published.clone(),
            ready_line: Some(READY.to_owned()),
            ..NewContainer::new(setup.name.clone(), &setup.sandbox_image, &setup.plane, network)
        };
        let sandbox = engine.start(new).await?;
        let gone = || NoEnvironment::because(format!("the sandbox of pod {} is gone", setup.name));
        let state = engine.state(sandbox.id()).await?.ok_or_else(gone)?;
        let address = state.address.ok_or_else(|| {
            NoEnvironment::because(format!("the sandbox of pod {} has no address", setup.name))
        })?;
        let pod = Self {
            engine: engine.clone(),
            sandbox,
            containers: Vec::new(),
            address,
            published: state.published,
            setup,
        };
        pod.write(&pod.setup.volumes).await?;
        Ok(pod)
    }

    /// Writes files into its volumes.
    pub(super) async fn write(
        &self,
        volumes: &BTreeMap<String, Vec<VolumeFile>>,
    ) -> Result<(), NoEnvironment> {
        let folders = volumes.iter().map(|(volume, files)| (format!("{VOLUMES}/{volume}"), files.clone()));
        self.engine.upload(self.sandbox.id(), &folders.collect()).await
    }

    /// The files that a volume of it was created with.
    pub(super) fn files(&self, volume: &str) -> Option<&Vec<VolumeFile>> {
        self.setup.volumes.get(volume)
    }

    /// Starts containers in it, each with its image, at once.
    pub(super) async fn run(
        &mut self,
        planned: &[(&Planned, String)],
        restarts: bool,
    ) -> Result<(), NoEnvironment> {
        let starts = planned.iter().map(|(planned, image)| self.start(planned, image, restarts));
        let started = futures::future::try_join_all(starts).await?;
        self.containers.extend(started);
        Ok(())
    }

    async fn start(
        &self,
        planned: &Planned,
        image: &str,
        restarts: bool,
    ) -> Result<(String, Running), NoEnvironment> {
        let mounts = planned
            .mounts
            .iter()
            .cloned()
            .map(|mount| VolumeMount { volume: volume_name(&self.setup, &mount.volume), ..mount });
        let name = container_name(&self.setup, &planned.name);
        let network = Network::Shared(self.sandbox.id().to_owned());
        let new = NewContainer {
            command: planned.command.clone(),
            args: planned.args.clone(),
            env: planned.env.clone(),
            user: planned.user.clone(),
            groups: planned.groups.clone(),
            working_dir: planned.working_dir.clone(),
            mounts: mounts.collect(),
            add_capabilities: planned.add_capabilities.clone(),
            drop_capabilities: planned.drop_capabilities.clone(),
            security: planned.security.clone(),
            read_only_root: planned.read_only_root,
            restarts,
            ..NewContainer::new(name, image, &self.setup.plane, network)
        };
        Ok((planned.name.clone(), self.engine.start(new).await?))
    }

    /// Gives its next programs another resolv.conf: all its containers share the sandbox's.
    pub(super) async fn set_resolv_conf(&self, text: &str) -> Result<(), NoEnvironment> {
        let command = [STANDIN, "resolv-conf", text];
        self.engine.exec(self.sandbox.id(), &command).await.map(drop)
    }

    /// The engine that it is in.
    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The id of one of its containers.
    pub(super) fn container(&self, name: &str) -> Option<&str> {
        self.containers.iter().find(|(known, _)| known == name).map(|(_, running)| running.id())
    }

    /// Names and ids of its containers.
    pub(super) fn containers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.containers.iter().map(|(name, running)| (name.as_str(), running.id()))
    }

    /// Lets its programs end by themselves, a short while.
    pub(super) async fn stop(&self) {
        // What does not stop is killed when it is removed.
        let _ = join_all(self.containers.iter().map(|(_, container)| container.stop(GRACE))).await;
    }

    /// Starts its stopped programs again.
    pub(super) async fn start_again(&self) -> Result<(), NoEnvironment> {
        for (name, container) in &self.containers {
            container.start_again().await.map_err(|e| {
                NoEnvironment::because(format!("container {name} of {}: {e}", self.setup.name))
            })?;
        }
        Ok(())
    }

    /// Ends it.
    pub(super) async fn end(self) -> Result<(), NoEnvironment> {
        let volumes: Vec<String> =
            self.setup.volumes.keys().map(|volume| volume_name(&self.setup, volume)).collect();
        let names: Vec<String> =
            self.containers.iter().map(|(name, _)| container_name(&self.setup, name)).collect();
        let removed = join_all(names.iter().map(|name| self.engine.remove_container(name))).await;
        let sandbox = self.engine.remove_from_network(&self.setup.name).await;
        removed.into_iter().chain([sandbox]).collect::<Result<(), _>>()?;
        self.engine.remove_volumes(&volumes).await
    }
}

fn container_name(setup: &Setup, container: &str) -> String {
    format!("{}-{container}", setup.name)
}

fn volume_name(setup: &Setup, volume: &str) -> String {
    format!("{}-{volume}", setup.name)
}
