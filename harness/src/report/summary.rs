//! `summary.md`, for a step summary of GitHub Actions or a pull request, and annotations as its runner reads them.
//!
//! Names, reasons and log lines come from elsewhere: none of them may become markup.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::terminal::{counts, reasons, verdict};
use super::{CaseReport, Report};
use crate::case::Outcome;

/// The most cases that are told one by one: a step summary has at most 1 MiB.
const TOLD: usize = 100;
/// The most annotations: GitHub shows ten for a step.
const ANNOTATIONS: usize = 10;

/// Renders it.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "## Catwalk on {}: {}\n", text(&report.stage), counts(report));
    if report.modelled {
        let _ = writeln!(out, "**Modelled: no Calico program ran.** This says nothing of Calico.\n");
    }
    if report.interrupted {
        let _ = writeln!(out, "**Interrupted.**\n");
    }
    if let Some(word) = &report.gate {
        let said = if word.yes() { "yes" } else { "no" };
        let _ = writeln!(out, "### Gate: {said} for {}\n", text(&word.calico));
        let _ = writeln!(out, "{}.\n", word.counts());
        list(&mut out, word.accepted.iter().map(|accepted| format!("accepted: {accepted}")));
        list(&mut out, word.reasons.iter().map(|reason| reason.words.clone()));
    }
    let problems = report
        .environments
        .iter()
        .filter_map(|e| Some(format!("environment {}: {}", e.id, e.problem.as_ref()?)));
    list(&mut out, problems.chain(report.problems.iter().chain(&report.left_behind).cloned()));
    list(&mut out, report.flaky().iter().map(ToString::to_string));
    environments(&mut out, report);
    told(&mut out, report);
    list(&mut out, reasons(report).into_iter().map(|(reason, n)| format!("{reason} ({n} cases)")));
    let _ = writeln!(out, "<details><summary>Not covered</summary>\n");
    list(&mut out, report.not_covered.iter().cloned());
    let _ = writeln!(out, "</details>\n");
    let _ = writeln!(out, "Again: {}  ", code(&report.command));
    let _ = writeln!(out, "Catwalk {}, run {}", text(&report.catwalk), text(&report.run));
    out
}

/// Workflow commands that show what is no pass beside the step, the weightiest first.
pub fn annotations(report: &Report) -> String {
    let mut out = String::new();
    let mut said = 0;
    let mut say = |title: &str, words: &str| {
        said += 1;
        if said <= ANNOTATIONS {
            let _ = writeln!(out, "::error title={}::{}", property(title), data(words));
        }
    };
    match &report.gate {
        // It has the others' reasons too.
        Some(word) => word.reasons.iter().for_each(|reason| say("gate: no", &reason.words)),
        None => {
            for case in bad(report) {
                let reason = case.reason.as_deref().unwrap_or_default();
                say(
                    &format!("{} {}", case.outcome.as_str(), case.id),
                    &format!("{}: {reason}", verdict(case)),
                );
            }
            report.flaky().iter().for_each(|flaky| say("flaky", &flaky.to_string()));
            report.problems.iter().chain(&report.left_behind).for_each(|problem| say("problem", problem));
        }
    }
    out
}

fn bad(report: &Report) -> impl Iterator<Item = &CaseReport> {
    report.cases.iter().filter(|case| case.outcome.is_bad())
}

fn environments(out: &mut String, report: &Report) {
    let mut of: BTreeMap<&str, BTreeMap<Outcome, usize>> = BTreeMap::new();
    for case in &report.cases {
        *of.entry(&case.environment).or_default().entry(case.outcome).or_default() += 1;
    }
    let _ = writeln!(out, "| release | domain | DNS | outcomes | seconds |\n|---|---|---|---|---:|");
    for environment in report.environments.iter().take(TOLD) {
        let about = &environment.about;
        let outcomes: Vec<String> = of
            .get(environment.id.as_str())
            .into_iter()
            .flatten()
            .map(|(outcome, n)| format!("{} {n} {}", mark(*outcome), outcome.as_str()))
            .collect();
        let mut with: String = about.with.iter().map(|extra| format!(" + {extra}")).collect();
        with.extend(about.repetition.map(|which| format!(", repetition {} of {}", which.index, which.of)));
        let _ = writeln!(
            out,
            "| {}{} | {} | {} | {} | {:.1} |",
            text(&about.calico),
            text(&with),
            text(about.domain.as_str()),
            about.dns,
            outcomes.join(", "),
            environment.took_ms as f64 / 1000.0
        );
    }
    let more = report.environments.len().saturating_sub(TOLD);
    if more > 0 {
        let _ = writeln!(out, "\n... and {more} more environments in report.json");
    }
    let _ = writeln!(out);
}

