//! Reports are written whole or not at all, however a run ends.

#![expect(clippy::unwrap_used, reason = "helpers of tests end a test where they find what must not be")]
#![cfg(unix)]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use catwalk_harness::wait::{Probe, wait_for};
use serde_json::Value;

const FILES: [&str; 4] = ["report.json", "junit.xml", "summary.md", "report.html"];

fn xtask(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("e2e").args(words).stdin(Stdio::null());
    command
}

/// The names of the files in a folder, sorted.
fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The report, if all its renderings are there and whole, and nothing else.
fn whole(folder: &Path) -> Value {
    let mut expected = FILES.map(str::to_owned);
    expected.sort();
    assert_eq!(files(folder), expected);
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    assert!(read("junit.xml").trim_end().ends_with("</testsuites>"));
    assert!(read("report.html").trim_end().ends_with("</html>"));
    let report: Value = serde_json::from_str(&read("report.json")).unwrap();
    assert!(read("summary.md").trim_end().ends_with(&format!("run {}", report["run"].as_str().unwrap())));
    report
}

#[test]
fn on_a_normal_end_and_where_no_environment_can_be_had() {
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = folder.path().to_str().unwrap();
    let ran = xtask(&["--stage", "lab", "--calico", "newest", "--report", path]).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    assert_eq!(whole(folder.path())["interrupted"], false);
    // The earlier report goes, and this one comes in its place.
    let none = xtask(&[
        "--stage",
        "nodeless",
        "--standin",
        "--calico",
        "newest",
        "--domain",
        "corp.internal",
        "--report",
        path,
    ])
    .env("DOCKER_HOST", "unix:///nobody/listens/here.sock")
    .env("XDG_STATE_HOME", state.path())
    .output()
    .unwrap();
    assert_eq!(none.status.code(), Some(3), "{none:?}");
    let report = whole(folder.path());
    let cases = report["cases"].as_array().unwrap();
    assert!(!cases.is_empty());
    assert!(cases.iter().all(|case| case["outcome"] == "errored"), "{report}");
}

/// A run of some ten seconds.
fn long(folder: &Path) -> Command {
    let domains: Vec<String> = (0..40).map(|index| format!("--domain=d{index}.test")).collect();
    let mut words =
        vec!["--stage", "lab", "--calico", "all", "--jobs", "1", "--report", folder.to_str().unwrap()];
    words.extend(domains.iter().map(String::as_str));
    xtask(&words)
}

/// A statement of an earlier run says nothing of this one, also where that run's report was taken elsewhere.
#[test]
fn nothing_of_an_earlier_run_stays_beside_a_new_report() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    for earlier in [None, Some("{}"), Some("no report")] {
        if let Some(text) = earlier {
            std::fs::write(folder.path().join("report.json"), text).unwrap();
        }
        std::fs::write(folder.path().join("conformance.json"), r#"{"conformance": 1}"#).unwrap();
        let lab = ["--stage", "lab", "--calico", "v3.30.1", "--domain", "corp.internal", "--report", path];
        assert!(xtask(&lab).output().unwrap().status.success());
        whole(folder.path());
    }
}

/// A login in an address is its user's alone.
#[test]
fn no_login_is_written_into_a_report() {
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = folder.path().to_str().unwrap();
    let address = "http://user:s3cret@127.0.0.1:9/manifests";
    let words = ["--stage", "nodeless", "--calico", "v3.30.1", "--manifests", address, "--report", path];
    let ran = xtask(&words).env("XDG_STATE_HOME", state.path()).output().unwrap();
    assert!(!ran.status.success());
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(said.contains("127.0.0.1:9/manifests") && !said.contains("s3cret"), "{said}");
    // The command is in the report of any run: here the address of a folder.
    let lab = ["--stage", "lab", "--calico", "v3.30.1", "--report", "x://user:s3cret@h/p"];
    assert!(xtask(&lab).current_dir(folder.path()).output().unwrap().status.success());
    let report = std::fs::read_to_string(folder.path().join("x:/user:s3cret@h/p/report.json")).unwrap();
    assert!(report.contains("--report x://h/p") && !report.contains("s3cret"), "{report}");
}

#[test]
fn on_a_signal() {
    for signal in ["-INT", "-TERM", "-HUP"] {
        let folder = tempfile::tempdir().unwrap();
        let listed = long(folder.path()).arg("--list").output().unwrap();
        let cases = String::from_utf8(listed.stdout).unwrap().lines().count();
        let mut run = long(folder.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // It listens for signals once it has looked whether the folder can be written.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let began = Instant::now();
        let listens = wait_for(
            "the run",
            began + Duration::from_secs(20),
            Duration::from_millis(20),
            &|_, _| {},
            || async {
                if began.elapsed() > Duration::from_secs(2) {
                    Probe::Done(())
                } else {
                    Probe::NotYet("starting".into())
                }
            },
        );
        runtime.block_on(listens).unwrap();
        let killed = Command::new("kill").args([signal, &run.id().to_string()]).status().unwrap();
        assert!(killed.success());
        assert_eq!(run.wait().unwrap().code(), Some(130), "{signal}");
        let report = whole(folder.path());
        assert_eq!(report["interrupted"], true, "{signal}");
        // Every case is told, also those that did not begin.
        assert_eq!(report["cases"].as_array().unwrap().len(), cases, "{signal}");
    }
}

#[test]
fn not_at_all_where_there_is_no_room() {
    let folder = tempfile::tempdir().unwrap();
    // No file may have more than 16 KiB: to a writer it is as if the disk were full.
    let script = format!(
        "trap '' XFSZ; ulimit -f 16; exec '{}' e2e --stage lab --calico newest --report '{}'",
        env!("CARGO_BIN_EXE_xtask"),
        folder.path().display()
    );
    let Output { status, stderr, stdout } = Command::new("bash").args(["-c", &script]).output().unwrap();
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(3), "{said}");
    assert!(said.contains("error: the report cannot be written into"), "{said}");
    assert!(!String::from_utf8_lossy(&stdout).contains("report: "), "no path is named where nothing is");
    assert_eq!(files(folder.path()), [""; 0]);
}

#[test]
fn not_at_all_where_nothing_can_be_written() {
    // Not even root can make a folder there.
    for folder in ["/proc/catwalk", "/dev/null/catwalk"] {
        let ran = xtask(&["--stage", "lab", "--calico", "newest", "--report", folder]).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(ran.status.code(), Some(2), "{said}");
        assert!(said.contains("cannot be written into") && said.contains("--report"), "{said}");
    }
}
