//! Shows what a run does: a spinner per environment at a terminal, plain lines elsewhere.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use catwalk_harness::progress::{Event, Listener};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// The least time between two plain lines that differ only in what was last seen.
const QUIET: Duration = Duration::from_secs(10);

/// A listener, and what takes its lines off the terminal in the end.
pub(crate) fn listener(cases: usize) -> (Listener, impl FnOnce()) {
    if std::io::stderr().is_terminal() {
        let bars = MultiProgress::new();
        let total = bars.add(ProgressBar::new(cases as u64));
        if let Ok(style) = ProgressStyle::with_template("{pos}/{len} cases {elapsed}") {
            total.set_style(style);
        }
        let spinners = Arc::new(Mutex::new(BTreeMap::new()));
        let listener: Listener = {
            let bars = bars.clone();
            Arc::new(move |event| at_terminal(&bars, &total, &spinners, event))
        };
        (listener, Box::new(move || drop(bars.clear())) as Box<dyn FnOnce()>)
    } else {
        let state = Mutex::new(Plain { said: BTreeMap::new(), cases, ended: 0 });
        let listener: Listener = Arc::new(move |event| {
            plain(&mut state.lock().unwrap_or_else(PoisonError::into_inner), event);
        });
        (listener, Box::new(|| ()) as Box<dyn FnOnce()>)
    }
}

fn at_terminal(
    bars: &MultiProgress,
    total: &ProgressBar,
    spinners: &Mutex<BTreeMap<String, ProgressBar>>,
    event: Event,
) {
    let mut spinners = spinners.lock().unwrap_or_else(PoisonError::into_inner);
    match event {
        Event::Doing { who, what, last } => {
            let bar = spinners.entry(who.clone()).or_insert_with(|| {
                let bar = bars.insert_before(total, ProgressBar::new_spinner());
                if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed:>4} {prefix}: {wide_msg}")
                {
                    bar.set_style(style);
                }
                bar.set_prefix(who);
                bar.enable_steady_tick(Duration::from_millis(120));
                bar
            });
            bar.set_message(if last.is_empty() { what } else { format!("{what}: {last}") });
        }
        Event::Case { id, words } => {
            total.inc(1);
            if is_worth_a_line(total.length().unwrap_or(0) as usize, &words) {
                let _ = bars.println(format!("{id}: {words}"));
            }
        }
        Event::Ended { who } => {
            if let Some(bar) = spinners.remove(&who) {
                bar.finish_and_clear();
            }
        }
    }
}

/// What was said in plain lines.
struct Plain {
    said: BTreeMap<String, (String, Instant)>,
    cases: usize,
    ended: usize,
}

/// Above this many cases only those are told of that are neither passed nor skipped.
const MANY: usize = 40;

fn is_worth_a_line(cases: usize, words: &str) -> bool {
    cases <= MANY || !(words.starts_with("passed") || words.starts_with("skipped"))
}

fn plain(state: &mut Plain, event: Event) {
    let line = match event {
        Event::Doing { who, what, last } => {
            if state.cases > MANY {
                return;
            }
            let known = state.said.get(&who);
            if known.is_some_and(|(said, when)| *said == what && when.elapsed() < QUIET) {
                return;
            }
            state.said.insert(who.clone(), (what.clone(), Instant::now()));
            if last.is_empty() { format!("{who}: {what}") } else { format!("{who}: {what}: {last}") }
        }
        Event::Case { id, words } => {
            state.ended += 1;
            if !is_worth_a_line(state.cases, &words) {
                return;
            }
            format!("[{}/{}] {id}: {words}", state.ended, state.cases)
        }
        Event::Ended { .. } => return,
    };
    let _ = writeln!(std::io::stderr(), "{line}");
}
