//! A container's environment, and the variables in its command.

use super::*;

impl Planner<'_> {
    /// The environment: where the API server is, then `envFrom`, then `env`, each of which may refer to those before.
    pub(super) fn env(
        &mut self,
        container: &Container,
        address: IpAddr,
        (api_host, api_port): (IpAddr, u16),
    ) -> Result<BTreeMap<String, String>, NoEnvironment> {
        let mut env = BTreeMap::from([
            ("KUBERNETES_SERVICE_HOST".to_owned(), api_host.to_string()),
            ("KUBERNETES_SERVICE_PORT".to_owned(), api_port.to_string()),
            ("KUBERNETES_SERVICE_PORT_HTTPS".to_owned(), api_port.to_string()),
        ]);
        for source in container.env_from.iter().flatten() {
            let prefix = source.prefix.as_deref().unwrap_or_default();
            if let Some(reference) = &source.config_map_ref {
                match self.sources.config_maps.get(&reference.name) {
                    Some(map) => env
                        .extend(map.data.iter().flatten().map(|(k, v)| (format!("{prefix}{k}"), v.clone()))),
                    None if reference.optional == Some(true) => {}
                    None => return Err(self.bad(format!("there is no ConfigMap {}", reference.name))),
                }
            }
            if let Some(reference) = &source.secret_ref {
                match self.sources.secrets.get(&reference.name) {
                    Some(secret) => {
                        env.extend(secret.data.iter().flatten().map(|(k, v)| {
                            (format!("{prefix}{k}"), String::from_utf8_lossy(&v.0).into_owned())
                        }))
                    }
                    None if reference.optional == Some(true) => {}
                    None => return Err(self.bad(format!("there is no Secret {}", reference.name))),
                }
            }
        }
        for variable in container.env.iter().flatten() {
            let value = match (&variable.value, &variable.value_from) {
                (Some(value), _) => Some(expand(value, &env)),
                (None, Some(source)) => self.value_from(container, &variable.name, source, address)?,
                (None, None) => Some(String::new()),
            };
            if let Some(value) = value {
                env.insert(variable.name.clone(), value);
            }
        }
        Ok(env)
    }

    fn value_from(
        &mut self,
        container: &Container,
        variable: &str,
        source: &EnvVarSource,
        address: IpAddr,
    ) -> Result<Option<String>, NoEnvironment> {
        if let Some(field) = &source.field_ref {
            let value = self.field(&field.field_path, address);
            if value.is_none() {
                self.note(format!(
                    "container {}, {variable}: the field {}",
                    container.name, field.field_path
                ));
            }
            return Ok(value);
        }
        if let Some(key) = &source.config_map_key_ref {
            let map = self.sources.config_maps.get(&key.name);
            let value = map.and_then(|map| map.data.as_ref()?.get(&key.key).cloned());
            return match value {
                None if key.optional != Some(true) => Err(self.bad(format!(
                    "{variable} refers to the key {} of ConfigMap {}, which is not there",
                    key.key, key.name
                ))),
                value => Ok(value),
            };
        }
        if let Some(key) = &source.secret_key_ref {
            let secret = self.sources.secrets.get(&key.name);
            let value = secret.and_then(|secret| secret.data.as_ref()?.get(&key.key).cloned());
            return match value {
                None if key.optional != Some(true) => Err(self.bad(format!(
                    "{variable} refers to the key {} of Secret {}, which is not there",
                    key.key, key.name
                ))),
                value => Ok(value.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned())),
            };
        }
        self.note(format!("container {}, {variable}: its source", container.name));
        Ok(None)
    }

    /// A field of the pod (Kubernetes, downward API).
    fn field(&self, path: &str, address: IpAddr) -> Option<String> {
        let of = |map: &BTreeMap<String, String>, key: &str| {
            map.get(key.trim_matches(['\'', '"'])).cloned().unwrap_or_default()
        };
        let subscript = |prefix: &str| path.strip_prefix(prefix)?.strip_prefix('[')?.strip_suffix(']');
        if let Some(key) = subscript("metadata.labels") {
            return Some(of(&self.identity.labels, key));
        }
        if let Some(key) = subscript("metadata.annotations") {
            return Some(of(&self.identity.annotations, key));
        }
        Some(match path {
            "metadata.name" => self.identity.name.clone(),
            "metadata.namespace" => self.identity.namespace.clone(),
            "spec.nodeName" => self.identity.node.clone(),
            "spec.serviceAccountName" => {
                self.spec.service_account_name.clone().unwrap_or_else(|| "default".to_owned())
            }
            "status.podIP" | "status.hostIP" | "status.podIPs" | "status.hostIPs" => address.to_string(),
            _ => return None,
        })
    }
}

/// Puts variables in for `$(NAME)`; `$$` is a dollar sign, and what is not defined stays (Kubernetes,
/// `third_party/forked/golang/expansion`).
pub(super) fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match env.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}
