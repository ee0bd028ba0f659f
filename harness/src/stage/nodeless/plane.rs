//! A control plane without nodes: etcd, kube-apiserver and the DNS in one pod, with certificates and tokens of their
//! own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use catwalk_fixtures::pki::{Authority, LeafRequest, Usage};
use catwalk_fixtures::standin::sandbox::RELAY_PORT;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::{Api, Client};
use rand::Rng;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::kubelet::Started;
use super::pod::{Pod, STANDIN, Setup};
use super::relay::Relay;
use super::reset::Baseline;
use super::spec::Planned;
use crate::environment::LookError;
use crate::owner::{Ledger, Owned};
use crate::progress::Teller;
use crate::stage::containers::{VolumeFile, VolumeMount, pod_name};
use crate::stage::engine::Engine;
use crate::stage::{NoEnvironment, api};
use crate::wait::{Probe, wait_for};

/// The port of kube-apiserver.
pub(super) const API_PORT: u16 = 6443;
/// The name of the only Node; nothing runs on it.
pub(super) const NODE: &str = "catwalk";
/// The range of Services' addresses; nobody routes them.
const SERVICE_RANGE: &str = "10.96.0.0/12";
/// The first address of that range, which Service default/kubernetes gets.
const KUBERNETES: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));
/// The common name of the API server's certificate towards API servers behind it.
const FRONT: &str = "front-proxy-client";
/// How long its certificates last.
const LIFETIME: time::Duration = time::Duration::days(2);
/// Seconds that a service account's token lasts.
const TOKEN_SECONDS: i64 = 24 * 3600;

/// The images of a control plane.
#[derive(Clone, Debug)]
pub(super) struct Images {
    pub etcd: String,
    pub api_server: String,
    /// The project's own.
    pub own: String,
}

/// One control plane.
pub(super) struct Plane {
    /// Its owner mark in the engine.
    pub name: String,
    /// The Calico version whose CRDs and permissions it has.
    pub calico: String,
    pub network: String,
    pub images: Images,
    pub client: Client,
    /// The authority of its API server, PEM.
    pub authority: String,
    pub address: IpAddr,
    pub relay: Relay,
    pub pod: Pod,
    /// The operator's pod, which goes from domain to domain; its program is stopped in between.
    pub operator: Option<Started>,
    /// What it had before the operator ran for the first time; none until then.
    pub baseline: Option<Baseline>,
    /// How many domains it has served.
    pub served: usize,
}

