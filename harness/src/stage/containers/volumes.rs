//! Volumes of memory: the files in them, and how those of a control plane are found and removed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures::future::join_all;
use testcontainers::bollard::errors::Error;
use testcontainers::bollard::query_parameters::{
    ListVolumesOptionsBuilder, RemoveVolumeOptionsBuilder, UploadToContainerOptionsBuilder,
};

use super::{PLANE_LABEL, pod_name};
use crate::stage::NoEnvironment;
use crate::stage::engine::{Engine, failed};

/// A file for a volume.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::stage) struct VolumeFile {
    /// Relative to the volume.
    pub path: String,
    /// Unix permissions.
    pub mode: u32,
    /// The owning group; the owner is root.
    pub group: u64,
    pub bytes: Vec<u8>,
}

/// A volume at a path of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::stage) struct VolumeMount {
    pub volume: String,
    pub path: String,
    pub read_only: bool,
    pub sub_path: Option<String>,
}

impl Engine {
    /// Writes files into folders of a running container, by folder.
    pub(in crate::stage) async fn upload(
        &self,
        container: &str,
        folders: &BTreeMap<String, Vec<VolumeFile>>,
    ) -> Result<(), NoEnvironment> {
        let doing = "writing files into a container";
        let uploads =
            folders.iter().filter(|(_, files)| !files.is_empty()).map(|(folder, files)| async move {
                let bytes = archive(files).map_err(|e| failed(doing, &e))?;
                let options = UploadToContainerOptionsBuilder::default().path(folder).build();
                let body = testcontainers::bollard::body_full(bytes.into());
                self.docker()
                    .upload_to_container(container, Some(options), body)
                    .await
                    .map_err(|e| failed(doing, &e))
            });
        futures::future::try_join_all(uploads).await.map(drop)
    }

    /// The names of a control plane's volumes, by their label, and by their name too: Docker (seen with 20.10) forgets
    /// the labels of a volume that it could not remove, as after the machine went down, when it goes on counting the
    /// mounts of containers that are gone.
    pub(super) async fn volumes_of(&self, plane: &str) -> Result<BTreeSet<String>, NoEnvironment> {
        let start = pod_name(plane, "");
        let mut found = BTreeSet::new();
        for (key, value) in [("label", format!("{PLANE_LABEL}={plane}")), ("name", start.clone())] {
            let filters = HashMap::from([(key, vec![value])]);
            let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
            let volumes = self.docker().list_volumes(Some(options)).await;
            let volumes = volumes.map_err(|e| failed("listing volumes", &e))?.volumes.unwrap_or_default();
            // The engine looks for a name anywhere in a name.
            let ours = |name: &String| key == "label" || name.starts_with(&start);
            found.extend(volumes.into_iter().map(|volume| volume.name).filter(ours));
        }
        Ok(found)
    }

    /// Removes volumes of which the containers are gone: each that can be, before the first failure is told.
    pub(in crate::stage) async fn remove_volumes(&self, names: &[String]) -> Result<(), NoEnvironment> {
        let removals = names.iter().map(|name| async move {
            let options = RemoveVolumeOptionsBuilder::default().force(true).build();
            match self.docker().remove_volume(name, Some(options)).await {
                Ok(()) | Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
                Err(e) => Err(failed(&format!("removing volume {name}"), &e)),
            }
        });
        join_all(removals).await.into_iter().collect()
    }
}

fn archive(files: &[VolumeFile]) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(file.bytes.len() as u64);
        header.set_mode(file.mode);
        header.set_uid(0);
        header.set_gid(file.group);
        tar.append_data(&mut header, &file.path, file.bytes.as_slice())?;
    }
    tar.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_keep_their_modes() {
        let file = VolumeFile { path: "tls.key".into(), mode: 0o440, group: 10001, bytes: b"k".to_vec() };
        let bytes = archive(&[file]).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        let header = entry.header();
        assert_eq!((header.mode().unwrap(), header.gid().unwrap()), (0o440, 10001));
        assert_eq!(entry.path().unwrap().to_str(), Some("tls.key"));
    }
}
