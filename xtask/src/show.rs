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
        let spinners = Arc::new(Mutex::new(BTreeMap::new()));
        let listener: Listener = {
            let bars = bars.clone();
            Arc::new(move |event| at_terminal(&bars, &spinners, event))
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

fn at_terminal(bars: &MultiProgress, spinners: &Mutex<BTreeMap<String, ProgressBar>>, event: Event) {
    let mut spinners = spinners.lock().unwrap_or_else(PoisonError::into_inner);
    match event {
        Event::Doing { who, what, last } => {
            let bar = spinners.entry(who.clone()).or_insert_with(|| {
                let bar = bars.add(ProgressBar::new_spinner());
                if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed:>4} {prefix}: {wide_msg}") {
                    bar.set_style(style);
                }
                bar.set_prefix(who);
                bar.enable_steady_tick(Duration::from_millis(120));
                bar
            });
            bar.set_message(if last.is_empty() { what } else { format!("{what}: {last}") });
        }
        Event::Case { id, words } => {
            let _ = bars.println(format!("{id}: {words}"));
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

/// Above this many cases plain lines tell of cases alone.
const MANY: usize = 40;

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
            if state.cases > MANY && (words.starts_with("passed") || words.starts_with("skipped")) {
                return;
            }
            format!("[{}/{}] {id}: {words}", state.ended, state.cases)
        }
        Event::Ended { .. } => return,
    };
    let _ = writeln!(std::io::stderr(), "{line}");
}
