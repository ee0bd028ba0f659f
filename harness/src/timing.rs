//! How long the parts of an environment took.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One part.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Span {
    /// What was done.
    pub part: String,
    /// Milliseconds from the environment's start.
    pub start_ms: u64,
    /// Milliseconds from the environment's start.
    pub end_ms: u64,
    /// Whether somebody else was waited for: cluster creation, image loading, readiness.
    pub waiting: bool,
}

/// A stopwatch that many hold.
#[derive(Clone, Debug)]
pub struct Stopwatch {
    start: Instant,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Default for Stopwatch {
    fn default() -> Self {
        Self { start: Instant::now(), spans: Arc::default() }
    }
}

impl Stopwatch {
    /// Runs one part and notes how long it took, whatever came of it.
    pub async fn part<T>(&self, part: &str, waiting: bool, work: impl Future<Output = T>) -> T {
        let start_ms = self.now_ms();
        let done = work.await;
        self.note(part, waiting, start_ms);
        done
    }

    /// Notes a part that began at `start_ms` and ends now.
    pub fn note(&self, part: &str, waiting: bool, start_ms: u64) {
        let span = Span { part: part.to_owned(), start_ms, end_ms: self.now_ms(), waiting };
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).push(span);
    }

    /// The parts so far.
    pub fn spans(&self) -> Vec<Span> {
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone();
        spans.sort_by_key(|span| (span.start_ms, span.end_ms));
        spans
    }

    /// Milliseconds since the start.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Milliseconds of `total_ms` in which nobody else was waited for.
pub fn added_ms(total_ms: u64, spans: &[Span]) -> u64 {
    let mut waits: Vec<(u64, u64)> =
        spans.iter().filter(|s| s.waiting).map(|s| (s.start_ms, s.end_ms)).collect();
    waits.sort_unstable();
    let (mut covered, mut until) = (0, 0);
    for (start, end) in waits {
        let start = start.max(until);
        if end > start {
            covered += end - start;
            until = end;
        }
    }
    total_ms.saturating_sub(covered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_that_overlap_count_once() {
        let span = |start_ms, end_ms, waiting| Span { part: String::new(), start_ms, end_ms, waiting };
        let spans = [
            span(0, 10, true),
            span(5, 20, true),
            span(18, 19, true),
            span(20, 30, false),
            span(40, 50, true),
        ];
        assert_eq!(added_ms(60, &spans), 30);
        assert_eq!(added_ms(60, &[]), 60);
    }
}
