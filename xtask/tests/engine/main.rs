//! What a run leaves behind when it is killed or interrupted: nothing that `clean` does not find, and nobody else's.
//!
//! Needs a container engine, so it is ignored by default:
//! `CATWALK_NODE_IMAGE=kind-node:v1.34.4 cargo test -p xtask --test engine -- --ignored`. Stage kind needs kind and
//! that node image, whose pods must have a network of their own; stage nodeless the images of etcd and kube-apiserver.
//! Two cores carry one of these tests at a time, so they wait for each other, also across processes.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests end a test where they find what must not be"
)]

mod rendered;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use catwalk_harness::report::Report;
use catwalk_harness::wait::{Probe, wait_for};
use serial_test::file_serial;

/// The longest wait for one step of a run.
const PATIENCE: Duration = Duration::from_secs(300);

/// A stage that leaves things in an engine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Kind,
    Nodeless,
}

fn xtask(state: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(words).env("XDG_STATE_HOME", state).stdin(Stdio::null());
    command
}

fn node_image() -> String {
    std::env::var("CATWALK_NODE_IMAGE").expect("CATWALK_NODE_IMAGE names a node image")
}

/// A run that stands up one environment with stand-ins, with ledgers and a report of its own.
struct Run {
    child: Child,
    state: tempfile::TempDir,
    report: tempfile::TempDir,
}

impl Run {
    fn start(stage: Stage, keep: &str) -> Self {
        Self::start_with(stage, keep, &[])
    }

    fn start_with(stage: Stage, keep: &str, flags: &[&str]) -> Self {
        let (state, report) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folder = report.path().to_str().unwrap().to_owned();
        let image = if stage == Stage::Kind { node_image() } else { String::new() };
        let of_stage: &[&str] = match stage {
            Stage::Kind => &["--cni", "none", "--node-image", &image],
            Stage::Nodeless => &["--stage", "nodeless"],
        };
        let words = ["e2e", "--standin", "--domain", "corp.internal", "--calico", "v3.30.1"];
        let more = ["--scenario", "flow-is-delivered", "--report", &folder, "--keep", keep];
        let mut command = xtask(state.path(), &[&words[..], &more[..], of_stage, flags].concat());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { child, state, report }
    }

