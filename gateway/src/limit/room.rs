//! Bytes that everything of one kind may hold together.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A number of bytes that many share.
#[derive(Debug)]
pub struct Room {
    max_bytes: usize,
    used: AtomicUsize,
}

/// Bytes of a [`Room`]: none at first. Given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    room: Arc<Room>,
    bytes: usize,
}

/// The others of a [`Room`] have left too little.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room is left")]
pub struct NoRoom;

impl Room {
    /// Room for so many bytes; 0 means no limit.
    pub fn new(max_bytes: u64) -> Arc<Self> {
        let max_bytes = match max_bytes {
            0 => usize::MAX,
            bounded => usize::try_from(bounded).unwrap_or(usize::MAX),
        };
        Arc::new(Self {
            max_bytes,
            used: AtomicUsize::new(0),
        })
    }

    /// Returns a share without bytes.
    pub fn share(self: &Arc<Self>) -> Share {
        Share {
            room: Arc::clone(self),
            bytes: 0,
        }
    }

    /// Returns the bytes of all shares.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Share {
    /// Changes what the share has.
    ///
    /// # Errors
    /// [`NoRoom`]; the share is as before.
    pub fn resize(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let used = &self.room.used;
        if bytes <= self.bytes {
            used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        } else {
            let more = bytes - self.bytes;
            let fits = |used: usize| {
                let used = used.checked_add(more)?;
                (used <= self.room.max_bytes).then_some(used)
            };
            used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
                .map_err(|_| NoRoom)?;
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Returns the room of which this is a share.
    pub fn room(&self) -> &Arc<Room> {
        &self.room
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_at_most_the_room_together_and_give_it_back() {
        let room = Room::new(100);
        let (mut one, mut other) = (room.share(), room.share());
        assert_eq!(one.resize(60), Ok(()));
        assert_eq!(other.resize(41), Err(NoRoom));
        assert_eq!(other.resize(40), Ok(()));
        assert_eq!(one.resize(61), Err(NoRoom));
        assert_eq!(one.resize(usize::MAX), Err(NoRoom));
        assert_eq!(one.resize(10), Ok(()));
        assert_eq!(room.used(), 50);
        drop(other);
        assert_eq!(room.used(), 10);
        drop(one);
        assert_eq!(room.used(), 0);
    }

    #[test]
    fn zero_is_no_limit() {
        let room = Room::new(0);
        assert_eq!(room.share().resize(usize::MAX), Ok(()));
    }
}
