//! One group's run: its environment stood up, its cases one after the other, evidence, and the environment taken down.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{Group, Keep, Options, Record, errored, millis, no_environment, note, stopped};
use crate::case::{self, KnownIssues, Outcome, outcome};
use crate::evidence;
use crate::look::{Finding, Place};
use crate::progress::{Event, Listener, Teller};
use crate::report::{CaseReport, EnvironmentReport};
use crate::scenario::Scenario;
use crate::stage::{NoEnvironment, Provisioned, Stage};
use crate::task::AbortOnDrop;
use crate::timing::{Stopwatch, added_ms};

/// One group's run.
pub(super) struct One<'a> {
    pub(super) stage: &'a dyn Stage,
    pub(super) issues: &'a KnownIssues,
    pub(super) options: &'a Options,
    pub(super) record: &'a Record,
    pub(super) listener: &'a Listener,
}

impl One<'_> {
    pub(super) async fn run(&self, group: &Group, mut stop: watch::Receiver<bool>) {
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
                    // What does not go in time is left to `reap`.
                    let abandoning = self.stage.abandon(&group.about, evidence.as_deref(), keep);
                    let words = tokio::time::timeout(DELETION, abandoning).await.unwrap_or_default();
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
            bad |= case.outcome.is_bad();
            let words = match &case.finding {
                Some(finding) => format!("{}: {}", case.outcome.as_str(), finding.judgement.verdict),
                None => format!("{}: {}", case.outcome.as_str(), case.reason.as_deref().unwrap_or("")),
            };
            (self.listener)(Event::Case { id: case.id.clone(), words });
            note(self.record, |report| report.cases.push(case));
        }
        // An interruption is no reason to lose what was seen, but only so long. What ran is known before: a slow log does
        // not lose it.
        teller.tell("gathering evidence", "");
        let provenance = env.provenance().await;
        let gathering = async {
            match &self.options.evidence {
                Some(folder) => evidence::collect(&*env, &folder.join(group.about.id())).await,
                None => Vec::new(),
            }
        };
        let gathered = stopwatch.part("collect", false, tokio::time::timeout(GATHERING, gathering)).await;
        let not_gathered =
            gathered.unwrap_or_else(|_| vec![format!("not all within {} s", GATHERING.as_secs())]);
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
        let known_issues = self.issues.affecting(scenario.id, &about);
        if !missing.is_empty() {
            let reason = format!("this {} environment cannot do {}", about.stage, missing.join(", "));
            return CaseReport {
                outcome: Outcome::Skipped,
                known_issues,
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
                return self.judged(scenario, env, finding, known_issues, started.elapsed()).await;
            }
            Ok(Ok(Err(e))) => format!("no verdict: {e}"),
            Ok(Err(_)) => format!("no verdict: the scenario did not end within {} s", bound.as_secs()),
            Err(panic) => format!("no verdict: the scenario ended in a panic: {panic}"),
        };
        CaseReport { known_issues, ..errored(scenario, &about, &error, started.elapsed()) }
    }

    async fn judged(
        &self,
        scenario: &Scenario,
        env: &Arc<dyn Provisioned>,
        mut finding: Finding,
        known_issues: Vec<case::Affecting>,
        took: Duration,
    ) -> CaseReport {
        let about = env.about();
        finding.of = case::finding_of(&self.options.run, &case::id(scenario, about));
        let (outcome, reason) = outcome(&scenario.demands, &finding.judgement, &known_issues);
        let delivered = outcome == Outcome::Passed;
        let claims = if delivered { None } else { tokio::time::timeout(CLAIMS, env.claims()).await.ok() };
        CaseReport {
            outcome,
            reason,
            known_issues,
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
