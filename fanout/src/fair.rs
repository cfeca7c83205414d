//! Permits that are handed out in turns: between groups, and within a group between its members. A
//! request waits behind one of each other group, not behind all of theirs.
//!
//! Owned here: the order of requests. Left to the caller: the meaning of groups and permits.
//! Groups and members without a waiting request take no memory. To the model checker a call is one
//! step, like those of tokio's semaphore.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The party that makes a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Party {
    /// The group that shares turns with other groups.
    pub group: u64,
    /// The member that shares its group's turns with other members.
    pub member: u64,
}

/// A number of permits, shared fairly between parties.
#[derive(Debug)]
pub struct FairPermits {
    state: Mutex<State>,
    /// Requests that may wait at once.
    max_waiting: usize,
}

/// The right to do one piece of work, until it is dropped.
#[derive(Debug)]
pub struct Permit(Option<Arc<FairPermits>>);

/// Too many requests wait: as many of this group and member as of any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFull;

#[derive(Debug, Default)]
struct State {
    free: usize,
    waiting: usize,
    next_id: u64,
    groups: Ring<Group>,
}

#[derive(Debug, Default)]
struct Group {
    waiting: usize,
    /// Members in the order of arrival, which is the order of their ids.
    members: Ring<VecDeque<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    sender: oneshot::Sender<Permit>,
}

/// Entries that take turns.
#[derive(Debug)]
struct Ring<T> {
    entries: HashMap<u64, T>,
    turns: VecDeque<u64>,
}

/// A request that waits. Leaves its queue when it is dropped.
struct Waiting<'a> {
    permits: &'a FairPermits,
    party: Party,
    id: u64,
}

impl FairPermits {
    /// Creates permits for which any number of requests may wait.
    pub fn new(permits: usize) -> Arc<Self> {
        Self::with_queue(permits, usize::MAX)
    }

    /// Creates permits for which at most `max_waiting` requests wait. A further request replaces
    /// the newest request of the group with the most waiting requests, if that group has more of
    /// them than its own. If its own group has the most, the same rule applies to the members of
    /// the group. Otherwise the request is refused.
    pub fn with_queue(permits: usize, max_waiting: usize) -> Arc<Self> {
        let state = State {
            free: permits,
            ..State::default()
        };
        Arc::new(Self {
            state: Mutex::new(state),
            max_waiting,
        })
    }

    /// Takes a permit if one is free.
    pub fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        let state = &mut *self.state.lock();
        state.free = state.free.checked_sub(1)?;
        Some(Permit(Some(Arc::clone(self))))
    }

    /// Waits for a permit. A caller that stops waiting leaves the queue.
    ///
    /// # Errors
    /// [`QueueFull`] at once, or later if another group needs the place.
    pub async fn acquire(self: &Arc<Self>, party: Party) -> Result<Permit, QueueFull> {
        if let Some(permit) = self.try_acquire() {
            return Ok(permit);
        }
        let (sender, receiver) = oneshot::channel();
        let (id, displaced) = {
            let state = &mut *self.state.lock();
            // It may have become free in between.
            if let Some(rest) = state.free.checked_sub(1) {
                state.free = rest;
                return Ok(Permit(Some(Arc::clone(self))));
            }
            let displaced = if state.waiting < self.max_waiting {
                None
            } else {
                Some(state.displace_for(party).ok_or(QueueFull)?)
            };
            (state.push(party, sender), displaced)
        };
        drop(displaced);
        let waiting = Waiting {
            permits: self,
            party,
            id,
        };
        let permit = receiver.await.map_err(|_| QueueFull);
        drop(waiting);
        permit
    }

    /// Returns the number of requests that wait.
    pub fn waiting(&self) -> usize {
        self.state.lock().waiting
    }

    /// Returns the number of free permits.
    pub fn available(&self) -> usize {
        self.state.lock().free
    }

    /// Gives a permit to the next party's oldest request, or keeps it.
    fn release(self: Arc<Self>) {
        let mut permit = Permit(Some(Arc::clone(&self)));
        loop {
            let next = {
                let state = &mut *self.state.lock();
                let next = state.pop();
                if next.is_none() {
                    state.free += 1;
                    permit.0 = None;
                }
                next
            };
            let Some(waiter) = next else { return };
            match waiter.sender.send(permit) {
                Ok(()) => return,
                // It does not wait any more: the next one.
                Err(returned) => permit = returned,
            }
        }
    }
}

