//! The container engine: what kind's nodes and images live in.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use testcontainers::bollard::Docker;
use testcontainers::bollard::container::LogOutput;
use testcontainers::bollard::errors::Error;
use testcontainers::bollard::exec::{CreateExecOptions, StartExecResults};
use testcontainers::bollard::query_parameters::{
    CreateImageOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder,
};
use testcontainers::core::client::docker_client_instance;
use tokio::sync::{Mutex, MutexGuard};

use super::command;
use crate::owner::{Ledger, RunId};
use crate::report::BUILT_HERE;
use crate::stage::NoEnvironment;

/// The label by which an image tells its run.
pub(super) const RUN_LABEL: &str = "dev.catwalk.run";

/// The label by which kind's nodes tell their cluster.
pub(super) const KIND_LABEL: &str = "io.x-k8s.kind.cluster";

/// Whether a repository is that of a reference: Docker Hub's may be written short (distribution/reference).
fn same_repository(repository: &str, reference: &str) -> bool {
    fn long(name: &str) -> String {
        let name = name.split('@').next().unwrap_or(name);
        let (path, last) = name.rsplit_once('/').unwrap_or(("", name));
        let last = last.split(':').next().unwrap_or(last);
        match path {
            "" | "docker.io" => format!("docker.io/library/{last}"),
            path if path
                .split('/')
                .next()
                .is_some_and(|first| first.contains(['.', ':']) || first == "localhost") =>
            {
                format!("{path}/{last}")
            }
            path => format!("docker.io/{path}/{last}"),
        }
    }
    long(repository) == long(reference)
}

/// A connection to the engine.
#[derive(Clone)]
pub(super) struct Engine {
    docker: Docker,
    /// The version of the API that both speak.
    api: [usize; 2],
    /// Held while a container leaves its network.
    leaving: Arc<Mutex<()>>,
    /// Registries that did not answer: they are not asked again.
    pub(super) silent: Arc<Mutex<BTreeSet<String>>>,
}

/// What the engine says of itself.
#[derive(Clone, Debug)]
pub(super) struct EngineInfo {
    /// `20.10.24`
    pub version: String,
    /// `linux/amd64`
    pub platform: String,
    /// Where it keeps images, on its own machine.
    pub root: String,
    /// Whether it runs on this machine's own kernel.
    pub local: bool,
}

pub(super) fn failed(doing: &str, error: &dyn std::fmt::Display) -> NoEnvironment {
    NoEnvironment::because(format!("{doing}: {error}"))
}

impl Engine {
    /// Connects as Docker's own tools do (`DOCKER_HOST`, else the default socket), in the newest API that both speak.
    pub(super) async fn connect() -> Result<Self, NoEnvironment> {
        let no_engine = |e: &dyn std::fmt::Display| {
            NoEnvironment::with_fix(
                format!("no container engine answers: {e}"),
                "Start Docker, or point DOCKER_HOST at one; without any, `cargo xtask e2e --stage lab` needs none",
            )
        };
        let docker = docker_client_instance().await.map_err(|e| no_engine(&e))?;
        let docker = docker.negotiate_version().await.map_err(|e| no_engine(&e))?;
        let version = docker.client_version();
        let api = [version.major_version, version.minor_version];
        Ok(Self { docker, api, leaving: Arc::default(), silent: Arc::default() })
    }

    /// The connection.
    pub(super) fn docker(&self) -> &Docker {
        &self.docker
    }

