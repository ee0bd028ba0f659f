//! Calico's manifests: from a folder, or downloaded once, held against the table's checksums and cached.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use catwalk_fixtures::{Release, pki};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::report::{without_login, write_whole};
use crate::stage::NoEnvironment;

/// The files that an installation applies, in order.
const FILES: [&str; 3] = ["operator-crds.yaml", "tigera-operator.yaml", "custom-resources.yaml"];

/// A release that the table does not know: its manifests are those of the folder, whatever they are, and its operator
/// is the one that they start. `like` lends what is only asked of stand-ins.
pub fn candidate(name: &str, folder: &Path, like: &Release) -> Result<Release, NoEnvironment> {
    let mut candidate = Release {
        calico: name.to_owned(),
        released: String::new(),
        manifests: BTreeMap::new(),
        ..like.clone()
    };
    let file = "tigera-operator.yaml";
    let objects = parse(file, &from_folder(&candidate, folder, file)?)?;
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment");
    let image = deployment
        .and_then(|object| object.pointer("/spec/template/spec/containers/0/image"))
        .and_then(Value::as_str)
        .ok_or_else(|| NoEnvironment::because(format!("{file} of {name} has no Deployment with an image")))?;
    candidate.operator = image.rsplit_once(':').map_or(image, |(_, tag)| tag).to_owned();
    candidate.images = vec![image.to_owned()];
    Ok(candidate)
}

/// A release's manifests, parsed.
#[derive(Clone, Debug)]
pub(super) struct Manifests {
    /// CRDs.
    pub(super) crds: Vec<Value>,
    /// The operator with its namespace and permissions.
    pub(super) operator: Vec<Value>,
    /// What the operator shall install.
    pub(super) custom_resources: Vec<Value>,
}

/// A release's manifests as files, held against the table's checksums.
#[derive(Clone, Debug)]
pub(super) struct Files(Vec<Vec<u8>>);

/// Takes a release's manifests from `folder/VERSION` or `folder`, else from the cache or the release's address.
pub(super) async fn get(
    release: &Release,
    folder: Option<&Path>,
    cache: &Path,
) -> Result<Files, NoEnvironment> {
    let mut files = Vec::new();
    for file in FILES {
        files.push(match folder {
            Some(folder) => from_folder(release, folder, file)?,
            None => cached(release, file, cache).await?,
        });
    }
    Ok(Files(files))
}

impl Files {
    /// Parses them, on a thread of its own: the CRDs are megabytes of YAML.
    pub(super) async fn parse(self) -> Result<Manifests, NoEnvironment> {
        let parsing = tokio::task::spawn_blocking(move || {
            FILES.iter().zip(&self.0).map(|(file, bytes)| parse(file, bytes)).collect::<Result<Vec<_>, _>>()
        });
        let documents =
            parsing.await.map_err(|e| NoEnvironment::because(format!("reading manifests: {e}")))??;
        let mut documents = documents.into_iter();
        let mut next = || documents.next().unwrap_or_default();
        Ok(Manifests { crds: next(), operator: next(), custom_resources: next() })
    }
}

fn parse(file: &str, bytes: &[u8]) -> Result<Vec<Value>, NoEnvironment> {
    let bad = |e: &dyn std::fmt::Display| NoEnvironment::because(format!("reading {file}: {e}"));
    let text = std::str::from_utf8(bytes).map_err(|e| bad(&e))?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|e| bad(&e))?;
    Ok(documents.into_iter().filter(Value::is_object).collect())
}

fn from_folder(release: &Release, folder: &Path, file: &str) -> Result<Vec<u8>, NoEnvironment> {
    let versioned = folder.join(&release.calico).join(file);
    let path = if versioned.exists() { versioned } else { folder.join(file) };
    let bytes = std::fs::read(&path).map_err(|e| {
        NoEnvironment::with_fix(
            format!("reading {}: {e}", path.display()),
            format!("--manifests takes a folder with {}, or with one folder per version", FILES.join(", ")),
        )
    })?;
    check(release, file, &bytes, &path.display().to_string())?;
    Ok(bytes)
}

fn check(release: &Release, file: &str, bytes: &[u8], from: &str) -> Result<(), NoEnvironment> {
    let Some(published) = release.manifests.get(file) else { return Ok(()) };
    let sum: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if sum == published.sha256 {
        return Ok(());
    }
    Err(NoEnvironment::with_fix(
        format!(
            "{from} is not the {file} of Calico {}: its SHA-256 is {sum}, published is {}",
            release.calico, published.sha256
        ),
        "Take the file from that release's tag",
    ))
}

