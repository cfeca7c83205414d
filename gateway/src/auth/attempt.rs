//! Attempts to authenticate, counted by address: `unauthenticated_per_ip`.

use std::{net::IpAddr, sync::Arc};

use domain::{
    clock::Clock,
    error::{Error, Result},
};

use crate::{
    limit::{AddressGroup, Keyed, Rate},
    metrics::Metrics,
};

/// The limit's name.
const LIMIT: &str = "unauthenticated_per_ip";

/// The bucket of each address, shared by both transports.
#[derive(Debug)]
pub struct Attempts {
    buckets: Keyed<AddressGroup>,
    clock: Arc<Clock>,
    metrics: Arc<Metrics>,
}

/// One attempt of an address. It costs a token of the bucket when the store has to be asked, and is
/// refunded if the credential is valid; otherwise when it fails.
#[derive(Debug)]
pub struct Attempt {
    attempts: Arc<Attempts>,
    address: AddressGroup,
    is_charged: bool,
}

impl Attempts {
    /// So many failures per second for each address, with a burst of twice that; 0 means no limit.
    pub fn new(per_second: u64, clock: Arc<Clock>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            buckets: Keyed::new(Rate::per_second(per_second)),
            clock,
            metrics,
        })
    }

    /// An attempt of this address; nothing is charged yet.
    pub fn begin(self: &Arc<Self>, address: IpAddr) -> Attempt {
        Attempt {
            attempts: Arc::clone(self),
            address: address.into(),
            is_charged: false,
        }
    }
}

impl Attempt {
    /// Takes a token of the address's bucket, unless this attempt has done so.
    ///
    /// # Errors
    /// `rate_limited` if there is none.
    pub fn charge(&mut self) -> Result<()> {
        if self.is_charged {
            return Ok(());
        }
        let taken = self
            .attempts
            .buckets
            .take(self.address, self.attempts.clock.elapsed());
        self.is_charged = taken.is_ok();
        self.limited(taken)
    }

    /// Checks that the address has a token, without taking it.
    ///
    /// # Errors
    /// `rate_limited` if there is none.
    pub fn check(&self) -> Result<()> {
        self.limited(
            self.attempts
                .buckets
                .peek(&self.address, self.attempts.clock.elapsed()),
        )
    }

    /// Gives back what was charged.
    pub fn refund(&mut self) {
        if std::mem::take(&mut self.is_charged) {
            self.attempts.buckets.give_back(&self.address);
        }
    }

    /// The address that is counted.
    pub fn address(&self) -> AddressGroup {
        self.address
    }

    fn limited(&self, taken: Result<(), u64>) -> Result<()> {
        taken.map_err(|retry_after_ms| {
            self.attempts.metrics.limit_hit(LIMIT);
            Error::rate_limited(LIMIT, retry_after_ms)
        })
    }
}
