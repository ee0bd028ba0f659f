//! Looking: the questions that scenarios ask, each until its answer can be believed.

mod audit;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use catwalk_fixtures::pki::LeafRequest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::audit::Audit;
use crate::environment::{Environment, LookError, Reached};
use crate::judge::{EVENT_STREAM, Judgement, judge, words};
use crate::probe::{self, call, http, tls};
use crate::progress::Teller;
use crate::sight::{Push, Said, Sight, Wanted};
use crate::timing::Stopwatch;
use crate::verdict::Verdict;
use crate::wait::{GaveUp, Probe, wait_for};

/// A place from which a scenario looks at one Calico.
pub struct Place {
    env: Arc<dyn Environment>,
    canary: String,
    teller: Teller,
    stopwatch: Stopwatch,
    deadline: Instant,
}

/// What a scenario found: the judgement and the sight that it rests on.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// Of which run and case it is, `RUN/ID`: a finding says nothing of another. Empty until the run says it.
    #[serde(default)]
    pub of: String,
    /// What it comes to.
    pub judgement: Judgement,
    /// What was seen of Whisker and Goldmane; none where nothing could be.
    pub sight: Option<Sight>,
    /// What was seen of rendered objects; none where they were not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
}

/// A question to Whisker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// `GET /flows`
    List,
    /// `GET /flows-filter-hints`
    Hints,
    /// `GET /flows?watch=true`
    Watch,
}

impl Question {
    /// The path, and how long its answer may take beyond the pace's own limit.
    fn path(self, wanted: &Wanted) -> String {
        let ns = &wanted.source_namespace;
        let filter = format!(r#"{{"source_namespaces":[{{"value":"{ns}","type":"Exact"}}]}}"#);
        let filter: String = url::form_urlencoded::byte_serialize(filter.as_bytes()).collect();
        match self {
            Self::List => format!("/flows?filters={filter}"),
            Self::Hints => format!("/flows-filter-hints?type=SourceNamespace&filters={filter}"),
            // From two minutes back, so that Goldmane sends what it has before what will come.
            Self::Watch => format!("/flows?watch=true&startTimeGte=-120&filters={filter}"),
        }
    }
}

impl Place {
    /// `canary` is unique to the case; after `deadline` a verdict is believed that time may still have cured.
    pub fn new(
        env: Arc<dyn Environment>,
        canary: String,
        teller: Teller,
        stopwatch: Stopwatch,
        deadline: Instant,
    ) -> Self {
        Self { env, canary, teller, stopwatch, deadline }
    }

    /// Pushes a canary flow to Goldmane and asks Whisker until the answer shows it, or shows what is broken.
    pub async fn push_and_ask(&self, question: Question) -> Result<Finding, LookError> {
        let wanted = Wanted { source_namespace: self.canary.clone(), source_name: self.canary.clone() };
        self.ask(question, &wanted, true).await
    }

    /// Sends traffic between two pods and asks Whisker until it shows the flow that calico-node reports.
    pub async fn send_traffic_and_ask(&self, question: Question) -> Result<Finding, LookError> {
        let (source_namespace, source_name) = self.env.send_traffic().await?;
        self.ask(question, &Wanted { source_namespace, source_name }, false).await
    }

