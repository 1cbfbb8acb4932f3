//! Registering payout addresses.

use alloy::sol_types::SolCall;
use contracts::Settlement;
use ledger::book::Obligation;

use super::{Relayer, Report, View, bisection::Bisection, send::Worth};
use crate::Result;

/// Most registrations in one transaction.
const BATCH_REGISTRATIONS: usize = 150;

impl Relayer {
    /// Registers payout addresses that have no number yet; one that another number pays to has none of its own. One that the
    /// contract refuses keeps none of the others.
    pub(super) async fn register(&self, view: &View, report: &mut Report) -> Result<()> {
        let mut addresses = self.reader.unregistered_payees().await?;
        if let Some(operator) = self.config.policy.operator_payout
            && !self.reader.is_registered(operator).await?
        {
            // It may own machines as well.
            addresses.retain(|address| *address != operator);
            addresses.insert(0, operator);
        }
        let contract = self.config.chain.contract;
        addresses
            .retain(|address| *address != contract && !view.busy.registrations.contains(address));
        if view.is_frozen() {
            return Ok(());
        }
        for addresses in addresses.chunks(BATCH_REGISTRATIONS) {
            if !self.has_room(view, 0, report, "a register batch") {
                return Ok(());
            }
            let mut bisection = Bisection::new(addresses.to_vec());
            while let Some(group) = bisection.next() {
                let input = Settlement::registerCall { payouts: group.to_vec() }.abi_encode();
                match self.sender.gas_limit(&input.into(), view.block()).await? {
                    Ok(_) => bisection.pass(),
                    Err(reason) => bisection.fail(reason),
                }
            }
            for (address, reason) in bisection.poison {
                let subject = format!("the registration of {address}");
                self.wait(report, view.now, &subject, &reason);
            }
            let addresses: Vec<_> = bisection.passed.concat();
            if addresses.is_empty() {
                continue;
            }
            let input = Settlement::registerCall { payouts: addresses.clone() }.abi_encode();
            let obligation = Obligation::Register(addresses);
            self.send(view, &obligation, input.into(), &Worth::default(), report).await?;
        }
        Ok(())
    }
}
