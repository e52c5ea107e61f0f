//! Who is driven: the lines that `sotto user seed` writes, in order.

use std::io::{BufRead as _, BufReader};
use std::path::Path;

use serde::Deserialize;

use super::LoadError;

/// A device and the conversation that it takes part in.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct User {
    /// Whose device.
    pub user_id: String,
    /// The device.
    pub device_id: String,
    /// Valid for as long as the run takes; for other protocols the password.
    pub access_token: String,
    /// Where it writes and reads.
    pub conversation_id: String,
}

impl std::fmt::Debug for User {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("User").field("device_id", &self.device_id).finish_non_exhaustive()
    }
}

/// The first `count` users of a file.
///
/// # Errors
/// When it cannot be read, a line is none, or there are too few.
pub fn read(file: &Path, count: usize) -> Result<Vec<User>, LoadError> {
    let failed =
        |error: std::io::Error| LoadError::Users(format!("cannot read {}: {error}", file.display()), String::new());
    let lines = BufReader::new(std::fs::File::open(file).map_err(failed)?).lines();
    let mut users = Vec::new();
    for (index, line) in lines.enumerate() {
        if users.len() == count {
            break;
        }
        let line = line.map_err(failed)?;
        if line.trim().is_empty() {
            continue;
        }
        // The reason tells a place and never the text, in which a token stands.
        users.push(serde_json::from_str(&line).map_err(|error| {
            let (line, column) = (index + 1, error.column());
            LoadError::Users(
                format!("{}, line {line}: not what `sotto user seed` writes (column {column})", file.display()),
                String::new(),
            )
        })?);
    }
    if users.len() < count {
        let text = format!("{} has {} users, and this scenario needs {count}", file.display(), users.len());
        return Err(LoadError::Users(text, String::new()));
    }
    Ok(users)
}

/// Users by their conversations: each group is a run of neighbours in the file, as `sotto user seed` writes them.
///
/// # Errors
/// When a conversation does not have exactly `members` of them.
pub fn conversations(users: &[User], members: usize) -> Result<(), LoadError> {
    for group in users.chunks(members) {
        let first = group.first().map(|user| &user.conversation_id);
        let is_whole = group.len() == members && group.iter().all(|user| Some(&user.conversation_id) == first);
        if !is_whole {
            let text = format!("the file's conversations do not have {members} members each, one after the other");
            return Err(LoadError::Users(text, String::new()));
        }
    }
    let neighbours = users.chunks(members).zip(users.chunks(members).skip(1));
    for (one, next) in neighbours {
        if one.first().map(|user| &user.conversation_id) == next.first().map(|user| &user.conversation_id) {
            return Err(LoadError::Users(
                format!("the file's conversations have more than {members} members"),
                String::new(),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(conversation: &str) -> User {
        User {
            user_id: "u".into(),
            device_id: "d".into(),
            access_token: "secret".into(),
            conversation_id: conversation.into(),
        }
    }

    #[test]
    fn conversations_have_the_members_that_a_scenario_wants() {
        let pairs: Vec<_> = ["a", "a", "b", "b"].map(user).into();
        assert!(conversations(&pairs, 2).is_ok());
        assert!(conversations(&pairs, 4).is_err());
        let groups: Vec<_> = ["a", "a", "a", "a", "b", "b", "b", "b"].map(user).into();
        assert!(conversations(&groups, 4).is_ok());
        assert!(conversations(&groups, 2).is_err());
    }

    #[test]
    fn a_wrong_line_is_named_without_its_text() {
        let file = std::env::temp_dir().join(format!("sotto-users-{}", std::process::id()));
        std::fs::write(&file, "{\"access_token\":\"secret\"}\n").unwrap();
        let error = read(&file, 1).unwrap_err().to_string();
        assert!(error.contains("line 1") && !error.contains("secret"), "{error}");
        std::fs::write(&file, "").unwrap();
        assert!(read(&file, 1).unwrap_err().to_string().contains("has 0 users"));
        std::fs::remove_file(&file).unwrap();
    }
}
