//! The run: environments with bounded concurrency, their cases one after the other, and a report whatever happens.

mod group;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use group::One;

use crate::case::{self, KnownIssues, Outcome};
use crate::environment::{About, Repetition};
use crate::progress::{Event, Listener, Teller};
use crate::report::{CaseReport, EnvironmentReport, Report};
use crate::scenario::Scenario;
use crate::stage::{NoEnvironment, Stage};
use crate::task::AbortOnDrop;
use crate::timing::{Stopwatch, added_ms};

/// When an environment is left standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Never.
    Never,
    /// When one of its cases is neither passed, known nor skipped.
    Failed,
    /// Always.
    Always,
}

/// One environment with the scenarios that look at it.
#[derive(Clone)]
pub struct Group {
    /// The environment.
    pub about: About,
    /// The scenarios.
    pub scenarios: Vec<Scenario>,
}

/// So many of each group, to see whether what one shows the others show too: the first of every group, then the second.
pub fn repeated(groups: &[Group], times: usize) -> Vec<Group> {
    let of = |index| {
        groups.iter().cloned().map(move |mut group| {
            group.about.repetition = Some(Repetition { index, of: times });
            group
        })
    };
    (1..=times).flat_map(of).collect()
}

/// How to run.
#[derive(Clone)]
pub struct Options {
    /// Environments at once.
    pub jobs: usize,
    /// The longest that standing one environment up may take.
    pub timeout: Duration,
    /// When to leave environments standing.
    pub keep: Keep,
    /// Whether no further environment is begun once a case is bad.
    pub fail_fast: bool,
    /// Where evidence goes.
    pub evidence: Option<PathBuf>,
    /// The run's id, in names of canaries.
    pub run: String,
}

/// A report that is being written; readable at any time, also after a panic.
pub type Record = Arc<Mutex<Report>>;