    async fn ask(&self, question: Question, wanted: &Wanted, push: bool) -> Result<Finding, LookError> {
        let pace = self.env.pace();
        let held: Mutex<Option<(Verdict, Instant)>> = Mutex::default();
        let newest: Mutex<Option<(Judgement, Sight)>> = Mutex::default();
        // Since when Calico is waited for: from the first look at something that time may cure.
        let waiting: Mutex<Option<u64>> = Mutex::default();
        let rested = AtomicBool::new(false);
        let tell = self.teller.as_tell();
        let deadline = self.deadline;
        let what = format!("Whisker's answer to {question:?}");
        // The last look may begin just before the deadline and has its own limits.
        let hard = deadline.max(Instant::now()) + pace.answer + 6 * pace.step;
        let ended = wait_for(&what, hard, pace.every, &tell, || {
            let (newest, held, waiting, rested) = (&newest, &held, &waiting, &rested);
            // Of a wait's many looks the first is timed.
            let stopwatch =
                if lock(waiting).is_some() { Stopwatch::default() } else { self.stopwatch.clone() };
            let look = self.look(question, wanted, push, stopwatch);
            async move {
                let mut sight = look.await;
                let mut judgement = judge(&sight);
                // Of a cluster that is on its way somewhere, nothing is believed but that it delivers.
                if !matches!(judgement.verdict, Verdict::Delivered { .. })
                    && !rested.swap(true, Ordering::Relaxed)
                {
                    let resting = self.env.come_to_rest();
                    self.stopwatch.part("come to rest", true, resting).await;
                    sight = self.look(question, wanted, push, Stopwatch::default()).await;
                    judgement = judge(&sight);
                }
                if judgement.verdict.may_pass() {
                    lock(waiting).get_or_insert(self.stopwatch.now_ms());
                }
                let done = settled(&judgement, &mut lock(held), pace.settle, deadline);
                let status = judgement.disagreement.clone().unwrap_or_else(|| judgement.verdict.to_string());
                *lock(newest) = Some((judgement, sight));
                if done { Probe::Done(()) } else { Probe::NotYet(status) }
            }
        })
        .await;
        if let Some(since) = *lock(&waiting) {
            self.stopwatch.note("Calico still on its way", true, since);
        }
        let last = match ended {
            Ok(()) => String::new(),
            Err(GaveUp::TimedOut { last, .. }) => last,
            Err(GaveUp::Never { why, .. }) => why,
        };
        Ok(match newest.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((judgement, sight)) => {
                Finding { of: String::new(), judgement, sight: Some(sight), audit: None }
            }
            None => Finding {
                of: String::new(),
                judgement: Judgement {
                    verdict: Verdict::TimedOut { last },
                    disagreement: None,
                    further_defects: Vec::new(),
                },
                sight: None,
                audit: None,
            },
        })
    }

    /// One look: push, dial, ask, read the log.
    async fn look(&self, question: Question, wanted: &Wanted, push: bool, stopwatch: Stopwatch) -> Sight {
        let env = &*self.env;
        let pace = env.pace();
        let at = probe::now();
        let pushed = if push { Some(stopwatch.part("push", false, self.push(wanted)).await) } else { None };
        let dial = match env.whisker_side().await {
            Ok(side) => stopwatch.part("dial", false, probe::dial(env, &side)).await,
            Err(e) => probe::no_dial(env, e.to_string()),
        };
        let before = env.whisker_log().await;
        let asked = Instant::now();
        let whisker = match timeout(pace.step, env.connect_whisker()).await {
            Ok(Ok(door)) => {
                let left = self.deadline.saturating_duration_since(asked);
                let limit = if question == Question::Watch { left + pace.answer } else { pace.answer };
                let enough = |body: &str| question == Question::Watch && shows(body, wanted);
                http::get(door, &question.path(wanted), limit, enough).await
            }
            Ok(Err(e)) => Said::NotThere(e.to_string()),
            Err(_) => Said::NotThere(format!("no connection to Whisker within {} ms", pace.step.as_millis())),
        };
        let after_ms = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
        stopwatch.note("ask", false, stopwatch.now_ms().saturating_sub(after_ms));
        let (log, log_not_seen) = match before {
            Ok(before) => stopwatch.part("read log", false, self.log_since(&before, &whisker)).await,
            Err(e) => (Vec::new(), Some(e.to_string())),
        };
        Sight { at, wanted: wanted.clone(), pushed, dial, whisker, log, log_not_seen, after_ms }
    }

