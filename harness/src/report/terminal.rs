//! The summary for a terminal: a table, then what is no pass, with its reason.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::{ContentArrangement, Table, presets};

use super::{CaseReport, Report};
use crate::case::Outcome;
use crate::gate::{Reason, Word};

/// Results of more than this many cases are counted by release rather than listed.
const LISTED: usize = 24;

/// Renders it for a terminal of so many columns.
pub fn render(report: &Report, columns: u16) -> String {
    let mut out = String::new();
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(columns);
    if report.cases.len() <= LISTED {
        table.set_header(["outcome", "case", "verdict"]);
        for case in &report.cases {
            table.add_row([case.outcome.as_str().to_owned(), case.id.clone(), verdict(case)]);
        }
    } else {
        by_release(report, &mut table);
    }
    let _ = writeln!(out, "{table}\n");
    for environment in &report.environments {
        if let Some(problem) = &environment.problem {
            let _ = writeln!(out, "environment {}: {problem}", environment.id);
        }
    }
    for case in &report.cases {
        let Some(reason) = &case.reason else { continue };
        match case.outcome {
            Outcome::Failed | Outcome::UnexpectedPass => {
                let _ = writeln!(out, "{} {}: {}: {reason}", case.outcome.as_str(), case.id, verdict(case));
                claims(&mut out, case);
            }
            // What an environment's problem caused is said above, once.
            Outcome::Errored if !report.environments.iter().any(|e| e.problem.as_ref() == Some(reason)) => {
                let _ = writeln!(out, "errored {}: {reason}", case.id);
            }
            _ => {}
        }
    }
    for flaky in report.flaky() {
        let _ = writeln!(out, "{flaky}");
    }
    for (reason, ids) in reasons(report) {
        let _ = writeln!(out, "{reason} ({} cases)", ids);
    }
    for problem in report.problems.iter().chain(&report.left_behind) {
        let _ = writeln!(out, "problem: {problem}");
    }
    for kept in &report.kept {
        let _ = writeln!(out, "{kept}");
    }
    for axis in &report.not_covered {
        let _ = writeln!(out, "not covered: {axis}");
    }
    let _ = writeln!(out, "{} in {:.1} s", counts(report), report.took_ms as f64 / 1000.0);
    if report.interrupted {
        let _ = writeln!(out, "interrupted");
    }
    if report.modelled {
        let _ = writeln!(out, "modelled: no Calico program ran");
    }
    if let Some(word) = &report.gate {
        gate(&mut out, word);
    }
    out
}

/// What the gate says, its reasons in order of weight.
pub fn gate(out: &mut String, word: &Word) {
    for accepted in &word.accepted {
        let _ = writeln!(out, "gate: accepted {accepted}");
    }
    for Reason { words, .. } in &word.reasons {
        let _ = writeln!(out, "gate: no: {words}");
    }
    let _ = match (word.yes(), word.reasons.len()) {
        (true, _) => {
            writeln!(out, "gate: yes for {}: {}", word.calico, word.counts())
        }
        (false, 1) => writeln!(out, "gate: no, for one reason"),
        (false, n) => writeln!(out, "gate: no, for {n} reasons, the weightiest first"),
    };
}

pub(super) fn verdict(case: &CaseReport) -> String {
    case.finding.as_ref().map_or_else(|| "none".to_owned(), |finding| finding.judgement.verdict.to_string())
}

/// What the cluster claimed while nothing was delivered.
fn claims(out: &mut String, case: &CaseReport) {
    let Some(claims) = &case.claims else { return };
    for (name, state) in &claims.tigera_status {
        let _ = writeln!(out, "  the cluster said: TigeraStatus/{name} {state}");
    }
}

/// Known issues and skips, once each with how many cases they concern.
pub(super) fn reasons(report: &Report) -> BTreeMap<String, usize> {
    let mut reasons = BTreeMap::new();
    for case in &report.cases {
        if let (Outcome::KnownIssue | Outcome::Skipped, Some(reason)) = (case.outcome, &case.reason) {
            *reasons.entry(format!("{}: {reason}", case.outcome.as_str())).or_insert(0) += 1;
        }
    }
    reasons
}

fn by_release(report: &Report, table: &mut Table) {
    table.set_header(["release", "domains", "outcomes"]);
    // The environments come in the releases' order.
    for environments in report.environments.chunk_by(|a, b| a.about.calico == b.about.calico) {
        let Some(first) = environments.first() else { continue };
        let mut domains: Vec<String> = environments.iter().map(|e| e.about.domain.to_string()).collect();
        domains.dedup();
        let belongs = |case: &&CaseReport| environments.iter().any(|e| e.id == case.environment);
        let cases = report.cases.iter().filter(belongs);
        table.add_row([first.about.calico.clone(), domains.join(", "), tally(cases)]);
    }
}

pub(super) fn counts(report: &Report) -> String {
    format!("{} cases: {}", report.cases.len(), tally(report.cases.iter()))
}

fn tally<'a>(cases: impl Iterator<Item = &'a CaseReport>) -> String {
    let mut counts: BTreeMap<Outcome, usize> = BTreeMap::new();
    for case in cases {
        *counts.entry(case.outcome).or_insert(0) += 1;
    }
    counts.iter().map(|(outcome, n)| format!("{n} {}", outcome.as_str())).collect::<Vec<_>>().join(", ")
}
