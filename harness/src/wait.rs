//! The one place that waits.

use std::future::Future;
use std::time::{Duration, Instant};

/// The status before the first probe.
pub const NOTHING_YET: &str = "nothing yet";

/// What one probe of a wait found.
#[derive(Debug)]
pub enum Probe<T> {
    /// It is there.
    Done(T),
    /// Not yet; what was seen instead.
    NotYet(String),
    /// It cannot come any more; why.
    Never(String),
}

/// How a wait ended without its object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GaveUp {
    /// The deadline passed.
    #[error("waited {} s for {what}; last seen: {last}", waited.as_secs())]
    TimedOut {
        /// What was waited for.
        what: String,
        /// For how long.
        waited: Duration,
        /// The last status.
        last: String,
    },
    /// It cannot come.
    #[error("{what} will not come: {why}")]
    Never {
        /// What was waited for.
        what: String,
        /// Why not.
        why: String,
    },
}

/// Receives "what is waited for" and "what was last seen", whenever either changes.
pub type Tell<'a> = &'a (dyn Fn(&str, &str) + Send + Sync);

/// The pause of something that goes on until it is dropped, and so waits for nothing.
pub async fn tick(every: Duration) {
    tokio::time::sleep(every).await;
}

/// Probes until it is done, can never be, or the deadline has passed; a probe that hangs ends with the deadline.
///
/// The first probe is made at once, the next `every` after the one before has ended.
pub async fn wait_for<T, F, Fut>(
    what: &str,
    deadline: Instant,
    every: Duration,
    tell: Tell<'_>,
    mut probe: F,
) -> Result<T, GaveUp>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Probe<T>>,
{
    let started = Instant::now();
    let mut last = String::from(NOTHING_YET);
    tell(what, &last);
    loop {
        match tokio::time::timeout_at(deadline.into(), probe()).await {
            Ok(Probe::Done(value)) => return Ok(value),
            Ok(Probe::Never(why)) => return Err(GaveUp::Never { what: what.to_owned(), why }),
            Ok(Probe::NotYet(status)) => {
                if status != last {
                    tell(what, &status);
                    last = status;
                }
            }
            Err(_) => last = format!("{last} (and no answer since)"),
        }
        if Instant::now() + every >= deadline {
            return Err(GaveUp::TimedOut { what: what.to_owned(), waited: started.elapsed(), last });
        }
        tokio::time::sleep(every).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon(ms: u64) -> Instant {
        Instant::now() + Duration::from_millis(ms)
    }

    #[tokio::test]
    async fn a_timeout_says_the_last_status() {
        let mut n = 0;
        let ended = wait_for("the moon", soon(60), Duration::from_millis(5), &|_, _| {}, || {
            n += 1;
            let status = if n < 3 { "rising" } else { "behind clouds" };
            async move { Probe::<()>::NotYet(status.to_owned()) }
        })
        .await;
        let Err(GaveUp::TimedOut { last, .. }) = ended else { panic!("{ended:?}") };
        assert_eq!(last, "behind clouds");
    }

    #[tokio::test]
    async fn a_probe_that_hangs_ends_with_the_deadline() {
        let ended = wait_for("nobody", soon(30), Duration::from_millis(5), &|_, _| {}, || {
            std::future::pending::<Probe<()>>()
        })
        .await;
        assert!(matches!(ended, Err(GaveUp::TimedOut { .. })), "{ended:?}");
    }

    #[tokio::test]
    async fn never_ends_at_once() {
        let started = Instant::now();
        let ended = wait_for("a pod", soon(10_000), Duration::from_secs(5), &|_, _| {}, || async {
            Probe::<()>::Never("its image cannot be pulled".to_owned())
        })
        .await;
        assert!(started.elapsed() < Duration::from_secs(1));
        assert_eq!(ended.unwrap_err().to_string(), "a pod will not come: its image cannot be pulled");
    }
}
