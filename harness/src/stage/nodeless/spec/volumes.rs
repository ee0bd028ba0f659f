//! Volumes: the files in them, with modes and groups, and where containers mount them.

use super::*;

impl Planner<'_> {
    /// The files of each volume.
    pub(in crate::stage::nodeless) fn volumes(
        &mut self,
    ) -> Result<BTreeMap<String, Vec<VolumeFile>>, NoEnvironment> {
        let group = self.spec.security_context.as_ref().and_then(|context| context.fs_group).unwrap_or(0);
        let group = u64::try_from(group).unwrap_or(0);
        let mut volumes = BTreeMap::new();
        for volume in self.spec.volumes.iter().flatten() {
            let mut files = self.files(volume)?;
            for file in &mut files {
                file.group = group;
                if group != 0 {
                    // The kubelet lets the volume's group read what the owner reads (volume_linux.go, `SetVolumeOwnership`).
                    file.mode |= (file.mode & 0o700) >> 3 & 0o440;
                }
            }
            volumes.insert(volume.name.clone(), files);
        }
        if let Some(account) = self.account {
            let file = |path: &str, text: &str| VolumeFile {
                path: path.to_owned(),
                mode: 0o644,
                group,
                bytes: text.as_bytes().to_vec(),
            };
            let files = vec![
                file("token", &account.token),
                file("ca.crt", &account.authority),
                file("namespace", &self.identity.namespace),
            ];
            volumes.insert(ACCOUNT_VOLUME.to_owned(), files);
        }
        Ok(volumes)
    }

    fn files(&mut self, volume: &Volume) -> Result<Vec<VolumeFile>, NoEnvironment> {
        if let Some(source) = &volume.config_map {
            return self.of_config_map(
                &source.name,
                source.items.as_deref(),
                source.default_mode,
                source.optional,
            );
        }
        if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or_default();
            return self.of_secret(name, source.items.as_deref(), source.default_mode, source.optional);
        }
        if volume.empty_dir.is_some() {
            return Ok(Vec::new());
        }
        if let Some(projected) = &volume.projected {
            let mut files = Vec::new();
            for source in projected.sources.iter().flatten() {
                let mode = projected.default_mode;
                if let Some(map) = &source.config_map {
                    files.extend(self.of_config_map(&map.name, map.items.as_deref(), mode, map.optional)?);
                } else if let Some(secret) = &source.secret {
                    files.extend(self.of_secret(
                        &secret.name,
                        secret.items.as_deref(),
                        mode,
                        secret.optional,
                    )?);
                } else {
                    self.note(format!(
                        "volume {}: a projected source that is no ConfigMap and no Secret",
                        volume.name
                    ));
                }
            }
            return Ok(files);
        }
        self.note(match &volume.host_path {
            Some(path) => {
                format!("volume {}: an empty folder in place of the node's {}", volume.name, path.path)
            }
            None => format!("volume {}: an empty folder in place of its source", volume.name),
        });
        Ok(Vec::new())
    }

    fn absent(
        &self,
        kind: &str,
        name: &str,
        optional: Option<bool>,
    ) -> Result<Vec<VolumeFile>, NoEnvironment> {
        if optional == Some(true) {
            Ok(Vec::new())
        } else {
            Err(self.bad(format!("there is no {kind} {name}")))
        }
    }

    fn of_config_map(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        mode: Option<i32>,
        optional: Option<bool>,
    ) -> Result<Vec<VolumeFile>, NoEnvironment> {
        let Some(map) = self.sources.config_maps.get(name) else {
            return self.absent("ConfigMap", name, optional);
        };
        let texts = map.data.iter().flatten().map(|(key, text)| (key.clone(), text.as_bytes().to_vec()));
        let binary = map.binary_data.iter().flatten().map(|(key, bytes)| (key.clone(), bytes.0.clone()));
        self.of_keys(texts.chain(binary).collect(), items, mode, optional)
    }

    fn of_secret(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        mode: Option<i32>,
        optional: Option<bool>,
    ) -> Result<Vec<VolumeFile>, NoEnvironment> {
        let Some(secret) = self.sources.secrets.get(name) else {
            return self.absent("Secret", name, optional);
        };
        let keys = secret.data.iter().flatten().map(|(key, bytes)| (key.clone(), bytes.0.clone()));
        self.of_keys(keys.collect(), items, mode, optional)
    }

    fn of_keys(
        &self,
        mut keys: BTreeMap<String, Vec<u8>>,
        items: Option<&[KeyToPath]>,
        mode: Option<i32>,
        optional: Option<bool>,
    ) -> Result<Vec<VolumeFile>, NoEnvironment> {
        let file = |path: String, mode: Option<i32>, bytes| VolumeFile {
            path,
            mode: mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o644),
            group: 0,
            bytes,
        };
        let Some(items) = items else {
            return Ok(keys.into_iter().map(|(key, bytes)| file(key, mode, bytes)).collect());
        };
        let mut files = Vec::new();
        for item in items {
            match keys.remove(&item.key) {
                Some(bytes) => files.push(file(item.path.clone(), item.mode.or(mode), bytes)),
                None if optional == Some(true) => {}
                None => {
                    return Err(
                        self.bad(format!("a volume refers to the key {}, which is not there", item.key))
                    );
                }
            }
        }
        Ok(files)
    }

    pub(super) fn mounts(&mut self, container: &Container) -> Result<Vec<VolumeMount>, NoEnvironment> {
        let mut mounts = Vec::new();
        for mount in container.volume_mounts.iter().flatten() {
            let known = self.spec.volumes.iter().flatten().any(|volume| volume.name == mount.name);
            if !known {
                return Err(self
                    .bad(format!("container {} mounts {}, which is no volume", container.name, mount.name)));
            }
            if mount.sub_path_expr.is_some() || (mount.sub_path.is_some() && !self.mounts_parts) {
                self.note(format!(
                    "container {}, {}: its part of a volume (the engine must be Docker 26 or newer)",
                    container.name, mount.mount_path
                ));
                continue;
            }
            mounts.push(VolumeMount {
                volume: mount.name.clone(),
                path: mount.mount_path.clone(),
                read_only: mount.read_only == Some(true),
                sub_path: mount.sub_path.clone(),
            });
        }
        if self.account.is_some() && !mounts.iter().any(|mount| mount.path == ACCOUNT_PATH) {
            mounts.push(VolumeMount {
                volume: ACCOUNT_VOLUME.to_owned(),
                path: ACCOUNT_PATH.to_owned(),
                read_only: true,
                sub_path: None,
            });
        }
        Ok(mounts)
    }
}
