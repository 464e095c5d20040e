//! Addresses: who has which.

use crate::{EndpointSpec, Error, NetworkSpec, Subnet};
use std::net::IpAddr;

mod file;
mod leases;

pub use file::FilePool;

/// Gives addresses, so that nobody has one that somebody else has.
///
/// [`FilePool`] keeps them in a file; a program that knows all of its containers can have its own.
#[doc(alias = "IPAM")]
pub trait AddressPool {
    /// These addresses for this holder, in their order: of a subnet exactly those that are said, or one. Who has addresses already gets the same again.
    ///
    /// Each call makes a new claim to all of them, beside earlier ones. A number that a claim had is never another's, also after a reboot: records of
    /// endpoints may outlive it.
    ///
    /// # Errors
    /// [`LimitReached`](crate::ErrorKind::LimitReached) if a subnet is full; [`AlreadyExists`](crate::ErrorKind::AlreadyExists) if another holder has one
    /// of those `wanted`.
    fn take(&self, wanted: &[WantedAddress], holder: &Holder) -> Result<TakenAddresses, Error>;

    /// Undoes a [`take`](Self::take) that came to nothing: takes back what nothing but this claim keeps. What the holder has claimed before and not given
    /// back, or again since, stays: somebody uses it, or is about to.
    ///
    /// # Errors
    /// If it cannot be stored.
    fn undo(&self, taken: &TakenAddresses, holder: &Holder) -> Result<(), Error>;

    /// Takes back the addresses of this holder: those of this claim and of earlier ones, or all. It is no error if there are none. What another owner has
    /// claimed with the same id stays: that one may be about to use it.
    ///
    /// # Errors
    /// If it cannot be stored.
    fn give_back(&self, holder: &Holder, claim: Option<u64>) -> Result<(), Error>;
}

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Holder {
    /// What is unique: an endpoint's id.
    pub id: String,
    /// Whose it is: an endpoint's owner.
    pub owner: String,
}

/// Addresses that a holder has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenAddresses {
    /// One for each that was wanted.
    pub addresses: Vec<IpAddr>,
    /// The number of this claim.
    pub claim: u64,
}

/// An address to be taken in a subnet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct WantedAddress {
    /// The subnet.
    pub subnet: Subnet,
    /// Which nobody can have: the gateway's.
    pub reserved: IpAddr,
    /// This one and no other, if it is said.
    pub exactly: Option<IpAddr>,
}

impl NetworkSpec {
    /// What an endpoint wants of a pool: the addresses of the network that its spec has, and one in each other subnet.
    #[must_use]
    pub fn wanted_addresses(&self, endpoint: &EndpointSpec) -> Vec<WantedAddress> {
        let wanted = |subnet: Subnet| {
            let wanted = move |exactly| WantedAddress { subnet, reserved: self.gateway_in(subnet), exactly };
            let mut all: Vec<_> =
                endpoint.given_addresses().iter().copied().filter(|a| subnet.contains(*a)).map(Some).collect();
            if all.is_empty() {
                all.push(None);
            }
            all.into_iter().map(wanted)
        };
        self.subnets.iter().copied().flat_map(wanted).collect()
    }
}
