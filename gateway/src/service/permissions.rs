//! Who may do what in a channel: the one table, for both transports.
//!
//! | operation | owner | moderator | member | observer | not a participant |
//! |---|---|---|---|---|---|
//! | read, mark as read | ✓ | ✓ | ✓ | ✓ | sees that an `open` or `broadcast` channel exists |
//! | send, type | ✓ | ✓ | ✓, not in `broadcast` | – | – |
//! | react | ✓ | ✓ | ✓ | – | – |
//! | edit own, delete own | ✓ | ✓ | ✓ | – | – |
//! | delete others' | ✓, not in `direct` | ✓ | – | – | – |
//! | add | any role | `member`, `observer` | `member`, in `group` and `open` | – | joins as `member`, in `open` and `broadcast` |
//! | remove, change roles | ✓ | members, observers | leaves | leaves | – |
//! | update the channel | ✓ | ✓ | – | – | – |
//! | delete the channel | ✓, not in `direct` | – | – | – | – |
//!
//! In a `direct` channel nobody joins, leaves, is removed or given a role. An app key may do everything else.
//! That the last owner stays is not here: it depends on the store, and `participants` sees to it.

use protocol::model::{ChannelType, Role};

use crate::error::{Error, Result};

/// What somebody wants to do in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// See the channel itself.
    See,
    /// Read messages and participants, subscribe.
    Read,
    /// Move the own read position.
    MarkRead,
    /// Send a message.
    Send,
    /// Tell that one types.
    Type,
    /// Give a reaction, or take the own one back.
    React,
    /// Edit the own message.
    EditOwn,
    /// Edit somebody else's message: app keys only.
    EditOthers,
    /// Delete the own message.
    DeleteOwn,
    /// Delete somebody else's message.
    DeleteOthers,
    /// Bring somebody in with this role.
    Add(Role),
    /// Come in.
    Join,
    /// Go.
    Leave,
    /// Remove somebody who has this role.
    Remove(Role),
    /// Give somebody another role.
    ChangeRole {
        /// The role so far.
        from: Role,
        /// The new one.
        to: Role,
    },
    /// Change the channel's fields.
    Update,
    /// Delete the channel.
    Delete,
}

impl Operation {
    /// One of each kind with every role: what a walk through the table has to pass.
    pub fn all() -> Vec<Self> {
        let mut all = vec![
            Self::See,
            Self::Read,
            Self::MarkRead,
            Self::Send,
            Self::Type,
            Self::React,
            Self::EditOwn,
            Self::EditOthers,
            Self::DeleteOwn,
            Self::DeleteOthers,
            Self::Join,
            Self::Leave,
            Self::Update,
            Self::Delete,
        ];
        for role in Role::ALL {
            all.push(Self::Add(role));
            all.push(Self::Remove(role));
            all.extend(Role::ALL.map(|to| Self::ChangeRole { from: role, to }));
        }
        all
    }

    /// Whether it changes who is in the channel, or as what: nothing that ever happens in a direct one.
    fn is_membership(self) -> bool {
        matches!(
            self,
            Self::Add(_) | Self::Join | Self::Leave | Self::Remove(_) | Self::ChangeRole { .. }
        )
    }
}

/// Who wants to do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The app's backend.
    App,
    /// A participant.
    Participant(Role),
    /// A user of the app who is no participant.
    Stranger,
}

/// Whether it may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allowed,
    /// It may be seen, but not done.
    Forbidden,
    /// Not even that it exists may be seen.
    Hidden,
}

/// Looks it up.
pub fn decide(operation: Operation, kind: ChannelType, standing: Standing) -> Verdict {
    use Operation as Op;
    let is_public = matches!(kind, ChannelType::Open | ChannelType::Broadcast);
    let is_direct = kind == ChannelType::Direct;
    let allowed = match standing {
        _ if is_direct && operation.is_membership() => false,
        Standing::App => !matches!(operation, Op::Join | Op::Leave),
        Standing::Stranger => is_public && matches!(operation, Op::See | Op::Join),
        Standing::Participant(role) => match operation {
            Op::See | Op::Read | Op::MarkRead | Op::Leave | Op::Join => true,
            Op::Send | Op::Type => match role {
                Role::Owner | Role::Moderator => true,
                Role::Member => kind != ChannelType::Broadcast,
                Role::Observer => false,
            },
            Op::React | Op::EditOwn | Op::DeleteOwn => role != Role::Observer,
            Op::EditOthers => false,
            Op::DeleteOthers => match role {
                Role::Owner => !is_direct,
                Role::Moderator => true,
                Role::Member | Role::Observer => false,
            },
            Op::Add(new) => match role {
                Role::Owner => true,
                Role::Moderator => is_below_moderator(new),
                Role::Member => {
                    new == Role::Member && matches!(kind, ChannelType::Group | ChannelType::Open)
                }
                Role::Observer => false,
            },
            Op::Remove(of) => {
                role == Role::Owner || (role == Role::Moderator && is_below_moderator(of))
            }
            Op::ChangeRole { from, to } => {
                role == Role::Owner
                    || (role == Role::Moderator
                        && is_below_moderator(from)
                        && is_below_moderator(to))
            }
            Op::Update => matches!(role, Role::Owner | Role::Moderator),
            Op::Delete => role == Role::Owner && !is_direct,
        },
    };
    match standing {
        _ if allowed => Verdict::Allowed,
        Standing::Stranger if !is_public => Verdict::Hidden,
        _ => Verdict::Forbidden,
    }
}

