//! Trying again after a failure that may pass: exponential backoff with a bound.

use anyhow::Result;
use std::time::Duration;

/// How long and how often a fetch goes on before it is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How often opening an image is tried in all.
    pub attempts: u32,
    /// How often the rest of an image that could be opened is tried in all: its source is known to work.
    pub resumptions: u32,
    /// The pause before the second attempt; it doubles before each further one.
    pub first_pause: Duration,
    /// A layer that brings no byte for so long counts as broken off.
    pub stall: Duration,
    /// A layer that brings no byte for so long makes us ask skopeo whether it still fetches: an old skopeo does
    /// not tell by itself that a transfer ended early.
    pub ask_after: Duration,
    /// Any other request that brings no answer for so long counts as failed.
    pub answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            attempts: 4,
            resumptions: 7,
            first_pause: Duration::from_millis(500),
            stall: Duration::from_secs(60),
            ask_after: Duration::from_secs(3),
            answer: Duration::from_secs(120),
        }
    }
}

/// Why an attempt failed, and whether another one may help.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Trying again gives the same result.
    Final(anyhow::Error),
    /// It may pass.
    Transient(anyhow::Error),
}

impl Failure {
    /// Returns a final failure.
    pub(crate) fn last(error: impl Into<anyhow::Error>) -> Self {
        Self::Final(error.into())
    }

    /// Returns a failure that may pass.
    pub(crate) fn transient(error: impl Into<anyhow::Error>) -> Self {
        Self::Transient(error.into())
    }
}

/// The attempts at one piece of work; counts them and waits between them.
#[derive(Debug)]
pub(crate) struct Attempts {
    allowed: u32,
    first_pause: Duration,
    made: u32,
}

impl Attempts {
    /// Returns the attempts at opening an image.
    pub(crate) fn at_opening(limits: &Limits) -> Self {
        Self {
            allowed: limits.attempts,
            first_pause: limits.first_pause,
            made: 0,
        }
    }

    /// Returns the attempts at what comes after opening.
    pub(crate) fn at_resuming(limits: &Limits) -> Self {
        Self {
            allowed: limits.resumptions,
            ..Self::at_opening(limits)
        }
    }

    /// Takes note of a failed attempt: waits when another one is due, else returns the error.
    pub(crate) async fn failed(&mut self, failure: Failure) -> Result<()> {
        tokio::time::sleep(self.pause(failure)?).await;
        Ok(())
    }

    /// Does on a plain thread what [`Attempts::failed`] does.
    pub(crate) fn failed_on_thread(&mut self, failure: Failure) -> Result<()> {
        std::thread::sleep(self.pause(failure)?);
        Ok(())
    }

    /// Returns how long to wait before the next attempt, or the error when none is due.
    fn pause(&mut self, failure: Failure) -> Result<Duration> {
        self.made += 1;
        match failure {
            Failure::Transient(error) if self.made < self.allowed => {
                let pause = self.first_pause * 2u32.saturating_pow(self.made - 1);
                tracing::info!(
                    "attempt {} failed, trying again in {pause:?}: {error:#}",
                    self.made
                );
                Ok(pause)
            }
            Failure::Transient(error) | Failure::Final(error) => Err(error),
        }
    }

    /// Forgets failures: work that moves on is not given up for hiccups far apart.
    pub(crate) fn progressed(&mut self) {
        self.made = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const LIMITS: Limits = Limits {
        attempts: 3,
        resumptions: 3,
        first_pause: Duration::from_millis(10),
        stall: Duration::from_secs(1),
        ask_after: Duration::from_secs(1),
        answer: Duration::from_secs(1),
    };

    #[tokio::test]
    async fn transient_failures_are_bounded_and_pauses_grow() {
        let mut attempts = Attempts::at_opening(&LIMITS);
        let start = Instant::now();
        let failure = || Failure::transient(anyhow::anyhow!("no luck"));
        attempts.failed(failure()).await.unwrap();
        attempts.failed(failure()).await.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(30));
        attempts.failed(failure()).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_final_failure_ends_at_once() {
        let mut attempts = Attempts::at_opening(&LIMITS);
        attempts
            .failed(Failure::last(anyhow::anyhow!("never")))
            .await
            .unwrap_err();
    }
}
