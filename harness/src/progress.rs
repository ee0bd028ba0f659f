//! What a run tells while it goes on. Whoever shows it is not this crate's business.

use std::sync::Arc;

/// Something to tell.
#[derive(Clone, Debug)]
pub enum Event {
    /// An environment waits, or does something.
    Doing {
        /// The environment's id, or the run's part that is common to all.
        who: String,
        /// What is waited for or done.
        what: String,
        /// What was last seen.
        last: String,
    },
    /// A case ended.
    Case {
        /// Its id.
        id: String,
        /// Its outcome and verdict in words.
        words: String,
    },
    /// An environment has ended.
    Ended {
        /// The environment's id.
        who: String,
    },
}

/// Receives events; must not block.
pub type Listener = Arc<dyn Fn(Event) + Send + Sync>;

/// Tells of one environment.
#[derive(Clone)]
pub struct Teller {
    who: String,
    listener: Listener,
}

impl Teller {
    /// Tells of `who`.
    pub fn new(who: impl Into<String>, listener: Listener) -> Self {
        Self { who: who.into(), listener }
    }

    /// Tells nobody.
    pub fn silent() -> Self {
        Self::new("", Arc::new(|_| {}))
    }

    /// What is being done, with what was last seen.
    pub fn tell(&self, what: &str, last: &str) {
        (self.listener)(Event::Doing { who: self.who.clone(), what: what.to_owned(), last: last.to_owned() });
    }

    /// A closure for [`crate::wait::wait_for`].
    pub fn as_tell(&self) -> impl Fn(&str, &str) + Send + Sync + use<> {
        let this = self.clone();
        move |what, last| this.tell(what, last)
    }
}
