//! What can go wrong in one run: half of the kinds, drawn anew for each seed.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// How often each kind of fault strikes, in ten-thousandths; zero for the kinds that are off.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mix {
    /// A request is lost on its way.
    pub(crate) lost: u32,
    /// An answer is lost on its way, after the request was carried out.
    pub(crate) unheard: u32,
    /// Too many requests.
    pub(crate) throttled: u32,
    /// An answer is not JSON-RPC.
    pub(crate) garbled: u32,
    /// `null` instead of what is there.
    pub(crate) null: u32,
    /// A transaction is taken, the answer says no.
    pub(crate) says_no: u32,
    /// A transaction is dropped, the answer says yes.
    pub(crate) says_yes: u32,
    /// A transaction arrives twice.
    pub(crate) twice: u32,
    /// A transaction arrives some steps later.
    pub(crate) late: u32,
    /// A node falls behind for a while.
    pub(crate) stale: u32,
    /// A node is on a branch of its own for a while.
    pub(crate) fork: u32,
    /// One node of three lies about logs and the journal.
    pub(crate) lie: u32,
    /// Another chain id for a while.
    pub(crate) wrong_chain: u32,

    /// A turn is cut somewhere.
    pub(crate) crash: u32,
    /// The pool forgets a transaction.
    pub(crate) forgotten: u32,
    /// Miners leave our transactions out for a while.
    pub(crate) censored: u32,
    /// Gas becomes many times dearer for a while.
    pub(crate) spike: u32,
    /// Blocks are replaced.
    pub(crate) reorg: u32,
    /// Finality stands still for a while.
    pub(crate) stall: u32,
    /// The host's clock jumps.
    pub(crate) clock: u32,
    /// The sending account runs dry.
    pub(crate) dry: u32,
    /// The database is lost, or an older backup stands in its place.
    pub(crate) amnesia: u32,
    /// Somebody else uses the sending account's key.
    pub(crate) foreign: u32,
}

impl Mix {
    /// A mix in which each kind is off with even chances.
    pub(crate) fn draw(rng: &mut ChaCha8Rng) -> Self {
        // Some seeds are calm and some are rough altogether.
        let rough: u32 = rng.random_range(1..=4);
        let mut rate = |most: u32| {
            let rate = rng.random_range(1..=most) * rough / 4 + 1;
            if rng.random_bool(0.5) { rate } else { 0 }
        };
        Self {
            lost: rate(400),
            unheard: rate(400),
            throttled: rate(400),
            garbled: rate(200),
            null: rate(400),
            says_no: rate(2500),
            says_yes: rate(2500),
            twice: rate(2000),
            late: rate(2000),
            stale: rate(100),
            fork: rate(40),
            lie: rate(2000),
            wrong_chain: rate(20),
            crash: rate(2500),
            forgotten: rate(600),
            censored: rate(400),
            spike: rate(300),
            reorg: rate(800),
            stall: rate(200),
            clock: rate(200),
            dry: rate(200),
            amnesia: rate(60),
            foreign: rate(60),
        }
    }

    pub(crate) fn strikes(rate: u32, rng: &mut ChaCha8Rng) -> bool {
        rate > 0 && rng.random_range(0..10_000) < rate
    }
}
