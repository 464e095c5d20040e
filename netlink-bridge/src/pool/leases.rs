//! Who has which address, by which claims. Pure.

use super::{Holder, TakenAddresses, WantedAddress};
use crate::{Error, ErrorKind, Operation, Subnet};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// So many claims of one owner to one address are kept. Attaches with one id that have not come to an end at the same time are few; a holder that detaches and
/// attaches again and again, and never gives back, makes any number.
const CLAIMS: usize = 8;

/// Who has an address, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) id: String,
    /// The claims to it that are neither undone nor given back, by their owners, the oldest first. Without one it ends. Several owners can claim
    /// with one id, of whom all but one are about to fail, or have not given back.
    pub(super) claims: BTreeMap<String, Vec<u64>>,
}

impl Lease {
    fn claim(&mut self, claim: u64, owner: &str) {
        let claims = self.claims.entry(owner.to_owned()).or_default();
        claims.push(claim);
        if claims.len() > CLAIMS {
            // The first then stands for the first three, and ends with the third: undoing that one does not undo what it stands for.
            if let [first, _, third, ..] = claims.as_mut_slice() {
                *first = *third;
            }
            claims.remove(1);
        }
    }

    fn undo(&mut self, claim: u64, owner: &str) {
        let Some(claims) = self.claims.get_mut(owner) else { return };
        // From the end: at the beginning is one that may stand for others.
        if let Some(at) = claims.iter().rposition(|one| *one == claim) {
            claims.remove(at);
        }
    }

    /// Whether somebody still has it, when those who have no claim any more are forgotten.
    fn goes_on(&mut self) -> bool {
        self.claims.retain(|_, claims| !claims.is_empty());
        !self.claims.is_empty()
    }

    /// Once for each owner.
    fn holders(&self) -> impl Iterator<Item = Holder> {
        self.claims.keys().map(|owner| Holder { id: self.id.clone(), owner: owner.clone() })
    }
}

/// Whether one claim is the other, or was made before it. Two that are far apart are not of the same boot, or the file was lost in between.
fn is_until(claim: u64, until: u64) -> bool {
    u32::try_from(until.wrapping_sub(claim)).is_ok()
}

/// Who has which address, and where the search goes on. Pure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Leases {
    pub(super) held: BTreeMap<IpAddr, Lease>,
    /// The number of the last claim of all.
    pub(super) claim: u64,
    /// The address that was given last in each subnet.
    pub(super) last: BTreeMap<Subnet, IpAddr>,
}

impl Leases {
    /// Gives all that is wanted, or nothing.
    pub(super) fn take(&mut self, wanted: &[WantedAddress], holder: &Holder) -> Result<TakenAddresses, Error> {
        let mut next = self.clone();
        next.claim = next.claim.wrapping_add(1);
        let addresses: Vec<_> = wanted.iter().map(|one| next.take_one(one, holder)).collect::<Result<_, _>>()?;
        *self = next;
        Ok(TakenAddresses { addresses, claim: self.claim })
    }

    fn take_one(&mut self, wanted: &WantedAddress, holder: &Holder) -> Result<IpAddr, Error> {
        let failed = |kind, object: String, words| Err(Error::words(kind, Operation::TakeAddress, words).about(object));
        let subnet = wanted.subnet;
        let has = self.held.iter().find(|(address, held)| held.id == holder.id && subnet.contains(**address));
        let has = has.map(|(address, _)| *address);
        let address = match (has, wanted.exactly) {
            (Some(has), None) => has,
            (_, Some(exactly)) if self.is_held_by(exactly, holder) => exactly,
            (_, Some(exactly)) if !subnet.can_be_host(exactly) || exactly == wanted.reserved => {
                return Err(Error::config(format!("address {exactly}"), "is the subnet's own, or the gateway's"));
            }
            (_, Some(exactly)) if self.held.contains_key(&exactly) => {
                return failed(ErrorKind::AlreadyExists, exactly.to_string(), "the address is another's");
            }
            (_, Some(exactly)) => exactly,
            (None, None) => match self.free(wanted) {
                Some(address) => address,
                None => return failed(ErrorKind::LimitReached, subnet.to_string(), "all addresses are in use"),
            },
        };
        if wanted.exactly.is_none() && !self.held.contains_key(&address) {
            self.last.insert(subnet, address);
        }
        let lease = Lease { id: holder.id.clone(), claims: BTreeMap::new() };
        self.held.entry(address).or_insert(lease).claim(self.claim, &holder.owner);
        Ok(address)
    }

