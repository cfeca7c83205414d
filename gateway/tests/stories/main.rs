//! End-to-end tests with real nodes, stores and sockets.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[macro_use]
mod story;

mod backup;
#[cfg(target_os = "linux")]
mod bad_days;
mod canary;
mod charges;
mod clearing;
mod codes;
mod codes_close;
mod edge;
mod events;
mod first_hour;
mod first_send;
mod flooded;
mod fragile;
mod garbage;
mod half_memberships;
mod half_way;
mod idle_users;
mod interrupted;
mod kill;
mod limits;
mod lists;
mod lost_memberships;
mod lost_records;
mod lost_removals;
mod membership;
mod methods_channels;
mod methods_connect;
mod methods_messages;
mod names;
mod nodes;
mod operations;
mod permissions;
mod presence;
mod presence_watching;
mod process;
mod promises;
mod promises_outbox;
mod promises_resume;
mod read_positions;
mod redis_rights;
mod redis_server;
mod repeats;
mod request_bytes;
mod returning;
mod rolling;
mod secret_key;
mod stalled;
mod storm;
#[cfg(target_os = "linux")]
mod synced;
mod tenant_isolation;
mod tokens;
mod transfer;
mod vertical;
mod wire;
