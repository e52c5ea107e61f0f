//! Conversations as their members see and change them.

use super::{Node, store_problem};
use crate::bus::event::Event;
use crate::conversation::{self, MembersMoved};
use sotto_protocol::conversation::{Conversation as ConversationView, ConversationType, CreateConversation, Member};
use sotto_protocol::{ConversationId, DeviceId, ErrorCode, Problem, Timestamp, UserId, limits, text};
use sotto_schema::rows::{ConversationState, MemberChange, MembersChanged, NewConversation};

impl Node {
    /// Makes a conversation, or finds the direct one that the pair has: `false`.
    ///
    /// # Errors
    /// 422 for wrong members or names, 404 for users that do not exist, 429.
    pub async fn create_conversation(
        &self,
        user: UserId,
        device: DeviceId,
        body: CreateConversation,
    ) -> Result<(ConversationView, bool), Problem> {
        let mut members: Vec<UserId> = body.members.clone();
        members.sort_unstable();
        members.dedup();
        match body.kind {
            ConversationType::Direct => {
                if members.contains(&user) {
                    return Err(Problem::field("/members", "oneself"));
                }
                if members.len() != 1 || body.members.len() != 1 {
                    return Err(Problem::field("/members", "exactly_one"));
                }
                if body.name.is_some() {
                    return Err(Problem::field("/name", "not_for_direct"));
                }
            }
            ConversationType::Group => {
                if let Some(name) = &body.name {
                    text::check("/name", name, limits::MAX_NAME, true)?;
                }
            }
        }
        if !members.contains(&user) {
            members.push(user);
        }
        if members.len() > limits::MAX_MEMBERS {
            return Err(Problem::field("/members", "too_many"));
        }
        let new = NewConversation { kind: body.kind, name: body.name, creator: user, members: members.clone() };
        if let Some(pair) = new.direct_pair()
            && let Some(id) = self.store().direct_conversation(pair).await.map_err(store_problem)?
        {
            // Finding what is there counts for nothing.
            return Ok((self.conversation(user, device, id).await?, false));
        }
        let decision = self.limits().conversation(user).await;
        if !decision.allowed {
            return Err(decision.refusal("conversations"));
        }
        let made = self.store().create_conversation(new, Timestamp::now()).await.map_err(store_problem)?;
        let Some((id, is_new)) = made else {
            return Err(Problem::not_found());
        };
        if is_new {
            self.account_moved(&members).await;
        }
        Ok((self.conversation(user, device, id).await?, is_new))
    }

    /// A conversation as one of its members sees it; former members see what was theirs.
    ///
    /// # Errors
    /// 404 when the caller never was a member.
    pub async fn conversation(
        &self,
        user: UserId,
        _device: DeviceId,
        id: ConversationId,
    ) -> Result<ConversationView, Problem> {
        let state = self.store().conversation_state(id).await.map_err(store_problem)?;
        state.and_then(|state| view(&state, user)).ok_or_else(Problem::not_found)
    }

    /// A user's conversations, newest first, before one of them.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn list_conversations(
        &self,
        user: UserId,
        device: DeviceId,
        before: Option<ConversationId>,
        limit: i64,
    ) -> Result<Vec<ConversationView>, Problem> {
        let ids = self.store().list_conversations(user, before, limit).await.map_err(store_problem)?;
        let mut views = Vec::with_capacity(ids.len());
        for id in ids {
            match self.conversation(user, device, id).await {
                Ok(view) => views.push(view),
                Err(problem) if problem.code == ErrorCode::NotFound => {}
                Err(problem) => return Err(problem),
            }
        }
        Ok(views)
    }

    /// Adds members to a group.
    ///
    /// # Errors
    /// 404, 403, 409 `limit_reached`, 422.
    pub async fn add_members(&self, user: UserId, id: ConversationId, users: Vec<UserId>) -> Result<(), Problem> {
        self.change_members(user, id, MemberChange::Add(distinct(users)?)).await
    }

    /// Removes members from a group; oneself alone: leaves.
    ///
    /// # Errors
    /// 404, 403, 422.
    pub async fn remove_members(&self, user: UserId, id: ConversationId, users: Vec<UserId>) -> Result<(), Problem> {
        self.change_members(user, id, MemberChange::Remove(distinct(users)?)).await
    }

    async fn change_members(&self, user: UserId, id: ConversationId, change: MemberChange) -> Result<(), Problem> {
        let changed = self.store().change_members(id, user, change, Timestamp::now()).await.map_err(store_problem)?;
        match changed {
            MembersChanged::Done { seq, told } => {
                self.bus().tell(|| told.clone(), || Event::Members(id, seq));
                if self.tell_conversation(id, MembersMoved { seq }).is_err() {
                    self.repair_conversation(id);
                }
                self.account_moved(&told).await;
                Ok(())
            }
            MembersChanged::Nothing => Ok(()),
            MembersChanged::NotFound | MembersChanged::NoSuchUser | MembersChanged::NoSuchMember => {
                Err(Problem::not_found())
            }
            MembersChanged::Forbidden => Err(Problem::new(ErrorCode::Forbidden, "your role does not allow this here")),
            MembersChanged::TooMany => Err(Problem::new(
                ErrorCode::LimitReached,
                format!("a group has at most {} members", limits::MAX_MEMBERS),
            )),
        }
    }
}

/// Users named once each; none is an error.
fn distinct(mut users: Vec<UserId>) -> Result<Vec<UserId>, Problem> {
    users.sort_unstable();
    users.dedup();
    if users.is_empty() {
        return Err(Problem::field("/user_ids", "empty"));
    }
    if users.len() > limits::MAX_MEMBERS {
        return Err(Problem::field("/user_ids", "too_many"));
    }
    Ok(users)
}

/// A conversation as a user sees it; `None`: he never was a member.
pub(super) fn view(state: &ConversationState, user: UserId) -> Option<ConversationView> {
    let own = state.members.iter().filter(|row| row.user_id == user).max_by_key(|row| row.from_seq)?;
    let is_member = own.to_seq.is_none();
    let lowest = |user: UserId| {
        state.devices.iter().filter(|device| device.user_id == user).map(|device| device.delivered_up_to).min()
    };
    let present = state.members.iter().filter(|row| row.to_seq.is_none());
    let device_versions = present.clone().map(|row| row.device_version).sum();
    // A former member sees neither who is there now nor how far they are, nor whether that changes.
    let members = present
        .filter(|_| is_member)
        .map(|row| Member {
            user_id: row.user_id,
            role: row.role,
            joined_at: row.joined_at,
            read_up_to: row.read_up_to,
            delivered_up_to: lowest(row.user_id).unwrap_or(0),
        })
        .collect();
    let conversation = &state.conversation;
    Some(ConversationView {
        conversation_id: conversation.id,
        kind: conversation.kind,
        name: conversation.name.clone(),
        members,
        created_at: conversation.created_at,
        last_seq: own.to_seq.unwrap_or(conversation.last_seq),
        read_up_to: own.read_up_to,
        delivered_up_to: lowest(user).unwrap_or(0),
        roster: if is_member {
            conversation::roster(conversation.membership_version, device_versions)
        } else {
            String::new()
        },
    })
}