    /// Pushes the canary with a certificate that the cluster's authority issues for it.
    ///
    /// Goldmane's own certificate is taken as it is: whether Whisker may trust it is the dial's question.
    async fn push(&self, wanted: &Wanted) -> Push {
        let step = self.env.pace().step;
        let pushed = timeout(2 * step, async {
            let identity = self
                .env
                .issue(&LeafRequest::client(&wanted.source_name))
                .await?
                .identity()
                .map_err(LookError::while_("reading the certificate just issued"))?;
            let stream = match self.env.connect_goldmane(None).await? {
                Reached::Open(stream) => stream,
                Reached::Refused => return Ok(Push::Failed("connection refused".to_owned())),
                Reached::TimedOut => return Ok(Push::Failed("connection timed out".to_owned())),
            };
            let shaken = tls::handshake(stream, "goldmane.calico-system.svc", &identity).await;
            Ok::<_, LookError>(match shaken.stream {
                Some(stream) => call::push(stream, wanted).await,
                None => Push::Failed(format!("TLS handshake: {:?}", shaken.end)),
            })
        });
        match pushed.await {
            Ok(Ok(push)) => push,
            Ok(Err(e)) => Push::Failed(e.to_string()),
            Err(_) => Push::Failed(format!("no receipt within {} ms", 2 * step.as_millis())),
        }
    }

    /// The lines that Whisker logged since `before`, or why they could not be read. Where it says that its call
    /// failed, the reason may reach the log a moment later than the answer reaches us.
    async fn log_since(&self, before: &str, whisker: &Said) -> (Vec<String>, Option<String>) {
        let gone = match whisker {
            Said::Answer { status, .. } => *status >= 502,
            Said::NotThere(_) => true,
            Said::Silent(_) => false,
        };
        let expects_reason = match whisker {
            Said::Answer { body, content_type, .. } => {
                body.contains("\"error\"") || (body.is_empty() && content_type.starts_with(EVENT_STREAM))
            }
            Said::NotThere(_) | Said::Silent(_) => false,
        };
        let read: Mutex<Result<Vec<String>, String>> = Mutex::new(Err("no answer".to_owned()));
        let deadline = Instant::now() + self.env.pace().step;
        // Where no reason comes, what was read last is the log.
        let _ = wait_for("Whisker's log", deadline, Duration::from_millis(50), &|_, _| {}, || {
            let read = &read;
            async move {
                let text = match self.env.whisker_log().await {
                    Ok(text) => text,
                    Err(e) => {
                        *lock(read) = Err(e.to_string());
                        return Probe::NotYet(e.to_string());
                    }
                };
                // A new process starts a new log.
                let new = text.strip_prefix(before).unwrap_or(&text);
                let speaks = words::admitted(new.lines()).is_some();
                *lock(read) = Ok(new.lines().map(str::to_owned).collect());
                if speaks || !expects_reason {
                    Probe::Done(())
                } else {
                    Probe::NotYet("no reason yet".to_owned())
                }
            }
        })
        .await;
        match read.into_inner().unwrap_or_else(PoisonError::into_inner) {
            // Of a process that ended, the last words may be old.
            Ok(lines) if gone && lines.is_empty() => (before.lines().map(str::to_owned).collect(), None),
            Ok(lines) => (lines, None),
            Err(why) => (Vec::new(), Some(why)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn shows(body: &str, wanted: &Wanted) -> bool {
    body.contains(&wanted.source_namespace) && body.ends_with('\n')
}

/// Whether a judgement can be believed now.
///
/// Delivered is, when both witnesses agree. What only a change of the deployment can cure is, once it has held for
/// the settling time. What time may cure is, when the deadline has passed.
fn settled(
    judgement: &Judgement,
    held: &mut Option<(Verdict, Instant)>,
    settle: Duration,
    deadline: Instant,
) -> bool {
    let verdict = &judgement.verdict;
    let now = Instant::now();
    if now >= deadline {
        return true;
    }
    if judgement.disagreement.is_some() {
        *held = None;
        return false;
    }
    if matches!(verdict, Verdict::Delivered { .. }) {
        return true;
    }
    match held {
        Some((earlier, since)) if earlier.same_finding(verdict) => {
            !verdict.may_pass() && now.duration_since(*since) >= settle
        }
        _ => {
            *held = Some((verdict.clone(), now));
            false
        }
    }
}
