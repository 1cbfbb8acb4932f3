//! Registering payout addresses.

use alloy::{
    primitives::{Address, Bytes},
    sol_types::SolCall,
};
use contracts::Settlement;
use ledger::book::Obligation;

use super::{Relayer, Report, View, bisection::Bisection, send::Worth};
use crate::{Result, sender::fees::Urgency};

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
                match self.why_not_registered(group, view).await? {
                    None => bisection.pass(),
                    Some(reason) => bisection.fail(reason),
                }
            }
            for (address, reason) in bisection.poison {
                let subject = format!("the registration of {address}");
                self.wait(report, view.now, &subject, &reason);
            }
            let together = bisection.passed.concat();
            let is_refused = self
                .apart()
                .why(&Obligation::Register(together.clone()), view.now, Urgency::Normal)
                .is_some();
            let batches = if is_refused { bisection.passed } else { vec![together] };
            for addresses in batches.into_iter().filter(|batch| !batch.is_empty()) {
                let input = input_of(&addresses);
                let obligation = Obligation::Register(addresses);
                self.send(view, &obligation, input, &Worth::default(), report).await?;
            }
        }
        Ok(())
    }

    /// Why addresses cannot be registered in one transaction, if that is so.
    async fn why_not_registered(&self, group: &[Address], view: &View) -> Result<Option<String>> {
        let refused =
            self.apart().why(&Obligation::Register(group.to_vec()), view.now, Urgency::Normal);
        if refused.is_some() {
            return Ok(refused);
        }
        Ok(self.sender.gas_limit(&input_of(group), view.block()).await?.err())
    }
}

fn input_of(addresses: &[Address]) -> Bytes {
    Settlement::registerCall { payouts: addresses.to_vec() }.abi_encode().into()
}