async fn cached(release: &Release, file: &str, cache: &Path) -> Result<Vec<u8>, NoEnvironment> {
    let path: PathBuf = cache.join("manifests").join(&release.calico).join(file);
    if let Ok(bytes) = std::fs::read(&path) {
        // A file that was broken since is fetched again.
        if check(release, file, &bytes, "").is_ok() {
            return Ok(bytes);
        }
    }
    let address =
        format!("https://raw.githubusercontent.com/projectcalico/calico/{}/manifests/{file}", release.calico);
    let bytes = download(&address).await.map_err(|e| {
        NoEnvironment::with_fix(
            format!("downloading {address}: {e}"),
            "Without a network, bring the files and name their folder with --manifests DIR",
        )
    })?;
    check(release, file, &bytes, &address)?;
    let stored =
        path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| write_whole(&path, &bytes));
    // Without a cache the next run downloads again, no more.
    drop(stored);
    Ok(bytes)
}

/// Downloads a candidate's manifests from beneath an address into a folder.
pub async fn fetch_manifests(address: &str, folder: &Path) -> Result<(), NoEnvironment> {
    for file in FILES {
        let address = format!("{}/{file}", address.trim_end_matches('/'));
        let because = |e: String| {
            NoEnvironment::with_fix(
                format!("downloading {}: {e}", without_login(&address)),
                format!(
                    "--manifests takes an address beneath which {} are, or a folder with them",
                    FILES.join(", ")
                ),
            )
        };
        let bytes = download(&address).await.map_err(|e| because(e.to_string()))?;
        write_whole(&folder.join(file), &bytes).map_err(|e| because(e.to_string()))?;
    }
    Ok(())
}

async fn download(address: &str) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let tls = rustls::ClientConfig::builder_with_provider(pki::provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(Duration::from_secs(15))
        .timeout(Duration::from_secs(120))
        .build()?;
    let answer = client.get(address).send().await.map_err(chain)?.error_for_status()?;
    Ok(answer.bytes().await?.to_vec())
}

/// reqwest says only the outermost of what went wrong.
fn chain(error: reqwest::Error) -> String {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        words = format!("{words}: {inner}");
        source = inner.source();
    }
    words
}

/// `$XDG_CACHE_HOME/catwalk`, else `~/.cache/catwalk`.
pub(super) fn cache_folder() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/tmp".into()));
    cache.unwrap_or_else(|| home().join(".cache")).join("catwalk")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(calico: &str) -> Release {
        Release::table().unwrap().into_iter().find(|r| r.calico == calico).unwrap()
    }

    #[test]
    fn a_manifest_that_is_not_the_published_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("operator-crds.yaml"), "kind: List\n").unwrap();
        let error =
            from_folder(&release("v3.30.1"), folder.path(), "operator-crds.yaml").unwrap_err().to_string();
        assert!(error.contains("is not the operator-crds.yaml of Calico v3.30.1"), "{error}");
        let error =
            from_folder(&release("v3.30.1"), folder.path(), "tigera-operator.yaml").unwrap_err().to_string();
        assert!(error.contains("--manifests takes a folder"), "{error}");
    }

    #[test]
    fn a_candidate_is_what_its_manifests_are() {
        let folder = tempfile::tempdir().unwrap();
        let text = "kind: Namespace\n---\nkind: Deployment\nspec: {template: {spec: {containers: [{image: 'mine/operator:v9'}]}}}\n";
        std::fs::write(folder.path().join("tigera-operator.yaml"), text).unwrap();
        let made = candidate("v3.99.0-rc1", folder.path(), &release("v3.32.1")).unwrap();
        assert_eq!(
            (made.operator.as_str(), made.images.as_slice()),
            ("v9", &["mine/operator:v9".to_owned()][..])
        );
        assert!(made.manifests.is_empty());
        std::fs::write(folder.path().join("tigera-operator.yaml"), "kind: Namespace\n").unwrap();
        assert!(candidate("v3.99.0-rc1", folder.path(), &release("v3.32.1")).is_err());
    }

    #[tokio::test]
    async fn manifests_come_from_an_address_too() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/v9/manifests/", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            let mut asked = Vec::new();
            for missing in [false, false, false, true] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 2048];
                let n = stream.read(&mut request).await.unwrap();
                let path = String::from_utf8_lossy(&request[..n]).split(' ').nth(1).unwrap().to_owned();
                let status = if missing { "404 Not Found" } else { "200 OK" };
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    path.len()
                );
                stream.write_all(format!("{head}{path}").as_bytes()).await.unwrap();
                asked.push(path);
            }
            asked
        });
        let folder = tempfile::tempdir().unwrap();
        fetch_manifests(&address, folder.path()).await.unwrap();
        let missing = fetch_manifests(&address, folder.path()).await.unwrap_err().to_string();
        assert!(missing.contains("/v9/manifests/operator-crds.yaml") && missing.contains("404"), "{missing}");
        let asked = serving.await.unwrap();
        for (file, path) in FILES.iter().zip(&asked) {
            assert_eq!(*path, format!("/v9/manifests/{file}"));
            assert_eq!(std::fs::read_to_string(folder.path().join(file)).unwrap(), *path);
        }
    }

    #[test]
    fn documents_are_split_and_empty_ones_left_out() {
        let documents = parse("x", b"# comment\n---\nkind: A\n---\n# nothing\n---\nkind: B\n").unwrap();
        assert_eq!(documents.len(), 2);
    }
}