    /// Waits until a container of this run is in the engine; the run's id.
    fn wait_for_container(&mut self) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let deadline = Instant::now() + PATIENCE;
        let container =
            wait_for("a container of the run", deadline, Duration::from_millis(100), &|_, _| {}, || {
                let run = self.ledgers().pop().unwrap_or_else(|| "none yet".to_owned());
                let there = belongings(&run).iter().any(|line| line.starts_with("container "));
                let ended = self.child.try_wait().unwrap();
                async move {
                    match (there, ended) {
                        (true, _) => Probe::Done(run),
                        (false, Some(status)) => Probe::Never(format!("the run has ended: {status}")),
                        (false, None) => Probe::NotYet(run),
                    }
                }
            });
        runtime.block_on(container).unwrap()
    }

    /// Ids of the runs that have a ledger.
    fn ledgers(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.state.path().join("catwalk/runs")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn report(&self) -> Report {
        let text = std::fs::read(self.report.path().join("report.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    fn xtask(&self, words: &[&str]) -> Output {
        xtask(self.state.path(), words).output().unwrap()
    }
}

fn output(program: &str, words: &[&str]) -> String {
    let Output { stdout, .. } = Command::new(program).args(words).output().unwrap();
    String::from_utf8(stdout).unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The run's containers, images, volumes and networks: all of them carry its id in their names, but for the volume
/// that goes with a kind node.
fn belongings(run: &str) -> Vec<String> {
    let lists: [&[&str]; 4] = [
        &["ps", "--all", "--format", "container {{.Names}}"],
        &["images", "--format", "image {{.Repository}}:{{.Tag}}"],
        &["volume", "ls", "--format", "volume {{.Name}}"],
        &["network", "ls", "--format", "network {{.Name}}"],
    ];
    let all: String = lists.iter().map(|words| output("docker", words)).collect();
    all.lines().filter(|line| line.contains(run)).map(str::to_owned).collect()
}

/// Somebody else's cluster, as kind tells one: by a label. It runs nothing, and is deleted when the test ends.
struct Foreign(String);

impl Foreign {
    fn create() -> Self {
        let foreign = Self(format!("somebody-{}", std::process::id()));
        let (node, label) = (foreign.node(), format!("io.x-k8s.kind.cluster={}", foreign.0));
        let image = node_image();
        let words =
            ["run", "--detach", "--name", &node, "--label", &label, "--entrypoint", "sleep", &image, "3600"];
        assert!(Command::new("docker").args(words).status().unwrap().success());
        assert!(foreign.stands());
        foreign
    }

    fn node(&self) -> String {
        format!("{}-control-plane", self.0)
    }

    fn stands(&self) -> bool {
        output("kind", &["get", "clusters"]).lines().any(|name| name == self.0)
            && output("docker", &["ps", "--format", "{{.Names}}"]).contains(&self.node())
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let removed = Command::new("docker").args(["rm", "--force", "--volumes", &self.node()]).status();
        assert!(removed.is_ok_and(|status| status.success()));
    }
}

fn killed(stage: Stage) {
    let mut run = Run::start(stage, "never");
    let id = run.wait_for_container();
    // While the run lives, its things are its own.
    assert!(text(&run.xtask(&["clean"])).contains("goes on"));
    assert!(run.child.try_wait().unwrap().is_none());

    run.child.kill().unwrap();
    run.child.wait().unwrap();
    if stage == Stage::Nodeless {
        // As Docker leaves a volume that it could not remove at a first try: without its label.
        let created = output("docker", &["volume", "create", &format!("catwalk-{id}-0-without-label")]);
        assert!(created.contains(&id));
    }
    assert!(!belongings(&id).is_empty());
    let cleaned = run.xtask(&["clean"]);
    assert!(cleaned.status.success(), "{cleaned:?}");
    assert!(text(&cleaned).contains("removed run"), "{cleaned:?}");
    assert_eq!(belongings(&id), [""; 0]);
    assert!(text(&run.xtask(&["clean"])).ends_with("nothing to clean\n"));
}

/// Whose ledger is gone, as with the container or the temporary folder that it lay in.
fn lost(stage: Stage) {
    let mut run = Run::start(stage, "never");
    let id = run.wait_for_container();
    run.child.kill().unwrap();
    run.child.wait().unwrap();
    let left = belongings(&id);
    assert!(!left.is_empty());
    // The engine may still bring one that was on its way.
    let stands = || left.iter().all(|thing| belongings(&id).contains(thing));

    let elsewhere = tempfile::tempdir().unwrap();
    let clean = |words: &[&str]| xtask(elsewhere.path(), &[&["clean"], words].concat()).output().unwrap();
    // It might be another user's run: it is told of, and left alone.
    let told = clean(&["--kept"]);
    assert!(told.status.success() && text(&told).contains(&format!("clean --run {id}")), "{told:?}");
    assert!(stands());
    // Another run's id has nothing to do with it.
    let other = clean(&["--run", "00000000"]);
    assert_eq!(other.status.code(), Some(2), "{other:?}");
    assert!(stands());

    let cleaned = clean(&["--run", &id]);
    assert!(cleaned.status.success() && text(&cleaned).contains("removed run"), "{cleaned:?}");
    assert_eq!(belongings(&id), [""; 0]);
    assert!(!text(&clean(&[])).contains(&id));
}

fn interrupted(stage: Stage) {
    for signal in ["-INT", "-TERM"] {
        let mut run = Run::start(stage, "never");
        let id = run.wait_for_container();
        let killed = Command::new("kill").args([signal, &run.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        assert_eq!(run.child.wait().unwrap().code(), Some(130), "{signal}");
        assert_eq!(belongings(&id), [""; 0], "{signal}");
        let report = run.report();
        assert!(report.interrupted && report.left_behind.is_empty(), "{signal}: {report:?}");
        assert_eq!(run.ledgers(), [""; 0], "{signal}");
    }
}

fn kept(stage: Stage) {
    let mut run = Run::start(stage, "always");
    let id = run.wait_for_container();
    let status = run.child.wait().unwrap();
    assert!(status.success(), "{status}");
    let standing = belongings(&id);
    assert!(standing.iter().any(|line| line.starts_with("container ")), "{standing:?}");
    // A cluster has its own copy of the stand-in's image.
    assert_eq!(
        standing.iter().any(|line| line.starts_with("image ")),
        stage == Stage::Nodeless,
        "{standing:?}"
    );
    assert!(text(&run.xtask(&["clean"])).contains("on purpose"));
    assert_eq!(belongings(&id), standing);
    let cleaned = run.xtask(&["clean", "--kept"]);
    assert!(cleaned.status.success(), "{cleaned:?}");
    assert_eq!(belongings(&id), [""; 0]);
}

#[test]
#[ignore = "needs a container engine and kind"]
#[file_serial(engine)]
fn clean_finds_what_a_killed_run_left_on_kind_and_nothing_else() {
    let foreign = Foreign::create();
    killed(Stage::Kind);
    assert!(foreign.stands());
}

#[test]
#[ignore = "needs a container engine"]
#[file_serial(engine)]
fn clean_finds_what_a_killed_run_left_on_nodeless() {
    killed(Stage::Nodeless);
}

#[test]
#[ignore = "needs a container engine and kind"]
#[file_serial(engine)]
fn a_run_on_kind_without_its_ledger_is_cleaned_by_its_id() {
    let foreign = Foreign::create();
    lost(Stage::Kind);
    assert!(foreign.stands());
}

#[test]
#[ignore = "needs a container engine"]
#[file_serial(engine)]
fn a_run_on_nodeless_without_its_ledger_is_cleaned_by_its_id() {
    lost(Stage::Nodeless);
}

#[test]
#[ignore = "needs a container engine and kind"]
#[file_serial(engine)]
fn an_interrupted_run_on_kind_writes_its_report_and_leaves_nothing() {
    interrupted(Stage::Kind);
}

#[test]
#[ignore = "needs a container engine"]
#[file_serial(engine)]
fn an_interrupted_run_on_nodeless_writes_its_report_and_leaves_nothing() {
    interrupted(Stage::Nodeless);
}

#[test]
#[ignore = "needs a container engine"]
#[file_serial(engine)]
fn of_a_control_plane_that_is_half_made_nothing_is_left() {
    // The control plane comes up, and the image of its pods cannot be had.
    let image = ["--image", "catwalk-standin=registry.invalid/none:1"];
    let mut run = Run::start_with(Stage::Nodeless, "never", &image);
    assert_eq!(run.child.wait().unwrap().code(), Some(3));
    let report = run.report();
    let problem = report.environments[0].problem.clone().unwrap();
    assert!(problem.contains("registry.invalid/none:1 cannot be pulled"), "{problem}");
    assert_eq!(belongings(&report.run), [""; 0]);
    assert_eq!(run.ledgers(), [""; 0]);
}

#[test]
#[ignore = "needs a container engine and kind"]
#[file_serial(engine)]
fn a_kept_cluster_stands_until_it_is_asked_for() {
    kept(Stage::Kind);
}

#[test]
#[ignore = "needs a container engine"]
#[file_serial(engine)]
fn a_kept_control_plane_stands_until_it_is_asked_for() {
    kept(Stage::Nodeless);
}

/// Each has its own network, names and ledger; the engine's addresses and ports are enough for all.
#[test]
#[ignore = "needs a container engine"]
#[file_serial(engine)]
fn five_runs_at_once_do_not_disturb_each_other() {
    let mut runs: Vec<Run> = (0..5).map(|_| Run::start(Stage::Nodeless, "never")).collect();
    let ids: Vec<String> = runs.iter_mut().map(Run::wait_for_container).collect();
    for (run, id) in runs.iter_mut().zip(&ids) {
        let status = run.child.wait().unwrap();
        let report = run.report();
        assert!(status.success(), "{status}: {report:?}");
        assert_eq!(report.run, *id);
        assert_eq!(belongings(id), [""; 0]);
        assert_eq!(run.ledgers(), [""; 0]);
    }
}
