//! Places at which tests end a process or a run: around every commit and every call that leaves the process.
//!
//! Without the feature `crash-points` nothing of this is compiled in but an empty function. With it, a process ends itself
//! at the place that `QUITTANCE_CRASH_AT` names (`commit settle:before:2` is the second time that the place before the
//! commit `settle` is reached), panics at the one that `QUITTANCE_PANIC_AT` names, and a test may hang its own observer onto its
//! thread, and its own clock.

/// On which side of what it names a place lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Nothing has happened yet.
    Before,
    /// It has happened, and nobody has been told.
    After,
}

/// Says that the run has come to a place. `name` is what is done there: `commit take-in`, `rpc eth_getLogs`.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub fn reach(_name: &str, _side: Side) -> std::future::Ready<()> {
    std::future::ready(())
}

/// The time by which pauses and ages are measured.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// Waits for so long.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub async fn pause(duration: std::time::Duration) {
    tokio::time::sleep(duration).await;
}

#[cfg(feature = "crash-points")]
pub use armed::{Observer, now, observe, pause, reach, set_clock};

#[cfg(feature = "crash-points")]
mod armed {
    use std::{
        cell::{Cell, RefCell},
        collections::BTreeMap,
        rc::Rc,
        sync::{LazyLock, Mutex},
    };

    use tokio::time::Instant;

    use super::Side;

    /// Hears of each place on its thread; an answer of true ends the run there: its future never goes on.
    pub type Observer = Rc<dyn Fn(&str, Side) -> bool>;

    thread_local! {
        static OBSERVER: RefCell<Option<Observer>> = const { RefCell::new(None) };
        static CLOCK: Cell<Option<Instant>> = const { Cell::new(None) };
    }

    /// A place, and how often it has to be reached.
    type Target = Option<(String, u32)>;

    /// Where the process is to end.
    static END: LazyLock<Target> = LazyLock::new(|| target("QUITTANCE_CRASH_AT"));

    /// Where the task is to panic.
    static PANIC: LazyLock<Target> = LazyLock::new(|| target("QUITTANCE_PANIC_AT"));

    fn target(variable: &str) -> Target {
        let text = std::env::var(variable).ok()?;
        let (place, count) = text.rsplit_once(':')?;
        Some((place.to_owned(), count.parse().ok()?))
    }

    static REACHED: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());

    /// Hangs an observer onto this thread, or takes it off.
    pub fn observe(observer: Option<Observer>) {
        OBSERVER.with(|slot| *slot.borrow_mut() = observer);
    }

    /// Stops this thread's clock at an instant, or lets it run again.
    pub fn set_clock(now: Option<Instant>) {
        CLOCK.set(now);
    }

    /// The time by which pauses and ages are measured.
    pub fn now() -> Instant {
        CLOCK.get().unwrap_or_else(Instant::now)
    }

    /// Waits for so long; not at all while this thread's clock is stopped.
    pub async fn pause(duration: std::time::Duration) {
        if CLOCK.get().is_none() {
            tokio::time::sleep(duration).await;
        }
    }

    /// Says that the run has come to a place.
    pub async fn reach(name: &str, side: Side) {
        end_process_if_asked(name, side);
        let observer = OBSERVER.with(|slot| slot.borrow().clone());
        let is_end = observer.is_some_and(|observer| observer(name, side));
        if is_end {
            std::future::pending::<()>().await;
        }
    }

    /// Counts the place, writes it to the file that `QUITTANCE_CRASH_LOG` names if there is one, and ends the process
    /// without any cleaning up, or the task by a panic, if it is the one.
    #[allow(clippy::panic, reason = "a test has asked for it")]
    fn end_process_if_asked(name: &str, side: Side) {
        let side = match side {
            Side::Before => "before",
            Side::After => "after",
        };
        let place = format!("{name}:{side}");
        let Ok(mut reached) = REACHED.lock() else { std::process::abort() };
        let count = reached.entry(place.clone()).or_default();
        *count += 1;
        if let Some(log) = std::env::var_os("QUITTANCE_CRASH_LOG") {
            use std::io::Write;
            let opened = std::fs::OpenOptions::new().append(true).create(true).open(log);
            if opened.and_then(|mut file| writeln!(file, "{place}:{count}")).is_err() {
                std::process::abort();
            }
        }
        let is_here = |target: &Target| {
            target.as_ref().is_some_and(|(wanted, at)| *wanted == place && at == count)
        };
        if is_here(&END) {
            std::process::abort();
        }
        if is_here(&PANIC) {
            drop(reached);
            panic!("asked to panic at {place}");
        }
    }
}
