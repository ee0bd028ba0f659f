//! What a run leaves behind when it is killed or interrupted: nothing that `clean` does not find, and nobody else's.
//!
//! Needs a container engine and kind, so it is ignored by default:
//! `CATWALK_NODE_IMAGE=kind-node:v1.34.4 cargo test -p xtask --test engine -- --ignored`. The node image's pods must
//! have a network of their own. One engine has one set of clusters, so these tests wait for each other, also across
//! processes.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests end a test where they find what must not be"
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use catwalk_harness::wait::{Probe, wait_for};
use serial_test::file_serial;

/// The longest wait for one step of a run.
const PATIENCE: Duration = Duration::from_secs(300);

fn xtask(state: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(words).env("XDG_STATE_HOME", state).stdin(Stdio::null());
    command
}

/// A run that stands up one cluster with stand-ins.
fn start(state: &Path, report: &Path, keep: &str) -> Child {
    let image = std::env::var("CATWALK_NODE_IMAGE").expect("CATWALK_NODE_IMAGE names a node image");
    let report = report.to_str().unwrap();
    let words = ["e2e", "--standin", "--cni", "none", "--node-image", &image, "--domain", "corp.internal"];
    let more = ["--calico", "v3.30.1", "--scenario", "flow-is-delivered", "--report", report, "--keep", keep];
    let mut command = xtask(state, &[&words[..], &more[..]].concat());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn output(program: &str, words: &[&str]) -> String {
    let Output { stdout, .. } = Command::new(program).args(words).output().unwrap();
    String::from_utf8(stdout).unwrap()
}

/// The containers, images, volumes and networks that are there, but for the network that all of kind's clusters share.
fn engine() -> BTreeSet<String> {
    let lists: [&[&str]; 4] = [
        &["ps", "--all", "--format", "container {{.Names}}"],
        &["images", "--format", "image {{.Repository}}:{{.Tag}}"],
        &["volume", "ls", "--format", "volume {{.Name}}"],
        &["network", "ls", "--format", "network {{.Name}}"],
    ];
    let text: String = lists.iter().map(|words| output("docker", words)).collect();
    text.lines().filter(|line| *line != "network kind").map(str::to_owned).collect()
}

/// Waits until the engine shows a node of a run's cluster.
fn wait_for_node(run: &mut Child) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let deadline = Instant::now() + PATIENCE;
    let node = wait_for("a node of the run", deadline, Duration::from_millis(200), &|_, _| {}, || {
        let there = output("docker", &["ps", "--all", "--format", "{{.Names}}"]).contains("catwalk-");
        let ended = run.try_wait().unwrap();
        async move {
            match (there, ended) {
                (true, _) => Probe::Done(()),
                (false, Some(status)) => Probe::Never(format!("the run has ended: {status}")),
                (false, None) => Probe::NotYet("none".to_owned()),
            }
        }
    });
    runtime.block_on(node).unwrap();
}

/// Somebody else's cluster, deleted when the test ends.
struct Foreign(String);

impl Foreign {
    fn create() -> Self {
        let foreign = Self(format!("somebody-{}", std::process::id()));
        let image = std::env::var("CATWALK_NODE_IMAGE").expect("CATWALK_NODE_IMAGE names a node image");
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("kind.yaml");
        let text =
            "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnetworking: {disableDefaultCNI: true}\n";
        std::fs::write(&config, text).unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        let status = Command::new("kind")
            .args(["create", "cluster", "--name", &foreign.0, "--image", &image, "--config"])
            .arg(&config)
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .status()
            .unwrap();
        assert!(status.success());
        foreign
    }

    fn stands(&self) -> bool {
        output("kind", &["get", "clusters"]).lines().any(|name| name == self.0)
            && output("docker", &["ps", "--format", "{{.Names}}"]).contains(&self.0)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let kubeconfig = std::env::temp_dir().join(format!("{}.kubeconfig", self.0));
        let deleted = Command::new("kind")
            .args(["delete", "cluster", "--name", &self.0, "--kubeconfig"])
            .arg(&kubeconfig)
            .status();
        assert!(deleted.is_ok_and(|status| status.success()));
        let _ = std::fs::remove_file(kubeconfig);
    }
}

#[test]
#[ignore = "needs a container engine and kind"]
#[file_serial(kind)]
fn clean_finds_what_a_killed_run_left_and_nothing_else() {
    let (state, report) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let foreign = Foreign::create();
    let before = engine();
    let mut run = start(state.path(), report.path(), "never");
    wait_for_node(&mut run);

    // While the run lives, its things are its own.
    let spared = xtask(state.path(), &["clean"]).output().unwrap();
    assert!(String::from_utf8_lossy(&spared.stdout).contains("goes on"), "{spared:?}");
    assert!(run.try_wait().unwrap().is_none());

    run.kill().unwrap();
    run.wait().unwrap();
    let cleaned = xtask(state.path(), &["clean"]).output().unwrap();
    assert!(cleaned.status.success(), "{cleaned:?}");
    assert!(String::from_utf8_lossy(&cleaned.stdout).contains("removed run"), "{cleaned:?}");
    assert_eq!(engine(), before);
    assert!(foreign.stands());
    let again = xtask(state.path(), &["clean"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&again.stdout), "nothing to clean\n");
}

#[test]
#[ignore = "needs a container engine and kind"]
#[file_serial(kind)]
fn an_interrupted_run_writes_its_report_and_leaves_nothing() {
    for signal in ["-INT", "-TERM"] {
        let (state, report) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let before = engine();
        let mut run = start(state.path(), report.path(), "never");
        wait_for_node(&mut run);
        let killed = Command::new("kill").args([signal, &run.id().to_string()]).status().unwrap();
        assert!(killed.success());
        assert_eq!(run.wait().unwrap().code(), Some(130), "{signal}");
        assert_eq!(engine(), before, "{signal}");
        let text = std::fs::read(report.path().join("report.json")).unwrap();
        let report: catwalk_harness::report::Report = serde_json::from_slice(&text).unwrap();
        assert!(report.interrupted && report.left_behind.is_empty(), "{signal}: {report:?}");
        assert_eq!(std::fs::read_dir(state.path().join("catwalk/runs")).unwrap().count(), 0, "{signal}");
    }
}

#[test]
#[ignore = "needs a container engine and kind"]
#[file_serial(kind)]
fn a_kept_cluster_stands_until_it_is_asked_for() {
    let (state, report) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let before = engine();
    let status = start(state.path(), report.path(), "always").wait().unwrap();
    assert!(status.success(), "{status}");
    let kept: Vec<String> = engine().difference(&before).cloned().collect();
    // A node has a volume of its own; the stand-in's image is not needed any more.
    assert!(kept.iter().any(|line| line.starts_with("container catwalk-")), "{kept:?}");
    assert!(!kept.iter().any(|line| line.starts_with("image ")), "{kept:?}");
    let spared = xtask(state.path(), &["clean"]).output().unwrap();
    assert!(String::from_utf8_lossy(&spared.stdout).contains("on purpose"), "{spared:?}");
    assert_ne!(engine(), before);
    let cleaned = xtask(state.path(), &["clean", "--kept"]).output().unwrap();
    assert!(cleaned.status.success(), "{cleaned:?}");
    assert_eq!(engine(), before);
}
