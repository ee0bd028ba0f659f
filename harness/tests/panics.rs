//! A panic in any part of a run is in the report, which is written whole; and the run cleans up all the same.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "stages that panic are what is looked at, and helpers of tests end a test"
)]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use catwalk_fixtures::{ClusterDomain, DnsProfile, Release};
use catwalk_harness::case::Outcome;
use catwalk_harness::environment::About;
use catwalk_harness::progress::Teller;
use catwalk_harness::report::{Report, SCHEMA};
use catwalk_harness::run::{self, Group, Keep, Options};
use catwalk_harness::scenario;
use catwalk_harness::scenario::Demand;
use catwalk_harness::stage::lab::Lab;
use catwalk_harness::stage::{NoEnvironment, Provisioned, Stage};
use catwalk_harness::timing::Stopwatch;

/// Where it panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Prepare,
    Provision,
    Scenario,
    Reap,
}

struct Panics {
    at: At,
    lab: Lab,
    reaped: AtomicBool,
}

#[async_trait]
impl Stage for Panics {
    fn name(&self) -> &'static str {
        "lab"
    }

    fn modelled(&self) -> bool {
        true
    }

    fn carries(&self) -> usize {
        1
    }

    fn not_covered(&self) -> Vec<String> {
        vec!["everything".to_owned()]
    }

    async fn prepare(&self, _: &[About], _: usize, _: &Teller) -> Result<(), Vec<NoEnvironment>> {
        assert_ne!(self.at, At::Prepare, "planted");
        Ok(())
    }

    async fn provision(
        &self,
        about: &About,
        teller: &Teller,
        stopwatch: &Stopwatch,
    ) -> Result<Arc<dyn Provisioned>, NoEnvironment> {
        // Of two environments one.
        assert!(self.at != At::Provision || about.domain.is_default(), "planted");
        self.lab.provision(about, teller, stopwatch).await
    }

    async fn abandon(&self, _: &About, _: Option<&Path>, _: bool) -> Vec<String> {
        Vec::new()
    }

    async fn reap(&self, _: bool, _: &Teller) -> Vec<String> {
        self.reaped.store(true, Ordering::Relaxed);
        assert_ne!(self.at, At::Reap, "planted");
        Vec::new()
    }
}

fn group(domain: &str, at: At) -> Group {
    let panics = scenario! {
        id: "delivery/panics", given: "", when: "", needs: [], demands: Demand::Delivered,
        run: |place| async move { drop(place); panic!("planted") },
    };
    let about = About {
        calico: "v3.30.1".to_owned(),
        domain: ClusterDomain::observed(domain),
        dns: DnsProfile::Strict,
        stage: "lab".to_owned(),
        modelled: true,
        host_search: Vec::new(),
        with: Vec::new(),
        repetition: None,
    };
    // Nothing is provisioned for no scenario; where the scenario is not what panics, it is skipped.
    let scenario = match at {
        At::Scenario => panics,
        _ => scenario::Scenario { needs: &[catwalk_harness::environment::Capability::NodeFlows], ..panics },
    };
    Group { about, scenarios: vec![scenario] }
}

async fn report(at: At) -> (Report, bool) {
    let stage =
        Arc::new(Panics { at, lab: Lab::new(Release::table().unwrap()), reaped: AtomicBool::new(false) });
    let record = Arc::new(Mutex::new(Report {
        schema: SCHEMA,
        catwalk: String::new(),
        run: "run".to_owned(),
        command: String::new(),
        given: Vec::new(),
        started: String::new(),
        took_ms: 0,
        stage: "lab".to_owned(),
        modelled: true,
        not_covered: Vec::new(),
        environments: Vec::new(),
        cases: Vec::new(),
        left_behind: Vec::new(),
        kept: Vec::new(),
        problems: Vec::new(),
        interrupted: false,
        shard: None,
        gate: None,
    }));
    let options = Options {
        jobs: 2,
        timeout: Duration::from_secs(30),
        keep: Keep::Never,
        fail_fast: false,
        evidence: None,
        run: "run".to_owned(),
    };
    let groups = vec![group("cluster.local", at), group("corp.internal", at)];
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    run::run(stage.clone(), groups, Arc::default(), options, record.clone(), Arc::new(|_| {}), stopped).await;
    let report = record.lock().unwrap().clone();
    (report, stage.reaped.load(Ordering::Relaxed))
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_it_panics_the_report_is_whole_and_the_run_cleans_up() {
    use Outcome::{Errored, Skipped};
    let rows = [
        (At::Prepare, [Errored, Errored], "the run ended in a panic", "its run ended in a panic"),
        (
            At::Provision,
            [Skipped, Errored],
            "an environment's run ended in a panic",
            "its run ended in a panic",
        ),
        (At::Scenario, [Errored, Errored], "", "no verdict: the scenario ended in a panic"),
        (At::Reap, [Skipped, Skipped], "cleaning up ended in a panic", ""),
    ];
    for (at, outcomes, problem, reason) in rows {
        let (report, reaped) = report(at).await;
        assert!(reaped, "{at:?}");
        assert_eq!(report.cases.iter().map(|case| case.outcome).collect::<Vec<_>>(), outcomes, "{at:?}");
        let problems = [&report.problems[..], &report.left_behind[..]].concat();
        assert_eq!(problems.is_empty(), problem.is_empty(), "{at:?}: {problems:?}");
        assert!(problems.iter().all(|words| words.contains(problem)), "{at:?}: {problems:?}");
        for case in report.cases.iter().filter(|case| case.outcome == Errored) {
            assert!(case.reason.as_deref().unwrap().contains(reason), "{at:?}: {:?}", case.reason);
        }
        assert!(report.exits().contains(&3), "{at:?}");
        assert_eq!(report.exits().contains(&4), at == At::Reap, "{at:?}");
        let folder = tempfile::tempdir().unwrap();
        report.write(folder.path()).unwrap();
        for file in ["report.json", "junit.xml", "summary.md", "report.html"] {
            assert!(folder.path().join(file).is_file(), "{at:?}: {file}");
        }
    }
}