    /// Waits until no container is leaving its network; none can while the guard is held.
    pub(super) async fn leaving(&self) -> MutexGuard<'_, ()> {
        self.leaving.lock().await
    }

    /// The version of the API that both speak.
    pub(super) fn api(&self) -> [usize; 2] {
        self.api
    }

    /// What it is.
    pub(super) async fn info(&self) -> Result<EngineInfo, NoEnvironment> {
        let info = self.docker.info().await.map_err(|e| failed("asking the engine what it is", &e))?;
        let arch = match info.architecture.as_deref() {
            Some("x86_64") => "amd64",
            Some("aarch64") => "arm64",
            Some(other) => other,
            None => "amd64",
        };
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(EngineInfo {
            version: info.server_version.unwrap_or_default(),
            platform: format!("linux/{arch}"),
            root: info.docker_root_dir.unwrap_or_default(),
            local: info.kernel_version.as_deref() == Some(kernel.trim()),
        })
    }

    /// An image's digest in its registry, or for one that came from none its id with a word on that; none if it is not
    /// here.
    pub(super) async fn image(&self, reference: &str) -> Result<Option<String>, NoEnvironment> {
        let Some((id, digests)) = self.digests(reference).await? else { return Ok(None) };
        Ok(Some(digests.into_iter().next().unwrap_or_else(|| format!("{id} {BUILT_HERE}"))))
    }

    /// An image's id, and its digests in its repository; none if it is not here.
    pub(super) async fn digests(
        &self,
        reference: &str,
    ) -> Result<Option<(String, Vec<String>)>, NoEnvironment> {
        match self.docker.inspect_image(reference).await {
            Ok(image) => {
                // One that was pulled elsewhere and got this name here did not come from this name's registry.
                let of = |digest: &String| {
                    digest.split('@').next().is_some_and(|of| same_repository(of, reference))
                };
                let digests = image.repo_digests.into_iter().flatten().filter(of).collect();
                Ok(Some((image.id.unwrap_or_default(), digests)))
            }
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(e) => Err(failed(&format!("looking for image {reference}"), &e)),
        }
    }

    /// Writes images into an archive.
    ///
    /// An engine that keeps images in containerd's store writes all platforms' manifests, of which it has one platform's
    /// content: there the platform must be named, which older engines do not understand (kind#3795; Docker API 1.48).
    pub(super) async fn save(
        &self,
        ledger: &Ledger,
        references: &[String],
        platform: &str,
        archive: &Path,
    ) -> Result<(), NoEnvironment> {
        let archive = archive.to_string_lossy();
        let mut words = vec!["image", "save", "--output", &archive];
        if self.api >= [1, 48] {
            words.extend(["--platform", platform]);
        }
        words.extend(references.iter().map(String::as_str));
        command::run(ledger, "docker", &words, None, &|_| {}).await.map(|_| ())
    }

    /// Makes an image with no base out of one program, owned by the run.
    pub(super) async fn image_of_program(
        &self,
        reference: &str,
        name: &str,
        program: &Path,
        run: &RunId,
    ) -> Result<(), NoEnvironment> {
        let doing = format!("making image {reference}");
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = || {
            let mut header = tar::Header::new_gnu();
            let bytes = std::fs::read(program)?;
            header.set_size(bytes.len() as u64);
            header.set_mode(0o755);
            tar.append_data(&mut header, name, bytes.as_slice())?;
            tar.finish()
        };
        add().map_err(|e| failed(&doing, &e))?;
        let bytes = tar.into_inner().map_err(|e| failed(&doing, &e))?;
        let options = CreateImageOptionsBuilder::default()
            .from_src("-")
            // With its tag: Podman (seen with 4.3) does not look at the parameter `tag`.
            .repo(reference)
            .changes(vec![format!("LABEL {RUN_LABEL}={run}"), format!("ENTRYPOINT [\"/{name}\"]")])
            .build();
        let body = testcontainers::bollard::body_full(bytes.into());
        let made: Result<Vec<_>, Error> =
            self.docker.create_image(Some(options), Some(body), None).try_collect().await;
        made.map(|_| ()).map_err(|e| failed(&doing, &e))
    }

    /// Gives an image another name.
    pub(super) async fn tag(
        &self,
        reference: &str,
        repository: &str,
        tag: &str,
    ) -> Result<(), NoEnvironment> {
        let options = TagImageOptionsBuilder::default().repo(repository).tag(tag).build();
        let tagged = self.docker.tag_image(reference, Some(options)).await;
        tagged.map_err(|e| failed(&format!("naming {reference} {repository}:{tag}"), &e))
    }

    /// Removes an image; one that is gone is removed.
    pub(super) async fn remove_image(&self, reference: &str) -> Result<(), NoEnvironment> {
        let options = RemoveImageOptionsBuilder::default().force(true).build();
        match self.docker.remove_image(reference, Some(options), None).await {
            Ok(_) | Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            Err(e) => Err(failed(&format!("removing image {reference}"), &e)),
        }
    }

    /// Removes a run's images that have no name: one that was cut off in the making, or whose name went to another.
    pub(super) async fn remove_nameless_images(&self, run: &RunId) -> Result<(), NoEnvironment> {
        let label = vec![format!("{RUN_LABEL}={run}")];
        let filters = HashMap::from([("label", label), ("dangling", vec!["true".to_owned()])]);
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        let images = self.docker.list_images(Some(options)).await;
        for image in images.map_err(|e| failed("listing images", &e))? {
            self.remove_image(&image.id).await?;
        }
        Ok(())
    }

    /// The containers that are a kind cluster's nodes.
    pub(super) async fn nodes(&self, cluster: &str) -> Result<Vec<String>, NoEnvironment> {
        let nodes = self.with_label(KIND_LABEL, cluster).await?;
        Ok(nodes.into_iter().map(|node| node.name).collect())
    }

    /// Runs a program in a container and gives its output.
    pub(super) async fn exec(&self, container: &str, command: &[&str]) -> Result<String, NoEnvironment> {
        let doing = format!("running {} in {container}", command.join(" "));
        let options = CreateExecOptions {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.iter().map(|word| (*word).to_owned()).collect()),
            ..CreateExecOptions::default()
        };
        let exec = self.docker.create_exec(container, options).await.map_err(|e| failed(&doing, &e))?;
        let started = self.docker.start_exec(&exec.id, None).await.map_err(|e| failed(&doing, &e))?;
        let StartExecResults::Attached { mut output, .. } = started else {
            return Err(failed(&doing, &"it was not attached"));
        };
        let (mut stdout, mut stderr) = (String::new(), String::new());
        while let Some(part) = output.try_next().await.map_err(|e| failed(&doing, &e))? {
            match part {
                LogOutput::StdErr { message } => stderr.push_str(&String::from_utf8_lossy(&message)),
                LogOutput::StdOut { message } | LogOutput::Console { message } => {
                    stdout.push_str(&String::from_utf8_lossy(&message));
                }
                LogOutput::StdIn { .. } => {}
            }
        }
        let ended = self.docker.inspect_exec(&exec.id).await.map_err(|e| failed(&doing, &e))?;
        match ended.exit_code {
            Some(0) | None => Ok(stdout),
            Some(code) => Err(failed(&doing, &format!("exit code {code}: {}", stderr.trim()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_of_the_repository_that_was_asked_for() {
        let rows = [
            ("calico/goldmane", "docker.io/calico/goldmane:v3.30.1", true),
            ("docker.io/calico/goldmane", "calico/goldmane:v3.30.1", true),
            ("quay.io/tigera/operator", "quay.io/tigera/operator@sha256:0f", true),
            ("localhost:5000/calico/goldmane", "localhost:5000/calico/goldmane:x", true),
            ("busybox", "docker.io/library/busybox:1", true),
            // Pulled under another name, and tagged with this one here.
            ("quay.io/mine/goldmane", "calico/goldmane:v3.30.1", false),
            ("calico/goldmane", "quay.io/calico/goldmane:v3.30.1", false),
            ("calico/goldmane-mine", "calico/goldmane:v3.30.1", false),
        ];
        for (repository, reference, expected) in rows {
            assert_eq!(same_repository(repository, reference), expected, "{repository} {reference}");
        }
    }
}
