//! What is known of one endpoint: its state, its head, and how long it is left alone.

use std::{fmt, time::Duration};

use ledger::chain::Block;
use serde::Serialize;
use tokio::time::Instant;

/// Longest that a failing endpoint is left alone.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Longest that an endpoint that asks for patience without saying how much is left alone.
const LONGEST_PATIENCE: Duration = Duration::from_secs(30);
/// Longest that an endpoint is left alone, however long it asks for.
const MOST_PATIENCE: Duration = Duration::from_secs(600);
/// The first pause of an endpoint that asks for patience.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);
/// The first pause of one that fails; each failure after it doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Blocks of the first log range.
const FIRST_SPAN: u64 = 2_000;
/// How many ranges get through below a width that was refused before as wide a one is asked for again.
const CONTENT: u32 = 16;
/// Most blocks of a log range.
const MAX_SPAN: u64 = 10_000;

/// How far an endpoint can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// It answers, and agrees on the final block.
    Ok,
    /// It answers, but trails the others, or does not know the agreed final block yet.
    Lagging,
    /// It asked for patience.
    RateLimited,
    /// It does not answer, or with garbage.
    Down,
    /// It serves another chain.
    WrongChain,
    /// It contradicted a final block, or served logs that do not verify. Stays until an operator clears it.
    Lying,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "OK",
            Self::Lagging => "LAGGING",
            Self::RateLimited => "RATE_LIMITED",
            Self::Down => "DOWN",
            Self::WrongChain => "WRONG_CHAIN",
            Self::Lying => "LYING",
        })
    }
}

/// How a request ended, as far as the endpoint's health goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer, which may be an error that the request deserved.
    Answered,
    /// A request for patience, with its length if it was named.
    RateLimited(Option<Duration>),
    /// No answer, or garbage.
    Failed(String),
}

/// What is known of one endpoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health {
    /// Why it counts as lying.
    pub(crate) lie: Option<String>,
    /// Which other chain it serves.
    pub(crate) wrong_chain: Option<String>,
    /// Whether its chain has been looked at since it last failed.
    pub(crate) is_identified: bool,
    pub(crate) latest: Option<Block>,
    pub(crate) finalised: Option<u64>,
    /// Whether it has the agreed final block; `None` before anything was agreed on.
    pub(crate) agrees: Option<bool>,
    /// Blocks behind what enough operators have.
    pub(crate) lag: u64,
    pub(crate) last_error: Option<String>,
    is_rate_limited: bool,
    failures: u32,
    retry_at: Option<Instant>,
    span: Option<u64>,
    /// Width of a log range that was refused last, and how many more are to get through below it.
    refused: Option<(u64, u32)>,
    /// Requests that it does not serve.
    unserved: Vec<&'static str>,
}

/// Blocks that an endpoint may trail the others and still be asked.
pub(crate) const TOLERATED_LAG: u64 = 3;

impl Health {
    pub(crate) fn state(&self) -> State {
        match () {
            () if self.lie.is_some() => State::Lying,
            () if self.wrong_chain.is_some() => State::WrongChain,
            () if self.is_rate_limited => State::RateLimited,
            () if self.failures > 0 => State::Down,
            () if self.lag > TOLERATED_LAG || self.agrees == Some(false) => State::Lagging,
            () => State::Ok,
        }
    }

    /// Whether it may be asked at all: never while it lies or serves another chain.
    pub(crate) const fn is_trusted(&self) -> bool {
        self.lie.is_none() && self.wrong_chain.is_none()
    }

    /// Whether its chain may be looked at once more: a gateway may have sent one request astray.
    pub(crate) fn is_worth_another_look(&self, now: Instant) -> bool {
        let is_time = self.retry_at.is_none_or(|at| at <= now);
        self.lie.is_none() && self.wrong_chain.is_some() && is_time
    }