impl State {
    fn push(&mut self, party: Party, sender: oneshot::Sender<Permit>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let group = self.groups.entry(party.group);
        let queue = group.members.entry(party.member);
        queue.push_back(Waiter { id, sender });
        group.waiting += 1;
        self.waiting += 1;
        id
    }

    fn pop(&mut self) -> Option<Waiter> {
        let group = self.groups.rotate()?;
        let member = self.groups.get(group)?.members.rotate()?;
        self.take(Party { group, member }, VecDeque::pop_front)
    }

    /// Takes the newest request of the largest group's largest member, if the group has at least
    /// two more than the party's. If not, the same between the members of the party's group.
    fn displace_for(&mut self, party: Party) -> Option<Waiter> {
        let groups = &self.groups.entries;
        let own = groups.get(&party.group);
        let own_waiting = own.map_or(0, |own| own.waiting);
        let (group, largest) = groups.iter().max_by_key(|(_, group)| group.waiting)?;
        let (group, found) = match own {
            Some(own) if largest.waiting <= own_waiting + 1 => (&party.group, own),
            None if largest.waiting == 1 => return None,
            _ => (group, largest),
        };
        let members = &found.members.entries;
        let (member, queue) = members.iter().max_by_key(|(_, queue)| queue.len())?;
        let own_queue = members.get(&party.member).map_or(0, VecDeque::len);
        if *group == party.group && queue.len() <= own_queue + 1 {
            return None;
        }
        let party = Party {
            group: *group,
            member: *member,
        };
        self.take(party, VecDeque::pop_back)
    }

    fn remove(&mut self, party: Party, id: u64) -> Option<Waiter> {
        self.take(party, |queue| {
            let index = queue.binary_search_by_key(&id, |waiter| waiter.id).ok()?;
            queue.remove(index)
        })
    }

    fn take(
        &mut self,
        party: Party,
        take: impl FnOnce(&mut VecDeque<Waiter>) -> Option<Waiter>,
    ) -> Option<Waiter> {
        let group = self.groups.get(party.group)?;
        let queue = group.members.get(party.member)?;
        let taken = take(queue)?;
        if queue.is_empty() {
            group.members.remove(party.member);
        }
        group.waiting -= 1;
        if group.waiting == 0 {
            self.groups.remove(party.group);
        }
        self.waiting -= 1;
        Some(taken)
    }
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            turns: VecDeque::new(),
        }
    }
}

impl<T: Default> Ring<T> {
    fn entry(&mut self, key: u64) -> &mut T {
        let turns = &mut self.turns;
        self.entries.entry(key).or_insert_with(|| {
            turns.push_back(key);
            T::default()
        })
    }

    fn get(&mut self, key: u64) -> Option<&mut T> {
        self.entries.get_mut(&key)
    }

    /// Returns the entry whose turn it is, and puts it behind the others.
    fn rotate(&mut self) -> Option<u64> {
        self.turns.rotate_left(usize::from(!self.turns.is_empty()));
        self.turns.back().copied()
    }

