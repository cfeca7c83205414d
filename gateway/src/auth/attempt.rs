//! The rate limit `unauthenticated_per_ip` on failed attempts to authenticate.

use std::{net::IpAddr, sync::Arc};

use domain::{
    clock::Clock,
    error::{Error, Result},
};

use crate::{
    limit::{AddressGroup, Keyed, Rate},
    metrics::Metrics,
};

const LIMIT: &str = "unauthenticated_per_ip";

/// A token bucket for each address, shared by both transports.
#[derive(Debug)]
pub struct Attempts {
    buckets: Keyed<AddressGroup>,
    clock: Arc<Clock>,
    metrics: Arc<Metrics>,
}

/// An attempt to authenticate. It takes a token before a read of the store, which is given back if
/// the credential is valid; without a read, it takes one if it fails.
#[derive(Debug)]
pub struct Attempt {
    attempts: Arc<Attempts>,
    address: AddressGroup,
    is_charged: bool,
}

impl Attempts {
    /// Creates buckets of `per_second` failures for each address, with a burst of twice that. 0
    /// means no limit.
    pub fn new(per_second: u64, clock: Arc<Clock>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            buckets: Keyed::new(Rate::per_second(per_second)),
            clock,
            metrics,
        })
    }

    /// Begins an attempt, without a charge yet.
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
    /// `rate_limited` if the bucket is empty.
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
    /// `rate_limited` if the bucket is empty.
    pub fn check(&self) -> Result<()> {
        self.limited(
            self.attempts
                .buckets
                .peek(&self.address, self.attempts.clock.elapsed()),
        )
    }

    /// Gives back the token that was taken.
    pub fn refund(&mut self) {
        if std::mem::take(&mut self.is_charged) {
            self.attempts.buckets.give_back(&self.address);
        }
    }

    /// Returns the address of the attempt.
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
