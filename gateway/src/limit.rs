//! Limits on what one client address may hold.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;

/// Counts what each address holds, up to a maximum. Off without a maximum.
#[derive(Clone, Default)]
pub struct AddressLimit(Option<Arc<Counts>>);

struct Counts {
    max: usize,
    exempt: Vec<IpNet>,
    held: Mutex<HashMap<IpAddr, usize>>,
}

/// The address holds as much as it may.
#[derive(Debug)]
pub struct Exhausted;

/// One place of an address, given back when dropped.
pub struct AddressPermit {
    counts: Arc<Counts>,
    address: IpAddr,
}

impl AddressLimit {
    /// At most `max` for each address that is in none of the `exempt` networks: a balancer's own
    /// address stands for all of its clients.
    pub fn new(max: Option<usize>, exempt: &[IpNet]) -> Self {
        Self(
            max.map(|max| {
                Arc::new(Counts { max, exempt: exempt.to_vec(), held: Mutex::default() })
            }),
        )
    }

    /// Takes a place; nothing is counted, and no permit needed, where there is no limit.
    pub fn acquire(&self, address: IpAddr) -> Result<Option<AddressPermit>, Exhausted> {
        let Some(counts) = &self.0 else { return Ok(None) };
        if counts.exempt.iter().any(|network| network.contains(&address)) {
            return Ok(None);
        }
        let mut held = counts.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(address).or_default();
        if *count >= counts.max {
            return Err(Exhausted);
        }
        *count += 1;
        drop(held);
        Ok(Some(AddressPermit { counts: counts.clone(), address }))
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let mut held = self.counts.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_its_places_back_and_others_are_not_affected() {
        let limit = AddressLimit::new(Some(1), &["10.0.0.0/8".parse().expect("network")]);
        let address = |text: &str| text.parse::<IpAddr>().expect("address");
        let first = limit.acquire(address("192.0.2.1")).expect("a first place");
        assert!(limit.acquire(address("192.0.2.1")).is_err());
        assert!(limit.acquire(address("192.0.2.2")).is_ok());
        assert!(limit.acquire(address("10.1.2.3")).expect("exempt").is_none());
        drop(first);
        assert!(limit.acquire(address("192.0.2.1")).is_ok());
    }
}
