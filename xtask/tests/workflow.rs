//! The workflow and the action: what they run in a shell does what a job relies on, and what they use is pinned.

#![expect(clippy::unwrap_used, reason = "helpers of tests end a test where they find what must not be")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn github() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.github")
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&std::fs::read_to_string(github().join(path)).unwrap()).unwrap()
}

/// A job's surroundings, as a runner gives them.
struct Runner {
    folder: tempfile::TempDir,
}

impl Runner {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn bash(&self, words: &[&str], env: &[(&str, &str)]) -> Output {
        Command::new("bash")
            .args(words)
            .envs(env.iter().copied())
            .env("RUNNER_TEMP", self.folder.path())
            .env("GITHUB_OUTPUT", self.path("output"))
            .env("GITHUB_STEP_SUMMARY", self.path("step-summary"))
            .env("GITHUB_ACTIONS", "true")
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }

    /// What the action's step does with these flags.
    fn e2e(&self, args: &str) -> Output {
        self.bash(&[github().join("actions/e2e/run").to_str().unwrap()], &[("ARGS", args)])
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}

#[test]
fn the_action_gives_summary_report_and_the_run_s_exit_code() {
    let runner = Runner::new();
    let ran = runner.e2e("--stage lab --calico v3.30.1 --scenario 'flow-is-delivered'");
    assert!(ran.status.success(), "{ran:?}");
    assert!(!String::from_utf8_lossy(&ran.stdout).contains("::error"), "{ran:?}");
    assert!(
        runner.read("step-summary").starts_with("## Catwalk on lab: "),
        "{}",
        runner.read("step-summary")
    );
    let output = runner.read("output");
    let report = PathBuf::from(output.trim().strip_prefix("report=").unwrap());
    assert!(report.starts_with(runner.folder.path()), "{output}");
    assert!(report.join("report.json").is_file() && report.join("junit.xml").is_file());

    // The caller's own policy, named as the caller sees it; the lab shows nothing real, so it says no.
    std::fs::copy(github().join("../release-gate.toml"), runner.path("mine.toml")).unwrap();
    let refused = runner.e2e("--stage lab --calico v3.30.1 --domain corp.internal --gate mine.toml");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(
        said.contains("::error title=gate%3A no::") || said.contains("::error title=gate: no::"),
        "{said}"
    );
    assert!(
        runner.read("step-summary").contains("### Gate: no for v3.30.1"),
        "{}",
        runner.read("step-summary")
    );
    // The same name in both repositories: the caller's counts, in either form, and Catwalk's where that is said.
    std::fs::write(runner.path("release-gate.toml"), "nonsense").unwrap();
    for (gate, expected) in [
        ("--gate release-gate.toml", "the policy"),
        ("--gate=release-gate.toml", "the policy"),
        ("--gate catwalk:release-gate.toml", "requires nothing of stage lab"),
        ("--gate missing.toml", "reading the policy"),
    ] {
        let ran = runner.e2e(&format!("--stage lab --calico v3.30.1 {gate}"));
        assert_eq!(ran.status.code(), Some(2), "{gate}: {ran:?}");
        assert!(String::from_utf8_lossy(&ran.stderr).contains(expected), "{gate}: {ran:?}");
    }
    // Whatever goes wrong with the flags, a run without its gate must not come of it, nor an earlier run's summary.
    let before = runner.read("step-summary");
    for flags in
        ["", "  ", "--no-such-flag", "--stage lab \"--dns=strict --gate mine.toml", "--stage lab --report x"]
    {
        assert_eq!(runner.e2e(flags).status.code(), Some(2), "{flags}");
    }
    // Neither is it a pass where nothing ran.
    for flags in ["--stage lab --list", "--stage lab --dry-run", "--help"] {
        let ran = runner.e2e(flags);
        assert_eq!(ran.status.code(), Some(2), "{flags}");
        assert!(String::from_utf8_lossy(&ran.stderr).contains("there is no report"), "{flags}: {ran:?}");
    }
    // A word that looks like a path, and is none.
    let domain = "--stage lab --calico v3.30.1 --scenario flow-is-delivered --domain path.internal";
    let ran = runner.e2e(domain);
    assert!(ran.status.success(), "{ran:?}");
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(text.contains("@v3.30.1-path.internal-"), "{text}");
    std::fs::write(runner.path("step-summary"), &before).unwrap();
    assert_eq!(runner.read("step-summary"), before);
}

#[test]
fn nothing_in_the_flags_is_run() {
    let runner = Runner::new();
    let flags = "--stage lab --list --domain $(touch${IFS}one) --domain `touch two` ; touch three";
    assert_eq!(runner.e2e(flags).status.code(), Some(2));
    for name in ["one", "two", "three"] {
        assert!(!runner.path(name).exists(), "{name}");
    }
}

#[test]
fn a_candidate_s_words_reach_e2e_as_they_are() {
    let workflow = yaml("workflows/e2e.yml");
    let steps = workflow["jobs"]["candidate"]["steps"].as_array().unwrap();
    let step = steps.iter().find(|step| step["id"] == "args").unwrap();
    let runner = Runner::new();
    let env = [
        ("NAME", "v3.33.0-rc1"),
        ("MANIFESTS", "a folder; touch one"),
        ("REGISTRY", "registry.example/x"),
        ("STAGE", "nodeless"),
    ];
    let ran = runner.bash(&["-e", "-c", step["run"].as_str().unwrap()], &env);
    assert!(ran.status.success(), "{ran:?}");
    let output = runner.read("output");
    let args = output.strip_prefix("args=").unwrap();
    assert!(args.contains("'a folder; touch one'") && args.contains("'--registry'"), "{args}");
    let refused = runner.e2e(args.trim());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("a folder; touch one"), "{said}");
    assert!(!runner.path("one").exists());
}

/// Every value under a key, at any depth.
fn all<'v>(value: &'v Value, key: &str, found: &mut Vec<&'v str>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get(key).and_then(Value::as_str));
            map.values().for_each(|value| all(value, key, found));
        }
        Value::Array(values) => values.iter().for_each(|value| all(value, key, found)),
        _ => {}
    }
}

#[test]
fn what_is_used_is_pinned_and_no_input_is_pasted_into_a_shell() {
    for file in ["workflows/e2e.yml", "actions/e2e/action.yml"] {
        let parsed = yaml(file);
        let (mut uses, mut runs) = (Vec::new(), Vec::new());
        all(&parsed, "uses", &mut uses);
        all(&parsed, "run", &mut runs);
        assert!(!uses.is_empty() && !runs.is_empty(), "{file}");
        for action in uses {
            let hash = action.rsplit_once('@').map(|(_, hash)| hash);
            let pinned =
                hash.is_some_and(|hash| hash.len() == 40 && hash.bytes().all(|b| b.is_ascii_hexdigit()));
            assert!(pinned || action.starts_with("./"), "{file}: {action}");
        }
        for run in runs {
            assert!(!run.contains("${{"), "{file}: {run}");
        }
    }
}
