//! Looking at what the operator rendered, until it holds still.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use catwalk_fixtures::CALICO_NAMESPACE;
use serde_json::Value;

use super::{Finding, Place, lock};
use crate::audit::{self, Audit, FullName};
use crate::environment::LookError;
use crate::judge::{self, Judgement};
use crate::probe;
use crate::stage::objects;
use crate::verdict::Verdict;
use crate::wait::{Probe, wait_for};

/// Which audit.
#[derive(Clone, Copy)]
enum Question {
    /// Which other cluster domains are named?
    Foreign,
    /// What serves the full names?
    Served,
}

/// What must hold for the settling time: the objects, each with its generation, and the finding.
#[derive(Clone)]
struct Seen {
    objects: BTreeSet<(String, Option<u64>)>,
    verdict: Verdict,
}

impl Seen {
    fn is(&self, other: &Self) -> bool {
        self.objects == other.objects && self.verdict.same_finding(&other.verdict)
    }
}

impl Place {
    /// Looks for names of other cluster domains in what the operator rendered.
    pub async fn audit_domains(&self) -> Result<Finding, LookError> {
        self.audit(Question::Foreign).await
    }

    /// Looks up every full name that the operator rendered and whose Service exists, and at the certificate that
    /// answers for Goldmane's.
    pub async fn audit_full_names(&self) -> Result<Finding, LookError> {
        self.audit(Question::Served).await
    }

    /// Looks until the same objects have given the same finding for the settling time, and, where time may cure that
    /// finding, until the deadline.
    async fn audit(&self, question: Question) -> Result<Finding, LookError> {
        let ended = self.env.rendering_ended();
        self.stopwatch.part("rendering ended", true, ended).await?;
        let pace = self.env.pace();
        let held: Mutex<Option<(Seen, Instant)>> = Mutex::default();
        let newest: Mutex<Option<Result<(Judgement, Audit), LookError>>> = Mutex::default();
        let deadline = self.deadline.max(Instant::now() + 2 * pace.settle);
        let hard = deadline + pace.settle + 6 * pace.step;
        let tell = self.teller.as_tell();
        let ended = wait_for("what the operator rendered", hard, pace.every, &tell, || async {
            let (seen, looked) = match self.look_at_rendered(question).await {
                Ok(looked) => looked,
                Err(e) => {
                    let words = e.to_string();
                    *lock(&held) = None;
                    *lock(&newest) = Some(Err(e));
                    let over = Instant::now() >= deadline;
                    return if over { Probe::Done(()) } else { Probe::NotYet(words) };
                }
            };
            let words = seen.verdict.to_string();
            let done = settled(seen, &mut lock(&held), pace.settle, deadline);
            *lock(&newest) = Some(Ok(looked));
            if done { Probe::Done(()) } else { Probe::NotYet(words) }
        })
        .await;
        let doing = "looking at what the operator rendered";
        let newest = newest.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (mut judgement, audit) = newest.unwrap_or_else(|| Err(LookError::while_(doing)("no answer")))?;
        if let (Err(why), Verdict::Clean { .. }) = (ended, &judgement.verdict) {
            // What still changes may yet become anything.
            judgement.verdict = Verdict::TimedOut { last: why.to_string() };
        }
        Ok(Finding { of: String::new(), judgement, sight: None, audit: Some(audit) })
    }

    /// One look.
    async fn look_at_rendered(&self, question: Question) -> Result<(Seen, (Judgement, Audit)), LookError> {
        let rendered = self.env.rendered().await?;
        let domain = &self.env.about().domain;
        let named = audit::names(&rendered, domain);
        let audit = match question {
            Question::Foreign => Audit::Rendered {
                domain: domain.clone(),
                objects: rendered.len(),
                own: named.full.len(),
                foreign: named.foreign.into_iter().collect(),
            },
            Question::Served => {
                let services = self.env.services().await?;
                let mut names = Vec::new();
                for (name, (service, named_by)) in named.full {
                    let exists = services.iter().any(|known| known.eq_ignore_ascii_case(&service));
                    let named_by = named_by.into_iter().collect();
                    let unseen = FullName { name, service, named_by, exists, dial: None, not_dialled: None };
                    names.push(if exists { self.follow(unseen, &rendered).await } else { unseen });
                }
                Audit::Served { objects: rendered.len(), names }
            }
        };
        let judgement = judge::audit::judge(&audit);
        let generation = |object: &Value| object.pointer("/metadata/generation").and_then(Value::as_u64);
        let objects = rendered.iter().map(|object| (audit::title(object), generation(object))).collect();
        Ok((Seen { objects, verdict: judgement.verdict.clone() }, (judgement, audit)))
    }

    /// Goes from a name to the certificate that answers, if that is Goldmane's; of others, to the address.
    async fn follow(&self, name: FullName, rendered: &[Value]) -> FullName {
        let env = &*self.env;
        if name.service != format!("goldmane.{CALICO_NAMESPACE}") {
            let why = "only Goldmane's certificate is asked for";
            let dial = probe::look_up(env, &name.name).await;
            return FullName { dial: Some(dial), not_dialled: Some(why.to_owned()), ..name };
        }
        let service = objects::find(rendered, "Service", CALICO_NAMESPACE, "goldmane");
        let port = service.and_then(|s| u16::try_from(s.pointer("/spec/ports/0/port")?.as_u64()?).ok());
        let dial = match (self.env.whisker_side().await, port) {
            (Ok(side), Some(port)) => probe::shake(env, &side, &name.name, port).await,
            (Err(e), _) => probe::no_dial(env, e.to_string()),
            (_, None) => probe::no_dial(env, "Goldmane's Service has no port".to_owned()),
        };
        FullName { dial: Some(dial), ..name }
    }
}

/// Whether what was seen can be believed now.
fn settled(
    seen: Seen,
    held: &mut Option<(Seen, Instant)>,
    settle: std::time::Duration,
    deadline: Instant,
) -> bool {
    let now = Instant::now();
    match held {
        Some((earlier, since)) if earlier.is(&seen) => {
            now.duration_since(*since) >= settle && (!seen.verdict.may_pass() || now >= deadline)
        }
        _ => {
            *held = Some((seen, now));
            false
        }
    }
}
