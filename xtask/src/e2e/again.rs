//! The cases of an earlier report that were bad, as a run of their own.

use std::path::Path;

use anyhow::{Result, bail};
use catwalk_fixtures::Release;
use catwalk_harness::environment::About;
use catwalk_harness::report::Report;
use catwalk_harness::run::Group;

use super::args::{self, Args};
use crate::report::is_in;
use crate::select::{self, every_scenario};

/// Reads the report of which cases are to run again, as they ran.
pub(super) fn read(path: &Path, args: &Args) -> Result<Report> {
    let report = crate::report::read(path)?;
    let given = args::given(args);
    if report.given != given {
        let words = |given: &[String]| if given.is_empty() { "none".to_owned() } else { given.join(" ") };
        bail!(
            "the report's run was given other flags ({}) than this one ({}): give the same",
            words(&report.given),
            words(&given)
        );
    }
    if is_in(path, &args.report) {
        bail!(
            "the report to run again is in {}, where this run's would take its place: name another folder with --report",
            args.report.display()
        );
    }
    Ok(report)
}

/// What to run again.
pub(super) fn groups(
    report: &Report,
    stage: &str,
    modelled: bool,
    releases: &[Release],
) -> Result<Vec<Group>> {
    if (report.stage.as_str(), report.modelled) != (stage, modelled) {
        let of = |stage: &str, modelled| format!("{stage}{}", if modelled { ", with stand-ins" } else { "" });
        bail!(
            "the report is of {}, and this is {}: give --stage and --standin as there",
            of(&report.stage, report.modelled),
            of(stage, modelled)
        );
    }
    let mut groups = Vec::new();
    let mut chosen = 0;
    for environment in &report.environments {
        let bad = |id: &str| {
            report.cases.iter().any(|case| {
                case.environment == environment.id && case.scenario == id && case.outcome.is_bad()
            })
        };
        let scenarios: Vec<_> = every_scenario().into_iter().filter(|scenario| bad(scenario.id)).collect();
        if scenarios.is_empty() {
            continue;
        }
        let calico = &environment.about.calico;
        if !releases.iter().any(|release| release.calico == *calico) {
            bail!(
                "the table does not know {calico}: if it is a candidate, give its --name and --manifests again"
            );
        }
        // Of several repetitions that were bad, one runs again.
        let about = About { repetition: None, ..environment.about.clone() };
        chosen += scenarios.len();
        select::add(&mut groups, Group { about, scenarios });
    }
    let bad = report.cases.iter().filter(|case| case.outcome.is_bad()).count();
    if chosen != bad {
        bail!(
            "{bad} cases of the report are bad, and of {chosen} scenario and environment are known: it is of another Catwalk"
        );
    }
    if groups.is_empty() {
        bail!("nothing to run again: no case of the report failed, passed unexpectedly or errored");
    }
    Ok(groups)
}
