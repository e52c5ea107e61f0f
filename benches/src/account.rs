//! Who is driven: devices with their tokens, as `sotto user seed` writes them.

use std::collections::HashMap;

use serde::Deserialize;
use sotto_client::protocol::{ConversationId, DeviceId, UserId};

use crate::HarnessError;

/// A signed-in device and the conversations that it takes part in.
#[derive(Clone)]
pub struct Account {
    /// Whose device.
    pub user_id: UserId,
    /// The device.
    pub device_id: DeviceId,
    /// Valid for as long as the run takes.
    pub access_token: String,
    /// At least one.
    pub conversations: Vec<ConversationId>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Account").field("device_id", &self.device_id).finish_non_exhaustive()
    }
}

/// A line of the file; what a driver has no use for is passed over.
#[derive(Deserialize)]
struct Line {
    user_id: UserId,
    device_id: DeviceId,
    access_token: String,
    conversation_id: ConversationId,
}

/// Reads JSON lines as `sotto user seed` writes them. Several lines of one device are one account in several
/// conversations; empty lines are passed over.
///
/// # Errors
/// [`HarnessError::Accounts`] with the number of the line that is none.
pub fn read_accounts(text: &str) -> Result<Vec<Account>, HarnessError> {
    let mut accounts: Vec<Account> = Vec::new();
    let mut places: HashMap<DeviceId, usize> = HashMap::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        // The reason tells a place and never the text, in which a token stands.
        let line: Line = serde_json::from_str(line).map_err(|error| HarnessError::Accounts {
            line: index + 1,
            reason: format!("not what `sotto user seed` writes (column {})", error.column()),
        })?;
        if let Some(account) = places.get(&line.device_id).and_then(|place| accounts.get_mut(*place)) {
            if !account.conversations.contains(&line.conversation_id) {
                account.conversations.push(line.conversation_id);
            }
            continue;
        }
        places.insert(line.device_id, accounts.len());
        accounts.push(Account {
            user_id: line.user_id,
            device_id: line.device_id,
            access_token: line.access_token,
            conversations: vec![line.conversation_id],
        });
    }
    Ok(accounts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(device: u128, conversation: u128) -> String {
        let id = |number| uuid::Uuid::from_u128(number);
        format!(
            r#"{{"user_id":"{}","device_id":"{}","access_token":"secret","conversation_id":"{}","peer_user_id":"{}"}}"#,
            id(device),
            id(device),
            id(conversation),
            id(9)
        )
    }

    #[test]
    fn lines_of_one_device_are_one_account() {
        let text = format!("{}\n\n{}\n{}\n", line(1, 5), line(2, 5), line(1, 6));
        let accounts = read_accounts(&text).unwrap();
        assert_eq!(accounts.len(), 2);
        assert_eq!(accounts[0].conversations.len(), 2);
        assert!(!format!("{accounts:?}").contains("secret"));
    }

    #[test]
    fn a_line_that_is_none_is_named_without_its_text() {
        let error = read_accounts(&format!("{}\n{{\"access_token\":\"secret\"}}", line(1, 5))).unwrap_err().to_string();
        assert!(error.starts_with("line 2 of the accounts") && !error.contains("secret"), "{error}");
    }
}
