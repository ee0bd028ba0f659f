//! `report.html`: one file, without network, that shows a run to people. The page is `page.html`; here is its data.

use std::collections::BTreeMap;
use std::io;

use serde_json::{Value, json};

use super::terminal::{counts, verdict};
use super::{CaseReport, EnvironmentReport, Report};
use crate::audit::Audit;
use crate::look::Finding;
use crate::sight::{Said, Sight};
use crate::verdict::Verdict;

const PAGE: &str = include_str!("page.html");
/// Where its data go.
const DATA: &str = "/*DATA*/";
/// The layers of the way from the name to the flow, in order.
const LAYERS: [&str; 8] =
    ["name", "connection", "TLS", "certificate", "client certificate", "call", "Whisker", "flow"];
/// Layers that our own dial sees; what comes after is Whisker's.
const DIALLED: usize = 6;
/// The layer that a complete handshake says nothing of.
const CLIENT_CERTIFICATE: usize = 4;
/// The most bytes of evidence in one page, and behind one case. What is more is in report.json.
const EVIDENCE: usize = 1_500_000;
const OF_CASE: usize = 12_000;
/// The most bytes of one text, and of all texts that cases have in their verdicts and reasons; once they are used up a
/// text has at most the last of these.
const TEXT: usize = 2_000;
const TEXTS: usize = 1_200_000;
const SHORT: usize = 120;

/// Renders it.
pub fn render(report: &Report) -> io::Result<String> {
    let data = serde_json::to_string(&data(report))?;
    // In a script element only `<` can end it, or begin a comment (HTML, "Restrictions for contents of script elements").
    Ok(PAGE.replacen(DATA, &data.replace('<', "\\u003c"), 1))
}

/// Things that many have alike, each once: who has one gives its number.
#[derive(Default)]
struct Table<T> {
    numbers: BTreeMap<T, usize>,
    things: Vec<T>,
}

impl<T: Ord + Clone> Table<T> {
    fn number(&mut self, thing: T) -> usize {
        let Self { numbers, things } = self;
        *numbers.entry(thing).or_insert_with_key(|thing| {
            things.push(thing.clone());
            things.len() - 1
        })
    }
}

/// What cases and environments have alike, and how much may still be said.
struct Shared {
    texts: Table<String>,
    room_for_texts: usize,
    room_for_evidence: usize,
    provenances: Table<Vec<(String, String)>>,
}

impl Shared {
    fn text(&mut self, text: &str) -> usize {
        let mut text = cut(text, TEXT);
        if !self.texts.numbers.contains_key(&text) {
            if text.len() > self.room_for_texts {
                text = cut(&text, SHORT);
            }
            self.room_for_texts = self.room_for_texts.saturating_sub(text.len());
        }
        self.texts.number(text)
    }
}

fn data(report: &Report) -> Value {
    let environments: BTreeMap<&str, usize> =
        report.environments.iter().enumerate().map(|(index, e)| (e.id.as_str(), index)).collect();
    let mut scenarios: Vec<&str> = report.cases.iter().map(|case| case.scenario.as_str()).collect();
    scenarios.sort_unstable();
    scenarios.dedup();
    let mut shared = Shared {
        texts: Table::default(),
        room_for_texts: TEXTS,
        room_for_evidence: EVIDENCE,
        provenances: Table::default(),
    };
    let shown: Vec<Value> = report.environments.iter().map(|of| environment(of, &mut shared)).collect();
    let cases = report.cases.iter().filter_map(|of| {
        let scenario = scenarios.binary_search(&of.scenario.as_str()).ok()?;
        Some(case(of, *environments.get(of.environment.as_str())?, scenario, &mut shared))
    });
    let cases: Vec<Value> = cases.collect();
    let unplaced = report.cases.len() - cases.len();
    let mut problems: Vec<String> = report
        .environments
        .iter()
        .filter_map(|e| Some(format!("environment {}: {}", e.id, e.problem.as_ref()?)))
        .chain(report.problems.iter().chain(&report.left_behind).cloned())
        .chain(report.flaky().iter().map(ToString::to_string))
        .collect();
    if unplaced > 0 {
        problems.push(format!("{unplaced} cases are of no environment of the report, and not shown"));
    }
    json!({
        "stage": report.stage, "modelled": report.modelled, "interrupted": report.interrupted,
        "counts": counts(report), "took_ms": report.took_ms, "started": report.started,
        "command": report.command, "catwalk": report.catwalk, "run": report.run,
        "not_covered": report.not_covered, "problems": problems, "gate": report.gate, "layers": LAYERS,
        "scenarios": scenarios, "environments": shown, "cases": cases,
        "texts": shared.texts.things, "provenances": shared.provenances.things,
    })
}

