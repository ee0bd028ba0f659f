//! The run: environments with bounded concurrency, their cases one after the other, and a report whatever happens.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::case::{self, KnownIssues, Outcome, outcome};
use crate::environment::About;
use crate::evidence;
use crate::look::{Finding, Place};
use crate::progress::{Event, Listener, Teller};
use crate::report::{CaseReport, EnvironmentReport, Report};
use crate::scenario::Scenario;
use crate::stage::{NoEnvironment, Provisioned, Stage};
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

/// How to run.
#[derive(Clone)]
pub struct Options {
    /// Environments at once.
    pub jobs: usize,
    /// The longest that standing one environment up may take.
    pub timeout: Duration,
    /// When to leave environments standing.
    pub keep: Keep,
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
pub async fn run(
    stage: Arc<dyn Stage>,
    groups: Vec<Group>,
    issues: Arc<KnownIssues>,
    options: Options,
    record: Record,
    listener: Listener,
    mut stop: watch::Receiver<bool>,
) {
    let common = Teller::new(stage.name(), listener.clone());
    let started = Instant::now();
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
    let left = stage.reap(&common).await;
    note(&record, |report| {
        report.left_behind.extend(left);
        report.not_covered = stage.not_covered();
        report.interrupted = *stop.borrow();
        report.took_ms = millis(started.elapsed());
        report.environments.sort_by_key(|environment| order(&environment.about));
        report.cases.sort_by(|a, b| a.id.cmp(&b.id));
    });
}

fn order(about: &About) -> (Vec<u64>, String, catwalk_fixtures::DnsProfile) {
    (catwalk_fixtures::release::version_key(&about.calico), about.domain.to_string(), about.dns)
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

/// One group's run.
struct One<'a> {
    stage: &'a dyn Stage,
    issues: &'a KnownIssues,
    options: &'a Options,
    record: &'a Record,
    listener: &'a Listener,
}

impl One<'_> {
    async fn run(&self, group: &Group, mut stop: watch::Receiver<bool>) {
        let stopwatch = Stopwatch::default();
        let started = Instant::now();
        let teller = Teller::new(group.about.id(), self.listener.clone());
        let provisioned = tokio::select! {
            // The stage's own waits end first, and say what was last seen.
            provisioned = tokio::time::timeout(
                self.options.timeout + GRACE, self.stage.provision(&group.about, &teller, &stopwatch)
            ) => provisioned.unwrap_or_else(|_| {
                Err(NoEnvironment::with_fix(
                    format!("it was not there within {} s", self.options.timeout.as_secs()),
                    "Give it longer with --timeout SECONDS, or look at it with --keep failed",
                ))
            }),
            () = stopped(&mut stop) => Err(NoEnvironment::because("interrupted")),
        };
        let env = match provisioned {
            Ok(env) => env,
            Err(problem) => {
                let interrupted = *stop.borrow();
                note(self.record, |report| {
                    no_environment(report, group, &problem, started.elapsed(), &stopwatch)
                });
                if !interrupted {
                    teller.tell("gathering evidence and taking it down", &problem.what);
                    let evidence = self.options.evidence.as_ref().map(|folder| folder.join(group.about.id()));
                    let keep = self.options.keep != Keep::Never;
                    let words = self.stage.abandon(&group.about, evidence.as_deref(), keep).await;
                    note(self.record, |report| report.kept.extend(words));
                }
                return;
            }
        };
        let mut bad = false;
        let patient_until = Instant::now() + env.pace().patience;
        for scenario in &group.scenarios {
            let case = tokio::select! {
                case = self.case(scenario, &env, &teller, &stopwatch, patient_until) => case,
                () = stopped(&mut stop) => errored(scenario, &group.about, "interrupted", Duration::ZERO),
            };
            bad |= matches!(case.outcome, Outcome::Failed | Outcome::UnexpectedPass | Outcome::Errored);
            let words = match &case.finding {
                Some(finding) => format!("{}: {}", case.outcome.as_str(), finding.judgement.verdict),
                None => format!("{}: {}", case.outcome.as_str(), case.reason.as_deref().unwrap_or("")),
            };
            (self.listener)(Event::Case { id: case.id.clone(), words });
            note(self.record, |report| report.cases.push(case));
        }
        // An interruption is no reason to lose what was seen, but only so long.
        let gathering = async {
            let provenance = env.provenance().await;
            let missing = match &self.options.evidence {
                Some(folder) => evidence::collect(&*env, &folder.join(group.about.id())).await,
                None => Vec::new(),
            };
            (provenance, missing)
        };
        teller.tell("gathering evidence", "");
        let gathered = stopwatch.part("collect", false, tokio::time::timeout(GATHERING, gathering)).await;
        let (provenance, not_gathered) = gathered.unwrap_or_else(|_| {
            (Default::default(), vec![format!("not all within {} s", GATHERING.as_secs())])
        });
        let keep = match self.options.keep {
            Keep::Always => true,
            Keep::Failed => bad && !*stop.borrow(),
            Keep::Never => false,
        };
        let mut problem = None;
        if keep {
            let how = env.keep().await;
            note(self.record, |report| report.kept.push(how));
        } else {
            teller.tell("taking it down", "");
            // What does not go in time is left to `reap`.
            let finished =
                stopwatch.part("delete", false, tokio::time::timeout(DELETION, env.finish())).await;
            if let Err(why) = finished.unwrap_or_else(|_| Err(format!("not within {} s", DELETION.as_secs())))
            {
                problem = Some(format!("taking it down: {why}"));
            }
        }
        let took_ms = millis(started.elapsed());
        let timings = stopwatch.spans();
        note(self.record, |report| {
            report.environments.push(EnvironmentReport {
                id: group.about.id(),
                about: group.about.clone(),
                provenance,
                problem,
                took_ms,
                added_ms: added_ms(took_ms, &timings),
                timings,
                not_gathered,
            });
        });
    }