fn secret_text() -> String {
    let mut bytes = [0_u8; 24];
    rand::rng().fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Plane {
    /// Starts one.
    pub(super) async fn start(
        engine: &Engine,
        ledger: &Ledger,
        name: String,
        network: String,
        images: Images,
        calico: String,
    ) -> Result<Self, NoEnvironment> {
        ledger
            .enter(Owned::Plane, &name)
            .map_err(|e| NoEnvironment::because(format!("writing the ledger: {e}")))?;
        let relay_token = secret_text();
        let setup = Setup {
            name: pod_name(&name, "control-plane"),
            plane: name.clone(),
            network: network.clone(),
            sandbox_image: images.own.clone(),
            hostname: "control-plane".to_owned(),
            volumes: ["pki", "etcd", ZONE].map(|volume| (volume.to_owned(), Vec::new())).into(),
            published: vec![API_PORT, RELAY_PORT],
            relay_token: Some(relay_token.clone()),
            ..Setup::default()
        };
        let mut pod = Pod::create(engine, setup).await?;
        let token = secret_text();
        let (authority, files) = certificates(pod.address, &token)
            .map_err(|e| NoEnvironment::because(format!("issuing the control plane's certificates: {e}")))?;
        pod.write(&BTreeMap::from([("pki".to_owned(), files)])).await?;
        pod.write(&zone(NO_ZONE)).await?;
        let (etcd, api_server, dns) = (etcd(), api_server(pod.address), dns());
        let containers = [
            (&etcd, images.etcd.clone()),
            (&api_server, images.api_server.clone()),
            (&dns, images.own.clone()),
        ];
        pod.run(&containers, true).await?;
        let port = |port: u16| {
            pod.published.get(&port).copied().ok_or_else(|| {
                NoEnvironment::with_fix(
                    format!("the engine did not publish port {port} of the control plane"),
                    "Ports of containers must be reachable at 127.0.0.1: the engine has to run on this machine",
                )
            })
        };
        let relay = Relay { port: port(RELAY_PORT)?, token: relay_token };
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "plane",
            "contexts": [{"name": "plane", "context": {"cluster": "plane", "user": "catwalk"}}],
            "clusters": [{"name": "plane", "cluster": {
                "server": format!("https://127.0.0.1:{}", port(API_PORT)?),
                "certificate-authority-data": base64(&authority),
            }}],
            "users": [{"name": "catwalk", "user": {"token": token}}],
        });
        let client = api::client(&kubeconfig.to_string()).await.map_err(super::no)?;
        Ok(Self {
            name,
            calico,
            network,
            images,
            client,
            authority,
            address: pod.address,
            relay,
            pod,
            operator: None,
            baseline: None,
            served: 0,
        })
    }

    /// Waits until the API server is ready; what ends it is said at once.
    pub(super) async fn ready(
        &self,
        engine: &Engine,
        deadline: Instant,
        teller: &Teller,
    ) -> Result<(), NoEnvironment> {
        let tell = teller.as_tell();
        wait_for("the API server", deadline, Duration::from_millis(100), &tell, || async {
            for (name, id) in self.pod.containers() {
                if let Ok(Some(state)) = engine.state(id).await
                    && state.restarts > 2
                {
                    let log = engine.logs(id, 0).await.unwrap_or_default();
                    let last = log.lines().last().unwrap_or_default().to_owned();
                    return Probe::Never(format!("{name} ends again and again: {last}"));
                }
            }
            let request = http_request("/readyz");
            match self.client.request_text(request).await {
                Ok(_) => Probe::Done(()),
                Err(e) => Probe::NotYet(e.to_string()),
            }
        })
        .await
        .map_err(|e| NoEnvironment::because(e.to_string()))
    }

    /// Lets the DNS serve another zone, as JSON.
    pub(super) async fn serve(&self, text: &[u8]) -> Result<(), NoEnvironment> {
        self.pod.write(&zone(text)).await
    }

    /// A token of a service account, as a kubelet asks for it.
    pub(super) async fn token(&self, namespace: &str, account: &str) -> Result<String, LookError> {
        let doing = format!("asking for a token of service account {namespace}/{account}");
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() },
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .map_err(LookError::while_(doing.clone()))?;
        let token = answer.status.map(|status| status.token);
        token.ok_or_else(|| LookError { doing, why: "the answer has none".to_owned() })
    }
}

