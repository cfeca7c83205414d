//! The users that a session watches (`presence.watch`).

use std::{
    collections::{BTreeSet, HashMap},
    sync::atomic::{AtomicU64, Ordering},
};

use protocol::UserId;

use super::SubscriptionHandle;

/// Position of a request among all requests of this process. A later request has a greater one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestOrder(u64);

impl RequestOrder {
    /// Returns the position of a new request. Call it when the request is read, since later
    /// requests may be served earlier.
    pub fn now() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        Self(COUNT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The users that a session watches, according to the newest request that was served.
#[derive(Debug)]
pub struct Watched<S> {
    newest: RequestOrder,
    is_closed: bool,
    users: HashMap<UserId, S>,
}

impl<S> Default for Watched<S> {
    fn default() -> Self {
        Self {
            newest: RequestOrder::default(),
            is_closed: false,
            users: HashMap::new(),
        }
    }
}

impl<S: SubscriptionHandle> Watched<S> {
    /// Returns those of the users that are not watched yet.
    pub fn missing(&self, users: &BTreeSet<UserId>) -> Vec<UserId> {
        let is_watched = |user: &UserId| self.users.get(user).is_some_and(|s| !s.is_ended());
        users
            .iter()
            .filter(|user| !is_watched(user))
            .cloned()
            .collect()
    }

    /// Watches exactly `users`, with subscriptions for the `new` ones among them, unless a later
    /// request was served. Returns the subscriptions that end, to be dropped outside of locks.
    pub fn replace(
        &mut self,
        order: RequestOrder,
        users: &BTreeSet<UserId>,
        new: HashMap<UserId, S>,
    ) -> HashMap<UserId, S> {
        if self.is_closed || self.newest > order {
            return new;
        }
        self.newest = order;
        let ended: HashMap<_, _> = self
            .users
            .extract_if(|user, _| !users.contains(user) || new.contains_key(user))
            .collect();
        self.users.extend(new);
        ended
    }

    /// Ends the session. Returns its subscriptions, to be dropped outside of locks.
    pub fn close(&mut self) -> HashMap<UserId, S> {
        self.is_closed = true;
        std::mem::take(&mut self.users)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use fanout::Position;

    use super::*;

    #[derive(Debug, Default)]
    struct Subscription(Cell<bool>);

    impl SubscriptionHandle for Subscription {
        fn is_ended(&self) -> bool {
            self.0.get()
        }

        fn topic_position(&self) -> Position {
            Position::default()
        }
    }

    fn users(names: &[&str]) -> BTreeSet<UserId> {
        names
            .iter()
            .map(|name| name.parse().expect("a valid id"))
            .collect()
    }

    fn serve(watched: &mut Watched<Subscription>, order: RequestOrder, names: &[&str]) -> usize {
        let users = users(names);
        let missing = watched.missing(&users);
        let new = missing
            .into_iter()
            .map(|user| (user, Subscription::default()))
            .collect();
        watched.replace(order, &users, new).len()
    }

    #[test]
    fn request_that_was_overtaken_changes_nothing() {
        let mut watched = Watched::default();
        let (first, second) = (RequestOrder::now(), RequestOrder::now());
        assert_eq!(serve(&mut watched, second, &["a", "b"]), 0);
        assert_eq!(
            serve(&mut watched, first, &["c"]),
            1,
            "its own subscription ends"
        );
        assert!(watched.missing(&users(&["a", "b"])).is_empty());
    }

    #[test]
    fn ended_subscription_is_missing_and_is_replaced() {
        let mut watched = Watched::default();
        serve(&mut watched, RequestOrder::now(), &["a"]);
        watched.users.values().for_each(|s| s.0.set(true));
        assert_eq!(watched.missing(&users(&["a"])).len(), 1);
        assert_eq!(serve(&mut watched, RequestOrder::now(), &["a"]), 1);
        assert!(watched.missing(&users(&["a"])).is_empty());
    }

    #[test]
    fn ended_session_watches_nobody() {
        let mut watched = Watched::default();
        serve(&mut watched, RequestOrder::now(), &["a"]);
        assert_eq!(watched.close().len(), 1);
        assert_eq!(serve(&mut watched, RequestOrder::now(), &["a"]), 1);
    }
}