fn environment(of: &EnvironmentReport, shared: &mut Shared) -> Value {
    let about = &of.about;
    let extras = about.with.iter().cloned();
    let search = about.host_search.iter().map(|domain| format!("search {domain}"));
    let repetition = about.repetition.map(|which| format!("repetition {} of {}", which.index, which.of));
    let with: Vec<String> = extras.chain(search).chain(repetition).collect();
    let timings: Vec<Value> =
        of.timings.iter().map(|span| json!([shared.text(&span.part), span.start_ms, span.end_ms])).collect();
    let provenance = of.provenance.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    json!({
        "id": of.id, "calico": about.calico, "domain": about.domain, "dns": about.dns.to_string(), "with": with,
        "stage": about.stage, "took_ms": of.took_ms, "timings": timings,
        "provenance": shared.provenances.number(provenance),
    })
}

/// Short names: there may be ten thousand of them.
fn case(of: &CaseReport, environment: usize, scenario: usize, shared: &mut Shared) -> Value {
    let mut shown = json!({
        "e": environment, "s": scenario, "o": of.outcome, "t": of.took_ms,
        "v": shared.text(&if of.finding.is_some() { verdict(of) } else { String::new() }),
    });
    let mut put = |name: &str, value: Value| {
        if let Some(shown) = shown.as_object_mut() {
            shown.insert(name.to_owned(), value);
        }
    };
    if let Some(reason) = &of.reason {
        put("r", json!(shared.text(reason)));
    }
    if !of.known_issues.is_empty() {
        let issues = of.known_issues.iter();
        let issues = issues.map(|issue| json!(shared.text(&format!("{}: {}", issue.id, issue.link))));
        put("k", issues.collect());
    }
    if let Some(claims) = &of.claims {
        let claims = claims.tigera_status.iter();
        let claims = claims.map(|(name, state)| json!(shared.text(&format!("TigeraStatus/{name} {state}"))));
        put("claims", claims.collect());
    }
    if let Some(walk) = of.finding.as_ref().and_then(walk) {
        put("w", json!(walk));
    }
    let evidence: Vec<(String, String)> = of.finding.as_ref().map(evidence).unwrap_or_default();
    let bytes = evidence.iter().map(|(title, text)| title.len() + text.len()).sum::<usize>();
    // Where it has none, this page had no room for more.
    if bytes <= shared.room_for_evidence {
        shared.room_for_evidence -= bytes;
        put("x", json!(evidence));
    }
    shown
}

/// For each layer whether it is (o)k, (b)roken or (u)nknown; none where no layer is concerned.
fn walk(finding: &Finding) -> Option<String> {
    let broken = match &finding.judgement.verdict {
        Verdict::NameNotFound { .. }
        | Verdict::NameServerFailed { .. }
        | Verdict::NameServerUnreachable { .. } => 0,
        Verdict::ConnectionRefused | Verdict::ConnectionTimedOut => 1,
        Verdict::NotTls => 2,
        Verdict::CertificateNameMismatch { .. }
        | Verdict::UnknownAuthority
        | Verdict::CertificateExpired { .. }
        | Verdict::CertificateNotYetValid { .. }
        | Verdict::CertificateUnusable { .. } => 3,
        Verdict::ClientCertificateRejected => 4,
        Verdict::RpcFailed { .. } => 5,
        Verdict::WhiskerNotRunning { .. } | Verdict::WhiskerFailed { .. } => 6,
        Verdict::FlowMissing => 7,
        Verdict::Delivered { .. } => LAYERS.len(),
        Verdict::Clean { .. }
        | Verdict::NamesForeignDomain { .. }
        | Verdict::NamesNotServed { .. }
        | Verdict::TimedOut { .. } => return None,
    };
    // What Whisker does says nothing of layers that our own dial did not come through.
    let call = finding.sight.as_ref().and_then(|sight| sight.dial.call.as_ref());
    let dialled = broken < DIALLED || call.is_some_and(|call| call.code == "Ok");
    let state = |layer: usize| match layer.cmp(&broken) {
        std::cmp::Ordering::Less if layer < DIALLED && !dialled => 'u',
        // That a call failed does not tell whether our certificate was taken: in TLS 1.3 the handshake does not either.
        std::cmp::Ordering::Less if layer == CLIENT_CERTIFICATE && broken == layer + 1 => 'u',
        std::cmp::Ordering::Less => 'o',
        std::cmp::Ordering::Equal => 'b',
        std::cmp::Ordering::Greater => 'u',
    };
    Some((0..LAYERS.len()).map(state).collect())
}

fn evidence(finding: &Finding) -> Vec<(String, String)> {
    let mut parts = Vec::new();
    if let Some(disagreement) = &finding.judgement.disagreement {
        parts.push(("The witnesses disagree".to_owned(), disagreement.clone()));
    }
    if !finding.judgement.further_defects.is_empty() {
        parts.push((
            "Further defects of the certificate".to_owned(),
            finding.judgement.further_defects.join("\n"),
        ));
    }
    if let Some(sight) = &finding.sight {
        parts.extend(of_sight(sight));
    }
    match &finding.audit {
        Some(Audit::Rendered { foreign, .. }) if !foreign.is_empty() => {
            let names: Vec<String> = foreign.iter().map(ToString::to_string).collect();
            parts.push(("Names of other domains".to_owned(), names.join("\n")));
        }
        Some(Audit::Served { names, .. }) => {
            let line = |name: &crate::audit::FullName| {
                let there = if name.exists { "" } else { " (no such Service)" };
                format!("{}{there}: {}", name.name, name.named_by.join(", "))
            };
            let names: Vec<String> = names.iter().map(line).collect();
            parts.push(("Full names".to_owned(), names.join("\n")));
        }
        _ => {}
    }
    let mut room = OF_CASE;
    for (_, text) in &mut parts {
        *text = cut(text, room.min(TEXT));
        room = room.saturating_sub(text.len());
    }
    parts
}