    /// The first free address after the one that was given last: one that was given back rests as long as possible.
    fn free(&self, wanted: &WantedAddress) -> Option<IpAddr> {
        let subnet = wanted.subnet;
        let after = self.last.get(&subnet).copied().filter(|last| subnet.contains(*last)).unwrap_or(subnet.network());
        // Of the addresses in use each can be in the way once, and the subnet's own, and the end of the search.
        let tries = self.held.len().saturating_add(8);
        let mut address = after;
        for _ in 0..tries {
            address = subnet.next(address);
            if subnet.can_be_host(address) && address != wanted.reserved && !self.held.contains_key(&address) {
                return Some(address);
            }
        }
        None
    }

    fn is_held_by(&self, address: IpAddr, holder: &Holder) -> bool {
        self.held.get(&address).is_some_and(|held| held.id == holder.id)
    }

    pub(super) fn undo(&mut self, taken: &TakenAddresses, holder: &Holder) {
        for address in &taken.addresses {
            if let Some(lease) = self.held.get_mut(address).filter(|lease| lease.id == holder.id) {
                lease.undo(taken.claim, &holder.owner);
            }
        }
        self.held.retain(|_, lease| lease.goes_on());
    }

    /// Of this owner alone: another's claims with the same id may be to addresses that it is about to use.
    pub(super) fn give_back(&mut self, holder: &Holder, until: Option<u64>) {
        let leases = self.held.values_mut().filter(|lease| lease.id == holder.id);
        for claims in leases.filter_map(|lease| lease.claims.get_mut(&holder.owner)) {
            claims.retain(|claim| until.is_some_and(|until| !is_until(*claim, until)));
        }
        self.held.retain(|_, lease| lease.goes_on());
    }

    /// Who has which address, once for each owner.
    pub(super) fn holders(&self) -> Vec<(IpAddr, Holder)> {
        self.held.iter().flat_map(|(address, lease)| lease.holders().map(|holder| (*address, holder))).collect()
    }

    /// Ends the claims of all who are not to be kept. Tells whose.
    pub(super) fn keep(&mut self, keep: impl Fn(&Holder) -> bool) -> Vec<(IpAddr, Holder)> {
        let go: Vec<_> = self.holders().into_iter().filter(|(_, holder)| !keep(holder)).collect();
        for (address, holder) in &go {
            if let Some(lease) = self.held.get_mut(address) {
                lease.claims.remove(&holder.owner);
            }
        }
        self.held.retain(|_, lease| lease.goes_on());
        go
    }

