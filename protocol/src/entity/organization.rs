//! Organizations.

use crate::{OrganizationId, wire::wire};

wire! {
    /// An organization: the owner of apps.
    pub struct Organization {
        /// Id.
        pub id: OrganizationId,
        /// Single line of 1 to 200 characters.
        pub name: String,
        /// E-mail address for contact, up to 320 characters.
        pub email: String,
        /// http or https URL of a picture.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub banner: Option<String>,
        /// Time of creation, in milliseconds since the Unix epoch.
        pub created_at: u64,
    }
}