fn note<T>(record: &Record, write: impl FnOnce(&mut Report) -> T) -> T {
    write(&mut record.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Runs every group and cleans up. `stop` turns true when the user interrupts.
///
/// A panic in it, of whatever part, is a problem in the report, and no reason not to clean up.
pub async fn run(
    stage: Arc<dyn Stage>,
    groups: Vec<Group>,
    issues: Arc<KnownIssues>,
    options: Options,
    record: Record,
    listener: Listener,
    stop: watch::Receiver<bool>,
) {
    let started = Instant::now();
    let common = Teller::new(stage.name(), listener.clone());
    let all = groups.clone();
    let running = {
        let (stage, record, common, stop) = (stage.clone(), record.clone(), common.clone(), stop.clone());
        async move { prepare_and_run(stage, groups, issues, options, record, listener, common, stop).await }
    };
    if let Err(panic) = AbortOnDrop(tokio::spawn(running)).await {
        note(&record, |report| report.problems.push(format!("the run ended in a panic: {panic}")));
    }
    note(&record, |report| {
        for group in &all {
            if !report.environments.iter().any(|environment| environment.id == group.about.id()) {
                let none = NoEnvironment::because("its run ended in a panic");
                no_environment(report, group, &none, Duration::ZERO, &Stopwatch::default());
            }
        }
    });
    let went_badly = |report: &mut Report| {
        !report.problems.is_empty() || report.environments.iter().any(|e| e.problem.is_some())
    };
    let cut_off = *stop.borrow() || note(&record, went_badly);
    let reaping = {
        let stage = stage.clone();
        async move { stage.reap(cut_off, &common).await }
    };
    let left = AbortOnDrop(tokio::spawn(reaping)).await.unwrap_or_else(|panic| {
        vec![format!("cleaning up ended in a panic: {panic}. `cargo xtask clean` removes what is left")]
    });
    note(&record, |report| {
        report.left_behind.extend(left);
        report.not_covered = stage.not_covered();
        report.interrupted = *stop.borrow();
        report.took_ms = millis(started.elapsed());
        report.sort();
    });
}

#[expect(clippy::too_many_arguments, reason = "it is `run` without its end")]
async fn prepare_and_run(
    stage: Arc<dyn Stage>,
    groups: Vec<Group>,
    issues: Arc<KnownIssues>,
    options: Options,
    record: Record,
    listener: Listener,
    common: Teller,
    mut stop: watch::Receiver<bool>,
) {
    let wanted: Vec<About> = groups.iter().map(|group| group.about.clone()).collect();
    let prepared = tokio::select! {
        prepared = stage.prepare(&wanted, options.jobs, &common) => prepared,
        () = stopped(&mut stop) => Err(vec![NoEnvironment::because("interrupted")]),
    };
    match prepared {
        Ok(()) => {
            run_groups(&stage, groups, &issues, &options, &record, &listener, &stop).await;
        }
        Err(problems) => {
            let none = NoEnvironment::because(format!("stage {} could not be prepared", stage.name()));
            for group in &groups {
                note(&record, |report| {
                    no_environment(report, group, &none, Duration::ZERO, &Stopwatch::default())
                });
            }
            note(&record, |report| report.problems.extend(problems.iter().map(ToString::to_string)));
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Ends when the user interrupts.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stopped| *stopped).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn run_groups(
    stage: &Arc<dyn Stage>,
    groups: Vec<Group>,
    issues: &Arc<KnownIssues>,
    options: &Options,
    record: &Record,
    listener: &Listener,
    stop: &watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(options.jobs.max(1)));
    let mut running = JoinSet::new();
    for group in groups {
        let (stage, issues, options) = (stage.clone(), issues.clone(), options.clone());
        let (record, listener, room, mut stop) =
            (record.clone(), listener.clone(), room.clone(), stop.clone());
        running.spawn(async move {
            let who = group.about.id();
            let permit = tokio::select! {
                permit = room.acquire_owned() => permit,
                () = stopped(&mut stop) => {
                    let problem = NoEnvironment::because("interrupted before it began");
                    note(&record, |report| no_environment(report, &group, &problem, Duration::ZERO, &Stopwatch::default()));
                    return;
                }
            };
            let bad = note(&record, |report| Some(report.cases.iter().find(|case| case.outcome.is_bad())?.id.clone()));
            if let Some(bad) = bad.filter(|_| options.fail_fast) {
                let problem = NoEnvironment::because(format!("not begun after {bad} (--fail-fast)"));
                note(&record, |report| no_environment(report, &group, &problem, Duration::ZERO, &Stopwatch::default()));
                return;
            }
            let one = One { stage: &*stage, issues: &issues, options: &options, record: &record, listener: &listener };
            one.run(&group, stop).await;
            drop(permit);
            listener(Event::Ended { who });
        });
    }
    while let Some(ended) = running.join_next().await {
        if let Err(panic) = ended {
            note(record, |report| {
                report.problems.push(format!("an environment's run ended in a panic: {panic}"))
            });
        }
    }
}

fn errored(scenario: &Scenario, about: &About, reason: &str, took: Duration) -> CaseReport {
    CaseReport {
        id: case::id(scenario, about),
        scenario: scenario.id.to_owned(),
        environment: about.id(),
        demands: scenario.demands,
        outcome: Outcome::Errored,
        reason: Some(reason.to_owned()),
        known_issues: Vec::new(),
        finding: None,
        claims: None,
        took_ms: millis(took),
    }
}

fn no_environment(
    report: &mut Report,
    group: &Group,
    problem: &NoEnvironment,
    took: Duration,
    stopwatch: &Stopwatch,
) {
    let timings = stopwatch.spans();
    let took_ms = millis(took);
    report.environments.push(EnvironmentReport {
        id: group.about.id(),
        about: group.about.clone(),
        provenance: Default::default(),
        problem: Some(problem.to_string()),
        took_ms,
        added_ms: added_ms(took_ms, &timings),
        timings,
        not_gathered: Vec::new(),
    });
    for scenario in &group.scenarios {
        let case = errored(scenario, &group.about, &problem.to_string(), took);
        // What it came to before stays.
        if !report.cases.iter().any(|known| known.id == case.id) {
            report.cases.push(case);
        }
    }
}
