//! The permission table: who may do what in a channel, for both transports.
//!
//! [`permit`] decides by [`TABLE`], and [`markdown`] returns it for the specification. The rule
//! that the last owner stays in a channel depends on stored state, so `participants` enforces it.

use ChannelType::{Broadcast, Direct, Group, Open};
use protocol::entity::{ChannelType, Role};

use crate::error::{Error, Result};

/// An action in a channel that needs permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// See that the channel exists, and its fields.
    See,
    /// Read messages and participants, subscribe.
    Read,
    /// Move one's read position.
    MarkRead,
    /// Send a message.
    Send,
    /// Publish `typing`.
    Type,
    /// Add a reaction, or remove one's own.
    React,
    /// Edit one's own message.
    EditOwn,
    /// Edit another user's message.
    EditOthers,
    /// Delete one's own message.
    DeleteOwn,
    /// Delete another user's message.
    DeleteOthers,
    /// Add a user with this role.
    Add(Role),
    /// Join as a member.
    Join,
    /// Leave.
    Leave,
    /// Remove a participant who has this role.
    Remove(Role),
    /// Change a participant's role.
    ChangeRole {
        /// The current role.
        from: Role,
        /// The new role.
        to: Role,
    },
    /// Change the channel's fields.
    Update,
    /// Delete the channel.
    Delete,
}

/// The caller's relation to a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The app's backend.
    Backend,
    /// A participant.
    Participant(Role),
    /// A user of the app who is not a participant.
    Outsider,
}

/// A cell of the permission table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// The action is allowed.
    Allowed,
    /// The caller may see the channel, but not do this: `forbidden`.
    Forbidden,
    /// The caller may not know that the channel exists: `not_found`.
    Hidden,
}

/// Channel types.
type Types = &'static [ChannelType];

const ALL: Types = &[Direct, Group, Open, Broadcast];
const NOT_DIRECT: Types = &[Group, Open, Broadcast];
const PUBLIC: Types = &[Open, Broadcast];
const NONE: Types = &[];

/// One row of the table: the types of channels in which each relation allows the actions.
struct Row {
    /// The name in the specification.
    label: &'static str,
    applies: fn(Action) -> bool,
    owner: Types,
    moderator: Types,
    member: Types,
    observer: Types,
    outsider: Types,
    backend: Types,
}

