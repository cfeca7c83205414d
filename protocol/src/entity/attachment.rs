//! Attachments of messages.

use crate::{Metadata, UploadId, wire::wire};

wire! {
    /// An attachment of a message: a URL and what the app says about it.
    pub struct Attachment {
        /// Type in the terms of the app (`image`, `file`, …): 1 to 64 characters.
        #[serde(rename = "type")]
        pub kind: String,
        /// Reserved: uploads do not exist yet, and an attachment that names one is refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub upload_id: Option<UploadId>,
        /// http or https URL of up to 2,048 characters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub url: Option<String>,
        /// File name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub name: Option<String>,
        /// Size in bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub size: Option<u64>,
        /// Media type.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub mime: Option<String>,
        /// Width in pixels.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub width: Option<u64>,
        /// Height in pixels.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub height: Option<u64>,
        /// Duration in milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub duration_ms: Option<u64>,
        /// Free data.
        #[serde(default, skip_serializing_if = "Metadata::is_empty")]
        pub metadata: Metadata,
    }
}