fn of_sight(sight: &Sight) -> Vec<(String, String)> {
    let dial = &sight.dial;
    let mut lines = vec![format!("{} from {:?}", dial.target, dial.vantage)];
    lines.extend(dial.names.iter().map(|(name, answer)| format!("{name}: {answer:?}")));
    lines.extend(dial.connection.iter().map(|connection| format!("connection: {connection:?}")));
    lines.extend(dial.tls.iter().map(|tls| {
        format!("handshake for {}: {:?}, {} certificates shown", tls.name, tls.end, tls.chain.len())
    }));
    lines.extend(dial.call.iter().map(|call| format!("call: {} {}", call.code, call.message)));
    lines.extend(dial.not_seen.iter().map(|why| format!("not seen: {why}")));
    let said = match &sight.whisker {
        Said::NotThere(why) => format!("not there: {why}"),
        Said::Silent(why) => format!("silent: {why}"),
        Said::Answer { status, content_type, body } => format!("{status} {content_type}\n{}", cut(body, 800)),
    };
    let mut parts = vec![
        ("First witness: our own dial".to_owned(), lines.join("\n")),
        ("Second witness: Whisker\u{2019}s answer".to_owned(), said),
    ];
    if !sight.log.is_empty() {
        parts.push(("Whisker\u{2019}s log since then".to_owned(), sight.log.join("\n")));
    }
    parts
}

/// The beginning of a text, of so many bytes at most.
fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most.saturating_sub(3)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}\u{2026}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::super::tests::of;
    use super::*;
    use crate::case::Outcome;

    #[test]
    fn a_page_is_one_file_and_hostile_text_ends_no_script() {
        let mut report = of(Outcome::Failed);
        report.cases[0].reason = Some("</script><script>alert(1)</script><!-- <script>".to_owned());
        report.command = "/*DATA*/ </SCRIPT>".to_owned();
        let page = render(&report).unwrap();
        assert_eq!(page.matches("</script").count(), 2, "the two of the page itself");
        assert!(!page.contains("</SCRIPT") && !page.contains("<!-- <script>"));
        for elsewhere in
            [" src=", "href=", "@import", "url(", "innerHTML", "insertAdjacentHTML", "document.write"]
        {
            assert!(!PAGE.contains(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn a_walk_claims_no_layer_that_nobody_came_through() {
        let finding = |verdict| Finding {
            of: String::new(),
            judgement: crate::judge::Judgement { verdict, disagreement: None, further_defects: vec![] },
            sight: None,
            audit: None,
        };
        let rows = [
            (Verdict::NameNotFound { name: "x".into() }, Some("buuuuuuu")),
            (Verdict::CertificateExpired { not_after: "x".into() }, Some("ooobuuuu")),
            (Verdict::RpcFailed { code: "Unavailable".into() }, Some("ooooubuu")),
            (Verdict::WhiskerNotRunning { reason: "x".into() }, Some("uuuuuubu")),
            (Verdict::FlowMissing, Some("uuuuuuob")),
            (Verdict::TimedOut { last: "x".into() }, None),
        ];
        for (verdict, expected) in rows {
            assert_eq!(walk(&finding(verdict.clone())).as_deref(), expected, "{verdict}");
        }
    }

    #[test]
    fn a_page_of_ten_thousand_cases_has_at_most_five_megabytes() {
        let mut report = of(Outcome::Passed);
        let (case, environment) = (report.cases[0].clone(), report.environments[0].clone());
        report.cases.clear();
        report.environments.clear();
        for index in 0..2_000 {
            let id = format!("v3.30.1-d{index}.corp.internal-strict");
            report.environments.push(EnvironmentReport { id: id.clone(), ..environment.clone() });
            for scenario in ["a/one", "a/two", "a/three", "a/four", "a/five"] {
                report.cases.push(CaseReport {
                    id: format!("{scenario}@{id}"),
                    scenario: scenario.to_owned(),
                    environment: id.clone(),
                    reason: Some("x".repeat(60)),
                    ..case.clone()
                });
            }
        }
        let page = render(&report).unwrap();
        assert!(page.len() <= 5_000_000, "{}", page.len());
    }

    #[test]
    fn a_text_is_cut_between_letters() {
        assert_eq!(cut("ääää", 6), "ä\u{2026}");
        assert_eq!(cut("abc", 3), "abc");
    }
}
