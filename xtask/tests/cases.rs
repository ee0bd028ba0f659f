//! The lab's cases as tests, one each, for `cargo test` and nextest.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use catwalk_fixtures::{ClusterDomain, KnownIssue, Release};
use catwalk_harness::case::{self, KnownIssues, Outcome, outcome};
use catwalk_harness::environment::About;
use catwalk_harness::look::Place;
use catwalk_harness::progress::Teller;
use catwalk_harness::scenario::Scenario;
use catwalk_harness::stage::Stage;
use catwalk_harness::stage::config::Configs;
use catwalk_harness::stage::lab::Lab;
use catwalk_harness::timing::Stopwatch;
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> anyhow::Result<()> {
    let mut arguments = Arguments::from_args();
    let configs = Configs::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../kind-configs"))?;
    let releases = Release::table()?;
    // Most of a case is waiting.
    arguments.test_threads.get_or_insert(Lab::new(Vec::new()).carries());
    let issues = Arc::new(KnownIssues::new(KnownIssue::table()?)?);
    let mut trials = Vec::new();
    for release in &releases {
        for config in configs.named() {
            let about = About {
                calico: release.calico.clone(),
                domain: ClusterDomain::configured(&config.cluster_domain)?,
                dns: config.dns,
                stage: "lab".to_owned(),
                modelled: true,
                host_search: Vec::new(),
                repetition: None,
                with: Vec::new(),
            };
            for scenario in catwalk_delivery::ALL.into_iter().chain(catwalk_audit::ALL) {
                let (release, about, issues) = (release.clone(), about.clone(), issues.clone());
                let id = case::id(&scenario, &about);
                // What the lab cannot do is skipped, and shown as ignored: a skip is never a pass.
                let skipped = scenario.needs.iter().any(|need| !Lab::CAN.contains(need));
                let trial = Trial::test(id, move || run(release, &about, &scenario, &issues));
                trials.push(trial.with_ignored_flag(skipped));
            }
        }
    }
    libtest_mimic::run(&arguments, trials).exit()
}

fn run(release: Release, about: &About, scenario: &Scenario, issues: &KnownIssues) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let teller = Teller::new(about.id(), Arc::new(|_| {}));
        let stopwatch = Stopwatch::default();
        let env = Lab::new(vec![release]).provision(about, &teller, &stopwatch).await?;
        let deadline = Instant::now() + env.pace().patience;
        let place =
            Place::new(env.clone().environment(), "catwalk-test".to_owned(), teller, stopwatch, deadline);
        let finding = (scenario.run)(place).await?;
        env.finish().await?;
        let known = issues.affecting(scenario.id, about);
        match outcome(&scenario.demands, &finding.judgement, &known) {
            (Outcome::Passed | Outcome::KnownIssue, _) => Ok(()),
            (_, reason) => Err(format!("{}: {reason:?}\n{finding:#?}", finding.judgement.verdict).into()),
        }
    })
}