/// Every action is in exactly one row.
static TABLE: &[Row] = &[
    Row {
        label: "see the channel",
        applies: |action| matches!(action, Action::See),
        owner: ALL,
        moderator: ALL,
        member: ALL,
        observer: ALL,
        outsider: PUBLIC,
        backend: ALL,
    },
    Row {
        label: "read, list, subscribe, move one's read position",
        applies: |action| matches!(action, Action::Read | Action::MarkRead),
        owner: ALL,
        moderator: ALL,
        member: ALL,
        observer: ALL,
        outsider: NONE,
        backend: ALL,
    },
    Row {
        label: "send, `typing`",
        applies: |action| matches!(action, Action::Send | Action::Type),
        owner: ALL,
        moderator: ALL,
        member: &[Direct, Group, Open],
        observer: NONE,
        outsider: NONE,
        backend: ALL,
    },
    Row {
        label: "react, edit and delete one's own messages",
        applies: |action| matches!(action, Action::React | Action::EditOwn | Action::DeleteOwn),
        owner: ALL,
        moderator: ALL,
        member: ALL,
        observer: NONE,
        outsider: NONE,
        backend: ALL,
    },
    Row {
        label: "edit others' messages",
        applies: |action| matches!(action, Action::EditOthers),
        owner: NONE,
        moderator: NONE,
        member: NONE,
        observer: NONE,
        outsider: NONE,
        backend: ALL,
    },
    Row {
        label: "delete others' messages",
        applies: |action| matches!(action, Action::DeleteOthers),
        owner: NOT_DIRECT,
        moderator: ALL,
        member: NONE,
        observer: NONE,
        outsider: NONE,
        backend: ALL,
    },
    Row {
        label: "add owners and moderators",
        applies: |action| matches!(action, Action::Add(role) if !is_below_moderator(role)),
        owner: NOT_DIRECT,
        moderator: NONE,
        member: NONE,
        observer: NONE,
        outsider: NONE,
        backend: NOT_DIRECT,
    },
    Row {
        label: "add members",
        applies: |action| matches!(action, Action::Add(Role::Member)),
        owner: NOT_DIRECT,
        moderator: NOT_DIRECT,
        member: &[Group, Open],
        observer: NONE,
        outsider: NONE,
        backend: NOT_DIRECT,
    },
    Row {
        label: "add observers",
        applies: |action| matches!(action, Action::Add(Role::Observer)),
        owner: NOT_DIRECT,
        moderator: NOT_DIRECT,
        member: NONE,
        observer: NONE,
        outsider: NONE,
        backend: NOT_DIRECT,
    },
    Row {
        label: "join, as a member",
        applies: |action| matches!(action, Action::Join),
        owner: NOT_DIRECT,
        moderator: NOT_DIRECT,
        member: NOT_DIRECT,
        observer: NOT_DIRECT,
        outsider: PUBLIC,
        backend: NONE,
    },
    Row {
        label: "leave",
        applies: |action| matches!(action, Action::Leave),
        owner: NOT_DIRECT,
        moderator: NOT_DIRECT,
        member: NOT_DIRECT,
        observer: NOT_DIRECT,
        outsider: NONE,
        backend: NONE,
    },
    Row {
        label: "remove owners and moderators, give and take these roles",
        applies: |action| match action {
            Action::Remove(role) => !is_below_moderator(role),
            Action::ChangeRole { from, to } => !is_below_moderator(from) || !is_below_moderator(to),
            _ => false,
        },
        owner: NOT_DIRECT,
        moderator: NONE,
        member: NONE,
        observer: NONE,
        outsider: NONE,
        backend: NOT_DIRECT,
    },
    Row {
        label: "remove members and observers, change one to the other",
        applies: |action| match action {
            Action::Remove(role) => is_below_moderator(role),
            Action::ChangeRole { from, to } => is_below_moderator(from) && is_below_moderator(to),
            _ => false,
        },
        owner: NOT_DIRECT,
        moderator: NOT_DIRECT,
        member: NONE,
        observer: NONE,
        outsider: NONE,
        backend: NOT_DIRECT,
    },
    Row {
        label: "update the channel",
        applies: |action| matches!(action, Action::Update),
        owner: ALL,
        moderator: ALL,
        member: NONE,
        observer: NONE,
        outsider: NONE,
        backend: ALL,
    },
    Row {
        label: "delete the channel",
        applies: |action| matches!(action, Action::Delete),
        owner: NOT_DIRECT,
        moderator: NONE,
        member: NONE,
        observer: NONE,
        outsider: NONE,
        backend: ALL,
    },
];

impl Row {
    fn of(action: Action) -> Option<&'static Self> {
        TABLE.iter().find(|row| (row.applies)(action))
    }

    fn types(&self, relation: Relation) -> Types {
        match relation {
            Relation::Backend => self.backend,
            Relation::Participant(Role::Owner) => self.owner,
            Relation::Participant(Role::Moderator) => self.moderator,
            Relation::Participant(Role::Member) => self.member,
            Relation::Participant(Role::Observer) => self.observer,
            Relation::Outsider => self.outsider,
        }
    }
}

impl Action {
    /// Returns whether it changes the participants or their roles, which are fixed in a direct
    /// channel.
    fn is_membership(self) -> bool {
        matches!(
            self,
            Self::Add(_) | Self::Join | Self::Leave | Self::Remove(_) | Self::ChangeRole { .. }
        )
    }
}

/// Looks up an action in the table.
pub fn permission(action: Action, kind: ChannelType, relation: Relation) -> Permission {
    if Row::of(action).is_some_and(|row| row.types(relation).contains(&kind)) {
        return Permission::Allowed;
    }
    // An outsider who may not see the channel gets the same answer as for an unknown one.
    match relation {
        Relation::Outsider if action != Action::See => {
            match permission(Action::See, kind, relation) {
                Permission::Allowed => Permission::Forbidden,
                hidden => hidden,
            }
        }
        Relation::Outsider => Permission::Hidden,
        Relation::Backend | Relation::Participant(_) => Permission::Forbidden,
    }
}

/// Checks that an action is allowed in a channel of this type.
///
/// # Errors
/// `not_found` if the caller may not see the channel, `forbidden` otherwise.
pub fn permit(action: Action, kind: ChannelType, relation: Relation) -> Result<()> {
    match permission(action, kind, relation) {
        Permission::Allowed => Ok(()),
        Permission::Hidden => Err(Error::not_found("channel")),
        Permission::Forbidden if kind == Direct && action.is_membership() => Err(Error::forbidden(
            "nobody joins, leaves, is removed or given a role in a direct channel",
        )),
        Permission::Forbidden => Err(Error::forbidden(match relation {
            Relation::Outsider => "you are not a participant of this channel",
            Relation::Backend | Relation::Participant(_) => {
                "your role in this channel does not allow this"
            }
        })),
    }
}

