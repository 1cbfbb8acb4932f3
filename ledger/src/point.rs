//! Places at which tests end a process or a run: around every commit and every call that leaves the process.
//!
//! Without the feature `crash-points` nothing of this is compiled in but an empty function. With it, a process ends itself
//! at the place that `QUITTANCE_CRASH_AT` names (`commit settle:before:2` is the second time that the place before the
//! commit `settle` is reached), and a test may hang its own observer onto its thread, and its own clock.

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

#[cfg(feature = "crash-points")]
pub use armed::{Observer, now, observe, reach, set_clock};

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

    /// Place and count at which the process is to end.
    static TARGET: LazyLock<Option<(String, u32)>> = LazyLock::new(|| {
        let text = std::env::var("QUITTANCE_CRASH_AT").ok()?;
        let (place, count) = text.rsplit_once(':')?;
        Some((place.to_owned(), count.parse().ok()?))
    });

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
    /// without any cleaning up if it is the one.
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
        if TARGET.as_ref().is_some_and(|(wanted, at)| *wanted == place && at == count) {
            std::process::abort();
        }
    }
}