    /// Whether it may be asked now.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.is_trusted() && self.retry_at.is_none_or(|at| at <= now)
    }

    /// Until when it asked to be left alone, if it did and may be asked at all.
    pub(crate) fn patience_ends(&self) -> Option<Instant> {
        self.retry_at.filter(|_| self.is_rate_limited && self.is_trusted())
    }

    /// Takes note of how a request ended.
    pub(crate) fn note(&mut self, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Answered => {
                (self.failures, self.is_rate_limited, self.retry_at) = (0, false, None);
                return;
            }
            Outcome::RateLimited(patience) => {
                self.is_rate_limited = true;
                let pause = self.patience(patience);
                self.retry_at = now.checked_add(pause);
                self.last_error = Some(format!("it asked to be left alone for {pause:?}"));
            }
            Outcome::Failed(reason) => {
                self.is_rate_limited = false;
                self.is_identified = false;
                let pause = FIRST_PAUSE.saturating_mul(self.times()).min(LONGEST_PAUSE);
                self.retry_at = now.checked_add(pause);
                self.last_error = Some(reason);
            }
        }
        self.failures = self.failures.saturating_add(1);
    }

    /// How long it is left alone if it asks for patience now, for as long as it names or without saying how long.
    pub(crate) fn patience(&self, named: Option<Duration>) -> Duration {
        let pause = FIRST_PATIENCE.saturating_mul(self.times()).min(LONGEST_PATIENCE);
        named.unwrap_or(pause).min(MOST_PATIENCE)
    }

    /// How many times the first pause the next one is.
    fn times(&self) -> u32 {
        1 << self.failures.min(10)
    }

    /// Blocks that a log range may have.
    pub(crate) fn span(&self) -> u64 {
        self.span.unwrap_or(FIRST_SPAN)
    }

    /// An eighth wider, once enough ranges got through below a width that was refused: most then stay below the limit.
    pub(crate) fn widen(&mut self) {
        let span = self.span();
        let wider = (span + span / 8 + 1).min(MAX_SPAN);
        match &mut self.refused {
            Some((refused, left)) if wider >= *refused && *left > 0 => *left -= 1,
            _ => self.span = Some(wider),
        }
    }

    /// Half as wide, or as wide as the refusal says.
    pub(crate) fn narrow(&mut self, asked: u64, hint: Option<u64>) {
        let half = (asked / 2).max(1);
        // Of one block, it was not the width.
        if asked > 1 {
            self.refused = Some((asked, CONTENT));
        }
        self.span = Some(hint.filter(|hint| (1..asked).contains(hint)).unwrap_or(half));
    }

    /// Whether a request is worth asking.
    pub(crate) fn serves(&self, request: &'static str) -> bool {
        !self.unserved.contains(&request)
    }

    pub(crate) fn does_not_serve(&mut self, request: &'static str) {
        if self.serves(request) {
            self.unserved.push(request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lie_outlives_every_answer() {
        let mut health = Health { lie: Some("it did".into()), ..Health::default() };
        health.note(Outcome::Answered, Instant::now());
        assert_eq!(health.state(), State::Lying);
        assert!(!health.is_due(Instant::now()));
    }

    #[test]
    fn patience_is_given_as_long_as_it_was_asked_for_within_reason() {
        let (mut health, now) = (Health::default(), Instant::now());
        health.note(Outcome::RateLimited(Some(Duration::from_secs(7))), now);
        assert_eq!(health.state(), State::RateLimited);
        assert!(!health.is_due(now + Duration::from_millis(6_999)));
        assert!(health.is_due(now + Duration::from_secs(7)));
        health.note(Outcome::Answered, now);
        assert_eq!(health.state(), State::Ok);
        health.note(Outcome::RateLimited(Some(Duration::from_secs(86_400))), now);
        assert!(health.is_due(now + MOST_PATIENCE));
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        let (mut health, now) = (Health::default(), Instant::now());
        for expected in [250, 500, 1_000, 2_000, 4_000, 5_000, 5_000] {
            health.note(Outcome::Failed("silence".into()), now);
            assert!(!health.is_due(now + Duration::from_millis(expected - 1)), "{expected}");
            assert!(health.is_due(now + Duration::from_millis(expected)), "{expected}");
        }
    }

    #[test]
    fn ranges_are_halved_or_follow_the_hint_and_grow_slowly() {
        let mut health = Health::default();
        health.narrow(2_000, None);
        assert_eq!(health.span(), 1_000);
        health.narrow(1_000, Some(500));
        assert_eq!(health.span(), 500);
        health.narrow(500, Some(500));
        assert_eq!(health.span(), 250, "a hint that does not narrow is no help");
        health.narrow(1, Some(0));
        assert_eq!(health.span(), 1);
        health.widen();
        assert_eq!(health.span(), 2);

        health.narrow(563, Some(500));
        for _ in 0..CONTENT {
            health.widen();
            assert_eq!(health.span(), 500, "it is content for a while");
        }
        health.widen();
        assert_eq!(health.span(), 563);
    }
}