    /// Adds what a file says; refuses what it cannot have said.
    pub(super) fn add(&mut self, address: IpAddr, holder: Holder, claims: Vec<u64>) -> Option<()> {
        let lease = Lease { id: holder.id.clone(), claims: BTreeMap::new() };
        let lease = self.held.entry(address).or_insert(lease);
        if lease.id != holder.id || lease.claims.contains_key(&holder.owner) {
            return None;
        }
        lease.claims.insert(holder.owner, claims);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn holder(id: impl std::fmt::Display) -> Holder {
        Holder { id: id.to_string(), owner: "me".into() }
    }

    fn wanted(subnet: &str) -> WantedAddress {
        let subnet: Subnet = subnet.parse().unwrap();
        WantedAddress { subnet, reserved: subnet.first_host(), exactly: None }
    }

    #[test]
    fn one_after_the_other_until_it_is_full() {
        let (mut leases, subnet) = (Leases::default(), wanted("10.0.0.0/29"));
        let take = |leases: &mut Leases, id: u8| {
            leases.take(std::slice::from_ref(&subnet), &holder(id)).map(|taken| taken.addresses[0].to_string())
        };
        for id in 2..=6 {
            assert_eq!(take(&mut leases, id).unwrap(), format!("10.0.0.{id}"));
        }
        assert_eq!(take(&mut leases, 3).unwrap(), "10.0.0.3", "the same again");
        let error = take(&mut leases, 7).unwrap_err();
        assert_eq!((error.kind(), error.object()), (ErrorKind::LimitReached, Some("10.0.0.0/29")));
        for id in ["4", "2", "2"] {
            leases.give_back(&holder(id), None);
        }
        // Round the end, the gateway left out.
        assert_eq!(take(&mut leases, 8).unwrap(), "10.0.0.2");
        assert_eq!(take(&mut leases, 9).unwrap(), "10.0.0.4");
    }

    #[test]
    fn all_or_nothing() {
        let mut leases = Leases::default();
        let one = WantedAddress { exactly: Some("10.0.0.5".parse().unwrap()), ..wanted("10.0.0.0/24") };
        let full = wanted("10.1.0.0/31");
        leases.take(std::slice::from_ref(&full), &holder("a")).unwrap();
        let before = leases.clone();
        leases.take(&[one.clone(), full], &holder("b")).unwrap_err();
        assert_eq!(leases, before);
        leases.take(std::slice::from_ref(&one), &holder("c")).unwrap();
        assert_eq!(leases.take(std::slice::from_ref(&one), &holder("d")).unwrap_err().kind(), ErrorKind::AlreadyExists);
        let gateway = WantedAddress { exactly: Some(one.reserved), ..one };
        assert_eq!(leases.take(&[gateway], &holder("e")).unwrap_err().kind(), ErrorKind::InvalidConfig);
    }

    /// A second claim to the same addresses keeps them from whoever had the first one, and what it adds is its own.
    #[test]
    fn claims() {
        let (mut leases, web) = (Leases::default(), holder("web"));
        let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
        let take = |leases: &mut Leases, exactly: Option<u8>| {
            let wanted = WantedAddress { exactly: exactly.map(ip), ..wanted("10.0.0.0/24") };
            leases.take(&[wanted], &web).unwrap()
        };
        let first = take(&mut leases, None);
        assert_eq!(first.addresses, [ip(2)]);
        let more = take(&mut leases, Some(9));
        leases.undo(&more, &web);
        assert!(leases.held.keys().eq([&ip(2)]), "the one that it had stays");
        let failed = take(&mut leases, None);
        leases.undo(&failed, &web);
        let second = take(&mut leases, None);
        assert_eq!(second.addresses, first.addresses);
        for claim in [first.claim, more.claim, failed.claim] {
            leases.undo(&first, &web);
            leases.give_back(&web, Some(claim));
            assert!(leases.held.keys().eq([&ip(2)]), "the second is about to use it");
        }
        leases.give_back(&web, Some(second.claim));
        assert!(leases.held.is_empty());
        let third = take(&mut leases, None);
        for other in [holder("other"), Holder { owner: "other".into(), ..web.clone() }] {
            leases.undo(&third, &other);
        }
        assert_eq!(leases.held.len(), 1);
        leases.undo(&third, &web);
        assert!(leases.held.is_empty());
    }

    /// What is given back while a later claim is on its way ends with that one, if it comes to nothing; in whatever order several come to nothing.
    #[test]
    fn given_back_in_between() {
        let web = holder("web");
        let take = |leases: &mut Leases| leases.take(&[wanted("10.0.0.0/24")], &web).unwrap();
        for back_first in [true, false] {
            for order in [[1, 2], [2, 1]] {
                let mut leases = Leases::default();
                let claims = [take(&mut leases), take(&mut leases), take(&mut leases)];
                if back_first {
                    leases.give_back(&web, Some(claims[0].claim));
                }
                leases.undo(&claims[order[0]], &web);
                assert_eq!(leases.held.len(), 1, "{back_first} {order:?}");
                leases.undo(&claims[order[1]], &web);
                assert_eq!(leases.held.len(), usize::from(!back_first), "{order:?}");
                leases.give_back(&web, Some(claims[0].claim));
                assert!(leases.held.is_empty(), "{back_first} {order:?}");
            }
        }
    }

    /// An id is claimed by another owner too: what that one claims is its own, and goes with it, however it ends; the other's stays its owner's.
    #[test]
    fn two_owners() {
        let [mine, yours] = ["me", "you"].map(|owner| Holder { id: "web".into(), owner: owner.into() });
        let mut leases = Leases::default();
        let take = |leases: &mut Leases, holder| leases.take(&[wanted("10.0.0.0/24")], holder).unwrap();
        let first = take(&mut leases, &mine);
        let before = leases.held.clone();
        let address = first.addresses[0];
        let failed = take(&mut leases, &yours);
        assert_eq!(leases.holders(), [(address, mine.clone()), (address, yours.clone())]);
        // It fails, or is killed and found to be dead; it does not matter who asks first.
        let mut undone = leases.clone();
        undone.undo(&failed, &yours);
        assert_eq!(undone.held, before);
        let mut collected = leases.clone();
        assert_eq!(collected.keep(|holder| *holder == mine), [(address, yours.clone())]);
        assert_eq!(collected.held, before);
        assert_eq!(leases.clone().keep(|_| false).len(), 2);
        // The first is dead, and the second has it now.
        assert_eq!(leases.keep(|holder| *holder == yours), [(address, mine.clone())]);
        assert_eq!(leases.holders(), [(address, yours.clone())]);
        leases.give_back(&mine, None);
        assert_eq!(leases.holders(), [(address, yours.clone())]);
        leases.give_back(&yours, Some(failed.claim));
        assert!(leases.held.is_empty());
    }

    /// Whoever comes later, and is done first, does not give back what another owner with the same id is about to use.
    #[test]
    fn given_back_by_another_owner() {
        let [mine, yours] = ["me", "you"].map(|owner| Holder { id: "web".into(), owner: owner.into() });
        let take = |leases: &mut Leases, holder: &Holder| leases.take(&[wanted("10.0.0.0/24")], holder).unwrap();
        for all in [false, true] {
            let mut leases = Leases::default();
            let delayed = take(&mut leases, &yours);
            let done = take(&mut leases, &mine);
            assert_eq!(delayed.addresses, done.addresses);
            leases.give_back(&mine, (!all).then_some(done.claim));
            assert_eq!(leases.holders(), [(delayed.addresses[0], yours.clone())]);
            let same = WantedAddress { exactly: Some(delayed.addresses[0]), ..wanted("10.0.0.0/24") };
            assert_eq!(leases.take(&[same], &holder("third")).unwrap_err().kind(), ErrorKind::AlreadyExists);
            leases.give_back(&yours, Some(delayed.claim));
            assert!(leases.held.is_empty());
        }
    }

    /// However often a holder comes again without giving back, no more is kept of it than of a few; and none is forgotten.
    #[test]
    fn claimed_again_and_again() {
        let (mut leases, web) = (Leases::default(), holder("web"));
        let taken: Vec<_> = (0..30).map(|_| leases.take(&[wanted("10.0.0.0/24")], &web).unwrap()).collect();
        assert!(leases.held.values().all(|lease| lease.claims["me"].len() == CLAIMS));
        for failed in &taken[1..] {
            let mut undone = leases.clone();
            undone.undo(failed, &web);
            assert_eq!(undone.held.len(), 1);
        }
        let mut undone = leases.clone();
        taken[1..].iter().for_each(|failed| undone.undo(failed, &web));
        assert_eq!(undone.held.len(), 1, "the first is still there");
        leases.give_back(&web, Some(taken[28].claim));
        assert_eq!(leases.held.len(), 1);
        leases.give_back(&web, Some(taken[29].claim));
        assert!(leases.held.is_empty());
    }

    #[test]
    fn numbers_of_claims() {
        for (claim, until, expected) in [
            (7, 7, true),
            (6, 7, true),
            (8, 7, false),
            (u64::MAX, 3, true),
            (3, u64::MAX, false),
            (0, u64::from(u32::MAX), true),
            (0, 1 << 40, false),
            (1 << 40, 0, false),
        ] {
            assert_eq!(is_until(claim, until), expected, "{claim} {until}");
        }
    }

    proptest! {
        /// Whatever is taken and given back, nobody has an address that another has, and each is one that a host can have.
        #[test]
        fn nobody_has_anothers(steps in prop::collection::vec((0u8..12, any::<bool>()), 1..60), v6: bool) {
            let mut leases = Leases::default();
            let subnet = wanted(if v6 { "fd00::/125" } else { "10.0.0.0/29" });
            for (id, take) in steps {
                if take {
                    let (full, has) = (leases.held.len(), leases.held.values().any(|h| h.id == id.to_string()));
                    let taken = leases.take(std::slice::from_ref(&subnet), &holder(id));
                    prop_assert_eq!(taken.is_ok(), has || full < if v6 { 6 } else { 5 });
                    if let Ok(taken) = taken {
                        prop_assert!(subnet.subnet.can_be_host(taken.addresses[0]) && taken.addresses[0] != subnet.reserved);
                    }
                } else {
                    leases.give_back(&holder(id), None);
                }
                let mut ids: Vec<_> = leases.held.values().map(|h| h.id.clone()).collect();
                ids.sort();
                ids.dedup();
                prop_assert_eq!(ids.len(), leases.held.len());
            }
        }
    }
}
