//! Identifiers: UUIDs with a type each, in lower-case text on the wire.

use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

macro_rules! id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
        )]
        #[serde(transparent)]
        #[schema(value_type = Uuid)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A random (version 4) identifier, which tells nothing about when it was made.
            #[must_use]
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }

            /// An identifier (version 7) that sorts by the time it was made.
            #[must_use]
            pub fn ordered() -> Self {
                Self(Uuid::now_v7())
            }

            /// Reads the hyphenated text form; anything else is `None`.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                Uuid::try_parse(text).ok().map(Self)
            }

            /// The identifier's 16 bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(formatter)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(formatter)
            }
        }

        impl From<Uuid> for $name {
            fn from(value: Uuid) -> Self {
                Self(value)
            }
        }

        impl From<$name> for Uuid {
            fn from(value: $name) -> Self {
                value.0
            }
        }
    };
}

id!(
    /// A person's account.
    UserId
);
id!(
    /// One device of a user: the reader that keys, marks and a socket belong to.
    DeviceId
);
id!(
    /// A direct or group conversation.
    ConversationId
);
id!(
    /// A message, named by the client that sends it (version 7 wanted, any taken).
    MessageId
);
id!(
    /// One request for a sign-in code.
    VerificationId
);
id!(
    /// One WebSocket connection.
    SessionId
);
id!(
    /// One attempt to link a new device to an account.
    LinkId
);