/// The same as an error.
pub fn permit(operation: Operation, kind: ChannelType, standing: Standing) -> Result<()> {
    match decide(operation, kind, standing) {
        Verdict::Allowed => Ok(()),
        Verdict::Hidden => Err(Error::not_found("channel")),
        Verdict::Forbidden if kind == ChannelType::Direct && operation.is_membership() => {
            Err(Error::forbidden(
                "nobody joins, leaves, is removed or given a role in a direct channel",
            ))
        }
        Verdict::Forbidden => Err(Error::forbidden(match standing {
            Standing::Stranger => "you are not a participant of this channel",
            _ => "your role in this channel does not allow this",
        })),
    }
}

fn is_below_moderator(role: Role) -> bool {
    matches!(role, Role::Member | Role::Observer)
}

#[cfg(test)]
mod tests {
    use ChannelType::*;
    use Role::*;

    use super::*;

    /// The table of the wire page, cell by cell, written down a second time and independently of `decide`.
    fn expected(operation: Operation, kind: ChannelType, role: Role) -> bool {
        use Operation as Op;
        let row: [&[ChannelType]; 4] = match operation {
            Op::See | Op::Read | Op::MarkRead => [&ChannelType::ALL; 4],
            Op::Send | Op::Type => [
                &ChannelType::ALL,
                &ChannelType::ALL,
                &[Direct, Group, Open],
                &[],
            ],
            Op::React | Op::EditOwn | Op::DeleteOwn => {
                [&ChannelType::ALL, &ChannelType::ALL, &ChannelType::ALL, &[]]
            }
            Op::EditOthers => [&[]; 4],
            Op::DeleteOthers => [&[Group, Open, Broadcast], &ChannelType::ALL, &[], &[]],
            Op::Add(Owner | Moderator) => [&[Group, Open, Broadcast], &[], &[], &[]],
            Op::Add(Member) => [
                &[Group, Open, Broadcast],
                &[Group, Open, Broadcast],
                &[Group, Open],
                &[],
            ],
            Op::Add(Observer) => [
                &[Group, Open, Broadcast],
                &[Group, Open, Broadcast],
                &[],
                &[],
            ],
            Op::Remove(Owner | Moderator) => [&[Group, Open, Broadcast], &[], &[], &[]],
            Op::Remove(Member | Observer) => [
                &[Group, Open, Broadcast],
                &[Group, Open, Broadcast],
                &[],
                &[],
            ],
            Op::ChangeRole {
                from: Member | Observer,
                to: Member | Observer,
            } => [
                &[Group, Open, Broadcast],
                &[Group, Open, Broadcast],
                &[],
                &[],
            ],
            Op::ChangeRole { .. } => [&[Group, Open, Broadcast], &[], &[], &[]],
            Op::Join | Op::Leave => [&[Group, Open, Broadcast]; 4],
            Op::Update => [&ChannelType::ALL, &ChannelType::ALL, &[], &[]],
            Op::Delete => [&[Group, Open, Broadcast], &[], &[], &[]],
        };
        let column = Role::ALL
            .iter()
            .position(|r| *r == role)
            .unwrap_or_default();
        row[column].contains(&kind)
    }

    #[test]
    fn the_table_holds_for_every_role_operation_and_type() {
        for operation in Operation::all() {
            for kind in ChannelType::ALL {
                for role in Role::ALL {
                    let verdict = decide(operation, kind, Standing::Participant(role));
                    let want = if expected(operation, kind, role) {
                        Verdict::Allowed
                    } else {
                        Verdict::Forbidden
                    };
                    assert_eq!(verdict, want, "{operation:?} by {role:?} in {kind:?}");
                }
            }
        }
    }

    #[test]
    fn a_stranger_sees_and_joins_public_channels_and_no_others() {
        for operation in Operation::all() {
            for kind in ChannelType::ALL {
                let want = match (kind, operation) {
                    (Direct | Group, _) => Verdict::Hidden,
                    (Open | Broadcast, Operation::See | Operation::Join) => Verdict::Allowed,
                    (Open | Broadcast, _) => Verdict::Forbidden,
                };
                assert_eq!(
                    decide(operation, kind, Standing::Stranger),
                    want,
                    "{operation:?} in {kind:?}"
                );
            }
        }
    }

    #[test]
    fn an_app_key_may_do_everything_but_break_up_a_direct_channel() {
        for operation in Operation::all() {
            for kind in ChannelType::ALL {
                let verdict = decide(operation, kind, Standing::App);
                let refused = matches!(operation, Operation::Join | Operation::Leave)
                    || (kind == Direct && operation.is_membership());
                assert_eq!(
                    verdict == Verdict::Allowed,
                    !refused,
                    "{operation:?} in {kind:?}"
                );
            }
        }
    }
}
