//! Finding what spoils a batch: halves that fail are halved again, until what fails alone stands alone.

/// A batch under examination. Ask [`Bisection::next`] for a group, try it, tell how it went.
#[derive(Debug)]
pub(super) struct Bisection<T> {
    todo: Vec<Vec<T>>,
    /// Groups that passed, in the order of the batch.
    pub(super) passed: Vec<Vec<T>>,
    /// What failed alone, and why.
    pub(super) poison: Vec<(T, String)>,
}

impl<T> Bisection<T> {
    /// Starts with the whole batch.
    pub(super) fn new(batch: Vec<T>) -> Self {
        let todo = if batch.is_empty() { Vec::new() } else { vec![batch] };
        Self { todo, passed: Vec::new(), poison: Vec::new() }
    }

    /// The group to try now.
    pub(super) fn next(&self) -> Option<&[T]> {
        self.todo.last().map(Vec::as_slice)
    }

    /// The group passed.
    pub(super) fn pass(&mut self) {
        self.passed.extend(self.todo.pop());
    }

    /// The group failed: it is halved, or its only item is poison.
    pub(super) fn fail(&mut self, reason: String) {
        let Some(mut group) = self.todo.pop() else { return };
        if group.len() > 1 {
            let second = group.split_off(group.len() / 2);
            self.todo.push(second);
            self.todo.push(group);
        } else if let Some(item) = group.pop() {
            self.poison.push((item, reason));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bisects `0..n`, of which `poison` fail, and counts the tries.
    fn bisect(n: u32, poison: &[u32]) -> (Bisection<u32>, u32) {
        let mut bisection = Bisection::new((0..n).collect());
        let mut tries = 0;
        while let Some(group) = bisection.next() {
            tries += 1;
            if group.iter().any(|item| poison.contains(item)) {
                bisection.fail("spoilt".into());
            } else {
                bisection.pass();
            }
        }
        (bisection, tries)
    }

    #[test]
    fn every_poison_is_isolated_and_all_else_passes_in_order() {
        for poison in [&[0][..], &[99], &[3, 4], &[0, 50, 99], &[7, 8, 9, 10, 11]] {
            let (bisection, _) = bisect(100, poison);
            let found: Vec<_> = bisection.poison.iter().map(|(item, _)| *item).collect();
            assert_eq!(found, poison);
            let rest: Vec<_> = (0..100).filter(|item| !poison.contains(item)).collect();
            assert_eq!(bisection.passed.concat(), rest);
        }
        let (all, tries) = bisect(4, &[0, 1, 2, 3]);
        assert_eq!((all.poison.len(), all.passed.len(), tries), (4, 0, 7));
    }

    #[test]
    fn a_poison_item_costs_two_tries_for_each_halving_at_most() {
        for n in 1..=200_u32 {
            let halvings = n.next_power_of_two().ilog2();
            for poison in 0..n {
                let (_, tries) = bisect(n, &[poison]);
                assert!(tries <= 1 + 2 * halvings, "{n} items, poison {poison}: {tries} tries");
            }
        }
        assert_eq!(bisect(100, &[]).1, 1);
        assert_eq!(bisect(0, &[]).1, 0);
    }
}
