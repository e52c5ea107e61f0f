//! Who talks to whom under the faults: six people with eight devices, four direct conversations and a group.

use crate::support::node::TestNode;
use crate::support::people::{Device, register, second_device};
use sotto_client::protocol::ConversationId;
use sotto_client::protocol::conversation::{ConversationType, CreateConversation};
use sotto_harness::Account;

/// Signs everybody in at a node. All devices of all members are among the accounts.
pub async fn accounts(node: &TestNode) -> Vec<Account> {
    let mut users: Vec<Vec<Device>> = Vec::new();
    for name in ["ann", "ben", "cyd", "dan", "eva", "fay"] {
        users.push(vec![register(node, name).await]);
    }
    for user in &mut users[..2] {
        let second = second_device(node, &user[0], "tablet").await;
        user.push(second);
    }
    let mut conversations: Vec<Vec<ConversationId>> = vec![Vec::new(); users.len()];
    for members in [vec![0, 1], vec![2, 3], vec![4, 5], vec![0, 2], vec![0, 1, 2, 3, 4, 5]] {
        let kind = if members.len() == 2 { ConversationType::Direct } else { ConversationType::Group };
        let others = members[1..].iter().map(|member| users[*member][0].user_id).collect();
        let request = CreateConversation { kind, members: others, name: None };
        let made = users[members[0]][0].rest.create_conversation(&request, None).await.expect("a conversation");
        for member in members {
            conversations[member].push(made.0.conversation_id);
        }
    }
    let mut accounts = Vec::new();
    for (devices, conversations) in users.into_iter().zip(conversations) {
        accounts.extend(devices.into_iter().map(|device| Account {
            user_id: device.user_id,
            device_id: device.device_id,
            access_token: device.tokens.access_token,
            conversations: conversations.clone(),
        }));
    }
    accounts
}