    async fn case(
        &self,
        scenario: &Scenario,
        env: &Arc<dyn Provisioned>,
        teller: &Teller,
        stopwatch: &Stopwatch,
        patient_until: Instant,
    ) -> CaseReport {
        let about = env.about().clone();
        let missing: Vec<String> = scenario
            .needs
            .iter()
            .filter(|need| !env.can().contains(need))
            .map(|need| format!("{need:?}"))
            .collect();
        let known_issue = self.issues.affecting(scenario.id, &about);
        if !missing.is_empty() {
            let reason = format!("this {} environment cannot do {}", about.stage, missing.join(", "));
            return CaseReport {
                outcome: Outcome::Skipped,
                known_issue,
                ..errored(scenario, &about, &reason, Duration::ZERO)
            };
        }
        let started = Instant::now();
        let canary =
            format!("catwalk-{}-{}", self.options.run, scenario.id.rsplit('/').next().unwrap_or("case"));
        // Patience is with the environment: what the first case waited for in vain, the next waits for but shortly.
        let deadline = patient_until.max(started + env.pace().patience / 6);
        let place =
            Place::new(env.clone().environment(), canary, teller.clone(), stopwatch.clone(), deadline);
        // Its own task, so that a panic in a scenario is this case's error and not the run's.
        let bound = CASE_BOUND.max(env.pace().patience * 3 + env.pace().answer);
        let ran = tokio::spawn(tokio::time::timeout(bound, (scenario.run)(place)));
        let ran = stopwatch.part(scenario.id, false, AbortOnDrop(ran)).await;
        let error = match ran {
            Ok(Ok(Ok(finding))) => {
                return self.judged(scenario, env, finding, known_issue, started.elapsed()).await;
            }
            Ok(Ok(Err(e))) => format!("no verdict: {e}"),
            Ok(Err(_)) => format!("no verdict: the scenario did not end within {} s", bound.as_secs()),
            Err(panic) => format!("no verdict: the scenario ended in a panic: {panic}"),
        };
        CaseReport { known_issue, ..errored(scenario, &about, &error, started.elapsed()) }
    }

    async fn judged(
        &self,
        scenario: &Scenario,
        env: &Arc<dyn Provisioned>,
        finding: Finding,
        known_issue: Option<case::Affecting>,
        took: Duration,
    ) -> CaseReport {
        let about = env.about();
        let (outcome, reason) = outcome(&scenario.demands, &finding.judgement, known_issue.as_ref());
        let delivered = outcome == Outcome::Passed;
        let claims = if delivered { None } else { tokio::time::timeout(CLAIMS, env.claims()).await.ok() };
        CaseReport {
            outcome,
            reason,
            known_issue,
            finding: Some(finding),
            claims,
            ..errored(scenario, about, "", took)
        }
    }
}

/// The longest that a case may take where its environment's pace says less.
const CASE_BOUND: Duration = Duration::from_secs(60);
/// How much longer the run waits for an environment than the environment's own waits.
const GRACE: Duration = Duration::from_secs(30);
/// The longest that the cluster may take to say what it thinks of itself.
const CLAIMS: Duration = Duration::from_secs(15);
/// The longest that taking an environment down may take.
const DELETION: Duration = Duration::from_secs(180);
/// The longest that gathering evidence may take.
const GATHERING: Duration = Duration::from_secs(60);

/// A task that ends when nobody waits for it any more.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(cx)
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
        known_issue: None,
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
    let cases = group.scenarios.iter().map(|s| errored(s, &group.about, &problem.to_string(), took));
    report.cases.extend(cases);
}