    fn remove(&mut self, key: u64) {
        self.entries.remove(&key);
        if self.turns.back() == Some(&key) {
            self.turns.pop_back();
        } else {
            self.turns.retain(|turn| *turn != key);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let removed = self.permits.state.lock().remove(self.party, self.id);
        drop(removed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(permits) = self.0.take() {
            permits.release();
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    type Order = Arc<Mutex<Vec<&'static str>>>;

    fn party(group: u64, member: u64) -> Party {
        Party { group, member }
    }

    async fn waits(
        permits: &Arc<FairPermits>,
        party: Party,
        name: &'static str,
        order: &Order,
    ) -> tokio::task::JoinHandle<()> {
        let (permits, order) = (Arc::clone(permits), Arc::clone(order));
        let task = tokio::spawn(async move {
            let permit = permits.acquire(party).await;
            if permit.is_ok() {
                order.lock().push(name);
            }
        });
        tokio::task::yield_now().await;
        task
    }

    async fn finish(tasks: Vec<tokio::task::JoinHandle<()>>) {
        for task in tasks {
            task.await.expect("no task panics");
        }
    }

    #[tokio::test]
    async fn a_group_with_one_request_waits_behind_one_of_another() {
        let (permits, order) = (FairPermits::new(1), Order::default());
        let held = permits.acquire(party(1, 0)).await;
        let mut tasks = Vec::new();
        for name in ["a1", "a2", "a3"] {
            tasks.push(waits(&permits, party(1, 0), name, &order).await);
        }
        tasks.push(waits(&permits, party(2, 0), "b1", &order).await);
        drop(held);
        finish(tasks).await;
        assert_eq!(*order.lock(), ["a1", "b1", "a2", "a3"]);
    }

    #[tokio::test]
    async fn members_share_the_turns_of_their_group() {
        let (permits, order) = (FairPermits::new(1), Order::default());
        let held = permits.acquire(party(1, 0)).await;
        let mut tasks = Vec::new();
        for name in ["a1", "a2", "a3"] {
            tasks.push(waits(&permits, party(1, 1), name, &order).await);
        }
        for (of, name) in [(2, "b1"), (3, "c1")] {
            tasks.push(waits(&permits, party(1, of), name, &order).await);
        }
        for name in ["x1", "x2", "x3"] {
            tasks.push(waits(&permits, party(2, 1), name, &order).await);
        }
        drop(held);
        finish(tasks).await;
        let fair = ["a1", "x1", "b1", "x2", "c1", "x3", "a2", "a3"];
        assert_eq!(*order.lock(), fair);
        assert!(permits.state.lock().groups.entries.is_empty());
    }

    #[tokio::test]
    async fn callers_that_gave_up_leave_nothing_behind() {
        let permits = FairPermits::new(1);
        let held = permits.acquire(party(1, 0)).await;
        for member in 0..1000 {
            let waiting = permits.acquire(party(2, member));
            let waiting = tokio::time::timeout(std::time::Duration::ZERO, waiting).await;
            assert!(waiting.is_err());
        }
        {
            let state = permits.state.lock();
            assert_eq!((state.waiting, state.groups.entries.len()), (0, 0));
            assert!(state.groups.turns.is_empty());
        }
        drop(held);
        assert_eq!(permits.available(), 1);
    }

    #[tokio::test]
    async fn a_request_that_stops_waiting_takes_no_permit_along() {
        let (permits, order) = (FairPermits::new(1), Order::default());
        let held = permits.acquire(party(1, 0)).await;
        let gone = waits(&permits, party(1, 0), "gone", &order).await;
        let stays = waits(&permits, party(1, 0), "stays", &order).await;
        gone.abort();
        let _aborted = gone.await;
        drop(held);
        stays.await.expect("it gets the permit");
        assert_eq!(*order.lock(), ["stays"]);
        assert_eq!((permits.available(), permits.waiting()), (1, 0));
    }

    #[tokio::test]
    async fn a_full_queue_takes_the_place_from_the_group_that_has_the_most() {
        let (permits, order) = (FairPermits::with_queue(1, 3), Order::default());
        let held = permits.acquire(party(1, 0)).await;
        let mut tasks = Vec::new();
        for name in ["a1", "a2", "a3"] {
            tasks.push(waits(&permits, party(1, 0), name, &order).await);
        }
        assert_eq!(permits.acquire(party(1, 0)).await.err(), Some(QueueFull));
        tasks.push(waits(&permits, party(2, 0), "b1", &order).await);
        assert_eq!(permits.waiting(), 3);
        assert_eq!(permits.acquire(party(2, 0)).await.err(), Some(QueueFull));
        drop(held);
        finish(tasks).await;
        assert_eq!(*order.lock(), ["a1", "b1", "a2"]);
    }

    #[tokio::test]
    async fn a_full_queue_takes_the_place_from_the_member_that_has_the_most_of_the_own_group() {
        let (permits, order) = (FairPermits::with_queue(1, 4), Order::default());
        let held = permits.acquire(party(1, 0)).await;
        let mut tasks = Vec::new();
        for name in ["a1", "a2", "a3"] {
            tasks.push(waits(&permits, party(1, 1), name, &order).await);
        }
        tasks.push(waits(&permits, party(2, 0), "x1", &order).await);
        tasks.push(waits(&permits, party(1, 2), "b1", &order).await);
        assert_eq!(permits.acquire(party(1, 2)).await.err(), Some(QueueFull));
        assert_eq!(permits.acquire(party(1, 1)).await.err(), Some(QueueFull));
        drop(held);
        finish(tasks).await;
        assert_eq!(*order.lock(), ["a1", "x1", "b1", "a2"]);
    }
}