/// Returns the table as Markdown, for the specification.
pub fn markdown() -> String {
    let mut text = String::from(
        "| | owner | moderator | member | observer | not a participant | app key |\n|---|---|---|---|---|---|---|\n",
    );
    for row in TABLE {
        let cells = [
            row.owner,
            row.moderator,
            row.member,
            row.observer,
            row.outsider,
            row.backend,
        ]
        .map(cell);
        text += &format!("| {} | {} |\n", row.label, cells.join(" | "));
    }
    text
}

fn cell(types: Types) -> String {
    match types {
        NONE => "–".to_owned(),
        ALL => "yes".to_owned(),
        NOT_DIRECT => "not in `direct`".to_owned(),
        some => format!(
            "in {}",
            some.iter()
                .map(|kind| format!("`{}`", kind.as_str()))
                .collect::<Vec<_>>()
                .join(", ")
        ),
    }
}

fn is_below_moderator(role: Role) -> bool {
    matches!(role, Role::Member | Role::Observer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind of action, with every role.
    fn actions() -> Vec<Action> {
        let mut all = vec![
            Action::See,
            Action::Read,
            Action::MarkRead,
            Action::Send,
            Action::Type,
            Action::React,
            Action::EditOwn,
            Action::EditOthers,
            Action::DeleteOwn,
            Action::DeleteOthers,
            Action::Join,
            Action::Leave,
            Action::Update,
            Action::Delete,
        ];
        for role in Role::ALL {
            all.push(Action::Add(role));
            all.push(Action::Remove(role));
            all.extend(Role::ALL.map(|to| Action::ChangeRole { from: role, to }));
        }
        all
    }

    #[test]
    fn every_action_is_in_exactly_one_row() {
        for action in actions() {
            assert_eq!(
                TABLE.iter().filter(|row| (row.applies)(action)).count(),
                1,
                "{action:?}"
            );
        }
    }

    #[test]
    fn outsiders_see_and_join_public_channels_and_no_others() {
        for action in actions() {
            for kind in ChannelType::ALL {
                let expected = match (kind, action) {
                    (Direct | Group, _) => Permission::Hidden,
                    (Open | Broadcast, Action::See | Action::Join) => Permission::Allowed,
                    (Open | Broadcast, _) => Permission::Forbidden,
                };
                assert_eq!(
                    permission(action, kind, Relation::Outsider),
                    expected,
                    "{action:?} in {kind:?}"
                );
            }
        }
    }

    #[test]
    fn nobody_changes_who_is_in_a_direct_channel() {
        let relations = Role::ALL
            .map(Relation::Participant)
            .into_iter()
            .chain([Relation::Backend, Relation::Outsider]);
        for relation in relations {
            for action in actions()
                .into_iter()
                .filter(|action| action.is_membership())
            {
                assert_ne!(
                    permission(action, Direct, relation),
                    Permission::Allowed,
                    "{action:?} by {relation:?}"
                );
            }
        }
    }

    #[test]
    fn a_role_allows_whatever_the_role_below_it_allows() {
        for (higher, lower) in [
            (Role::Owner, Role::Moderator),
            (Role::Moderator, Role::Member),
            (Role::Member, Role::Observer),
        ] {
            for (action, kind) in actions()
                .into_iter()
                .flat_map(|action| ChannelType::ALL.map(|kind| (action, kind)))
            {
                // In a direct channel both users are owners, but neither may delete the other's
                // messages.
                let is_exception = kind == Direct && action == Action::DeleteOthers;
                let allowed = |role| {
                    permission(action, kind, Relation::Participant(role)) == Permission::Allowed
                };
                assert!(
                    allowed(higher) || !allowed(lower) || is_exception,
                    "{action:?} in {kind:?}: {lower:?} but not {higher:?}"
                );
            }
        }
    }

    #[test]
    fn the_specification_shows_the_table() {
        let specification = include_str!("../../../protocol/README.md");
        let table = markdown();
        assert!(
            specification.contains(&table),
            "put this into the section on permissions of protocol/README.md:\n{table}"
        );
    }
}