fn http_request(path: &str) -> http::Request<Vec<u8>> {
    let mut request = http::Request::new(Vec::new());
    if let Ok(uri) = path.parse() {
        *request.uri_mut() = uri;
    }
    request
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// The API server's authority, and the files that it is started with.
fn certificates(
    address: IpAddr,
    token: &str,
) -> Result<(String, Vec<VolumeFile>), catwalk_fixtures::pki::PkiError> {
    let authority = Authority::generate("catwalk-control-plane")?;
    let now = OffsetDateTime::now_utc();
    let request = |common_name: &str, dns_names: &[&str], ip_addresses: Vec<IpAddr>| LeafRequest {
        common_name: common_name.to_owned(),
        dns_names: dns_names.iter().map(|name| (*name).to_owned()).collect(),
        ip_addresses,
        not_before: now - time::Duration::MINUTE,
        not_after: now + LIFETIME,
        usages: vec![Usage::Server],
    };
    let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"];
    let addresses = vec![address, KUBERNETES, Ipv4Addr::LOCALHOST.into()];
    let serving = authority.issue(&request("kube-apiserver", &names, addresses))?;
    // It signs the tokens of service accounts; the API server takes the public key from the certificate.
    let accounts = authority.issue(&request("service-accounts", &[], Vec::new()))?;
    // By it the API server shows who asks to the API servers behind it (Kubernetes, aggregation layer).
    let front = Authority::generate("catwalk-front-proxy")?;
    let front_client =
        front.issue(&LeafRequest { usages: vec![Usage::Client], ..request(FRONT, &[], Vec::new()) })?;
    let file = |path: &str, text: &str| VolumeFile {
        path: path.to_owned(),
        mode: 0o600,
        group: 0,
        bytes: text.as_bytes().to_vec(),
    };
    let files = vec![
        file("ca.crt", authority.certificate_pem()),
        file("apiserver.crt", serving.certificate_pem()),
        file("apiserver.key", serving.key_pem()),
        file("service-accounts.crt", accounts.certificate_pem()),
        file("service-accounts.key", accounts.key_pem()),
        file("front-proxy-ca.crt", front.certificate_pem()),
        file("front-proxy-client.crt", front_client.certificate_pem()),
        file("front-proxy-client.key", front_client.key_pem()),
        file("tokens.csv", &format!("{token},catwalk,catwalk,system:masters\n")),
    ];
    Ok((authority.certificate_pem().to_owned(), files))
}

fn program(name: &str, command: Vec<String>, volume: &str, path: &str) -> Planned {
    Planned {
        name: name.to_owned(),
        command,
        // Two cores carry several control planes, and there is memory enough (Go, `runtime`, GOGC).
        env: BTreeMap::from([("GOGC".to_owned(), "400".to_owned())]),
        user: Some("0:0".to_owned()),
        mounts: vec![VolumeMount {
            volume: volume.to_owned(),
            path: path.to_owned(),
            read_only: false,
            sub_path: None,
        }],
        ..Planned::default()
    }
}

/// The volume and the file that the DNS reads.
const ZONE: &str = "zone";
const ZONE_FILE: &str = "zone.json";
/// What it reads before there is a domain.
const NO_ZONE: &[u8] = br#"{"domain": "catwalk.invalid", "profile": "strict", "services": {}}"#;

fn zone(text: &[u8]) -> BTreeMap<String, Vec<VolumeFile>> {
    let file = VolumeFile { path: ZONE_FILE.to_owned(), mode: 0o644, group: 0, bytes: text.to_vec() };
    BTreeMap::from([(ZONE.to_owned(), vec![file])])
}

/// The DNS of all domains that the control plane serves, one after the other.
fn dns() -> Planned {
    let planned = program("dns", vec![STANDIN.to_owned()], ZONE, &format!("/{ZONE}"));
    Planned { args: vec!["dns".to_owned(), format!("/{ZONE}/{ZONE_FILE}")], ..planned }
}

/// Only its own pod reaches it, and what it keeps is gone with the run: so neither TLS nor fsync.
fn etcd() -> Planned {
    let command = [
        "etcd",
        "--data-dir=/etcd/data",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        "--initial-cluster=default=http://127.0.0.1:2380",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ];
    program("etcd", command.map(str::to_owned).to_vec(), "etcd", "/etcd")
}

fn api_server(address: IpAddr) -> Planned {
    let command = vec![
        "kube-apiserver".to_owned(),
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        format!("--advertise-address={address}"),
        format!("--secure-port={API_PORT}"),
        format!("--service-cluster-ip-range={SERVICE_RANGE}"),
        "--client-ca-file=/pki/ca.crt".to_owned(),
        "--tls-cert-file=/pki/apiserver.crt".to_owned(),
        "--tls-private-key-file=/pki/apiserver.key".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        "--service-account-key-file=/pki/service-accounts.crt".to_owned(),
        "--service-account-signing-key-file=/pki/service-accounts.key".to_owned(),
        "--token-auth-file=/pki/tokens.csv".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        "--enable-priority-and-fairness=false".to_owned(),
        // calico-node's DaemonSet is privileged.
        "--allow-privileged=true".to_owned(),
        "--requestheader-client-ca-file=/pki/front-proxy-ca.crt".to_owned(),
        format!("--requestheader-allowed-names={FRONT}"),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        "--proxy-client-cert-file=/pki/front-proxy-client.crt".to_owned(),
        "--proxy-client-key-file=/pki/front-proxy-client.key".to_owned(),
        // Services are reached at their endpoints: there is no kube-proxy.
        "--enable-aggregator-routing=true".to_owned(),
    ];
    program("kube-apiserver", command, "pki", "/pki")
}

/// A Node on which nothing runs: without one the operator waits for it.
pub(super) fn node() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": NODE, "labels": {"kubernetes.io/os": "linux", "kubernetes.io/hostname": NODE}},
        "spec": {},
    })
}