/// What is no pass, one by one.
fn told(out: &mut String, report: &Report) {
    for case in bad(report).take(TOLD) {
        let _ = writeln!(out, "#### {} {} {}\n", mark(case.outcome), case.outcome.as_str(), text(&case.id));
        let _ = writeln!(out, "{}  ", text(&verdict(case)));
        let _ = writeln!(out, "{}\n", text(case.reason.as_deref().unwrap_or_default()));
        let claims = case.claims.iter().flat_map(|claims| &claims.tigera_status);
        list(out, claims.map(|(name, state)| format!("the cluster said: TigeraStatus/{name} {state}")));
    }
    let more = bad(report).count().saturating_sub(TOLD);
    if more > 0 {
        let _ = writeln!(out, "... and {more} more cases in report.json\n");
    }
}

fn mark(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "✅",
        Outcome::KnownIssue => "⚠️",
        Outcome::Skipped => "⏭️",
        Outcome::Failed | Outcome::UnexpectedPass | Outcome::Errored => "❌",
    }
}

fn list(out: &mut String, lines: impl Iterator<Item = String>) {
    let mut any = false;
    for line in lines {
        any = true;
        let _ = writeln!(out, "- {}", text(&line));
    }
    if any {
        let _ = writeln!(out);
    }
}

/// Text in which nothing is markup: every punctuation mark of ASCII that may begin one is escaped (CommonMark 2.4), and
/// lines are one.
fn text(words: &str) -> String {
    let mut out = String::new();
    for c in words.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            // GitHub notifies whom it names.
            '@' => out.push_str("&#64;"),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '(' | ')' | '#' | '+' | '!' | '|' | '~'
            | '$' | '=' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    // A URL is a link by itself, which is what it is here for.
    out
}

/// The same as code.
fn code(words: &str) -> String {
    let words: String = words.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let longest = words.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    format!("{fence} {words} {fence}")
}

/// A workflow command's data (actions/toolkit, `packages/core/src/command.ts`).
fn data(words: &str) -> String {
    words.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property of one.
fn property(words: &str) -> String {
    data(words).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::super::tests::of;
    use super::*;

    #[test]
    fn hostile_words_are_no_markup() {
        let mut report = of(Outcome::Failed);
        let hostile = "<img src=x onerror=alert(1)> | `x` [a](https://b) **c**\n# d @everyone";
        report.cases[0].reason = Some(hostile.to_owned());
        report.not_covered = vec![hostile.to_owned()];
        report.command = "cargo xtask e2e --name '``` <b>'".to_owned();
        let summary = render(&report);
        for bad in ["<img", "\n# d", "[a](https", "**c**", "@everyone", "| `x`"] {
            assert!(!summary.contains(bad), "{bad}: {summary}");
        }
        assert!(summary.contains("```` cargo xtask e2e --name '``` <b>' ````"), "{summary}");
        assert!(summary.contains("❌ 1 failed") && summary.contains("NameNotFound"), "{summary}");
    }

    #[test]
    fn annotations_are_workflow_commands_of_one_line_each() {
        let mut report = of(Outcome::Failed);
        report.cases[0].reason = Some("100%\nsecond: line".to_owned());
        let said = annotations(&report);
        assert_eq!(
            said,
            "::error title=failed delivery/flow-is-delivered@v3.30.1-corp.internal-strict::NameNotFound: goldmane.x <&>: \
             100%25%0Asecond: line\n"
        );
        for index in 0..50 {
            report.problems.push(format!("problem {index}"));
        }
        assert_eq!(annotations(&report).lines().count(), ANNOTATIONS);
        assert_eq!(annotations(&of(Outcome::Passed)), "");
    }

    #[test]
    fn a_summary_of_many_cases_stays_below_github_s_limit() {
        let mut report = of(Outcome::Failed);
        let (case, environment) = (report.cases[0].clone(), report.environments[0].clone());
        for index in 0..10_000 {
            let mut case = case.clone();
            case.reason = Some("x".repeat(500));
            case.id = format!("{}{index}", case.id);
            report.cases.push(case);
            report.environments.push(environment.clone());
        }
        let summary = render(&report);
        assert!(summary.len() < 1 << 20, "{}", summary.len());
        assert!(summary.contains("... and 9901 more cases"), "it says what it leaves out");
    }
}
