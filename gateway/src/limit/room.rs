//! Bytes that requests of all clients may hold together, and how much of them one tenant.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;

/// A number of bytes that many share. A group, such as an app, gets at most as many as it leaves free:
/// one alone gets half of them, two a third each. So there is always room for another.
#[derive(Debug)]
pub struct Room {
    max_bytes: usize,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    total: usize,
    by_group: HashMap<u64, usize>,
}

/// The group of connections before their `connect`: nobody knows whose they are.
pub const STRANGERS: u64 = 0;

/// Bytes of a [`Room`]: none at first. Given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    room: Arc<Room>,
    group: u64,
    bytes: usize,
}

/// The others of a [`Room`], or of the share's group, have left too little.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room is left")]
pub struct NoRoom;

impl Room {
    /// Creates room for `max_bytes`; 0 means no limit.
    pub fn new(max_bytes: u64) -> Arc<Self> {
        let max_bytes = match max_bytes {
            0 => usize::MAX,
            bounded => usize::try_from(bounded).unwrap_or(usize::MAX),
        };
        Arc::new(Self {
            max_bytes,
            used: Mutex::default(),
        })
    }

    /// Returns a share of a group, without bytes.
    pub fn share(self: &Arc<Self>, group: u64) -> Share {
        Share {
            room: Arc::clone(self),
            group,
            bytes: 0,
        }
    }

    /// Returns the bytes of all shares.
    pub fn used(&self) -> usize {
        self.used.lock().total
    }
}

impl Used {
    fn of_group(&self, group: u64) -> usize {
        self.by_group.get(&group).copied().unwrap_or_default()
    }

    fn add(&mut self, group: u64, bytes: usize) {
        if bytes > 0 {
            self.total += bytes;
            *self.by_group.entry(group).or_default() += bytes;
        }
    }

    fn remove(&mut self, group: u64, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.total -= bytes;
        if let Entry::Occupied(mut of_group) = self.by_group.entry(group) {
            *of_group.get_mut() -= bytes;
            if *of_group.get() == 0 {
                of_group.remove();
            }
        }
    }
}

impl Share {
    /// Changes the size of the share.
    ///
    /// # Errors
    /// [`NoRoom`]; the share is as before.
    pub fn resize(&mut self, bytes: usize) -> Result<(), NoRoom> {
        if bytes == self.bytes {
            return Ok(());
        }
        let mut used = self.room.used.lock();
        if bytes < self.bytes {
            used.remove(self.group, self.bytes - bytes);
        } else {
            let more = bytes - self.bytes;
            let most = self.room.max_bytes;
            let fits = |used: usize, most| used.checked_add(more).is_some_and(|sum| sum <= most);
            // The free room afterwards is at least as large as the room of this group.
            let is_fair = most == usize::MAX
                || fits(
                    used.total,
                    most.saturating_sub(used.of_group(self.group).saturating_add(more)),
                );
            if !fits(used.total, most) || !is_fair {
                return Err(NoRoom);
            }
            used.add(self.group, more);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Moves the share to another group, even if that group then has more than its half.
    pub fn change_group(&mut self, group: u64) {
        let mut used = self.room.used.lock();
        used.remove(self.group, self.bytes);
        used.add(group, self.bytes);
        self.group = group;
    }

    /// Returns a share of the same room and group, without bytes.
    pub fn another(&self) -> Self {
        self.room.share(self.group)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.room.used.lock().remove(self.group, self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_at_most_the_room_together_and_give_it_back() {
        let room = Room::new(100);
        let (mut one, mut other) = (room.share(1), room.share(2));
        assert_eq!(one.resize(50), Ok(()));
        assert_eq!(other.resize(26), Err(NoRoom));
        assert_eq!(other.resize(25), Ok(()));
        assert_eq!(room.share(3).resize(usize::MAX), Err(NoRoom));
        assert_eq!(one.resize(10), Ok(()));
        assert_eq!(room.used(), 35);
        drop(other);
        assert_eq!(room.used(), 10);
        drop(one);
        assert_eq!(room.used(), 0);
        assert!(room.used.lock().by_group.is_empty());
    }

    #[test]
    fn groups_leave_as_much_free_as_each_has() {
        let room = Room::new(120);
        let (mut one, mut same) = (room.share(1), room.share(1));
        assert_eq!(one.resize(30), Ok(()));
        assert_eq!(same.resize(31), Err(NoRoom));
        assert_eq!(same.resize(30), Ok(()));
        let mut others: Vec<Share> = (2..4).map(|group| room.share(group)).collect();
        assert_eq!(others[0].resize(30), Ok(()));
        assert_eq!(others[1].resize(15), Ok(()));
        assert_eq!(room.share(4).resize(7), Ok(()), "a newcomer finds room");
    }

    #[test]
    fn share_takes_its_bytes_to_another_group() {
        let room = Room::new(100);
        let (mut one, mut two) = (room.share(1), room.share(2));
        assert_eq!((one.resize(30), two.resize(30)), (Ok(()), Ok(())));
        one.change_group(2);
        assert_eq!(room.used(), 60);
        assert_eq!(two.resize(31), Err(NoRoom));
        assert_eq!(room.share(1).resize(20), Ok(()));
        drop((one, two));
        assert_eq!(room.used(), 0);
        assert!(room.used.lock().by_group.is_empty());
    }

    #[test]
    fn zero_is_no_limit() {
        let room = Room::new(0);
        assert_eq!(room.share(1).resize(usize::MAX), Ok(()));
    }
}
