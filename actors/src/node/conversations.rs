//! Conversations as their members see and change them.

use super::{Node, store_problem};
use crate::bus::event::Event;
use crate::conversation::{self, MembersMoved};
use crate::render;
use crate::room::Room;
use serde_json::json;
use sotto_protocol::conversation::{Conversation as ConversationView, ConversationType, CreateConversation, Member};
use sotto_protocol::{ConversationId, DeviceId, ErrorCode, Problem, Timestamp, UserId, limits, text};
use sotto_schema::rows::sign_in::Reached;
use sotto_schema::rows::{Created, MemberChange, MembersChanged, NewConversation, ShownConversation, ShownMember};
use uuid::Uuid;

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
        let notices = self.limits().notices_per_hour();
        let made = self.store().create_conversation(new, notices, Timestamp::now()).await.map_err(store_problem)?;
        let (id, is_new) = match made {
            Created::Done { id, is_new } => (id, is_new),
            Created::NoSuchUser => return Err(Problem::not_found()),
            Created::Limited(reached) => return Err(limited(&reached)),
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
        let shown = self.store().shown_conversation(id, user).await.map_err(store_problem)?;
        shown.map(view).ok_or_else(Problem::not_found)
    }

    /// A page of a user's conversations, newest first, before one of them; `true` if more follow. It ends at 1 MiB, but
    /// never below one.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn list_conversations(
        &self,
        user: UserId,
        device: DeviceId,
        before: Option<ConversationId>,
        limit: usize,
    ) -> Result<(Vec<ConversationView>, bool), Problem> {
        // One more than asked for tells whether there is a next page.
        let wanted = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
        let ids = self.store().list_conversations(user, before, wanted).await.map_err(store_problem)?;
        let more = ids.len() > limit;
        let (mut views, mut room) = (Vec::new(), Room::of_page(limit));
        for id in ids.into_iter().take(limit) {
            match self.conversation(user, device, id).await {
                Ok(view) if room.take(render::size(&view)) => views.push(view),
                Ok(_) => return Ok((views, true)),
                Err(problem) if problem.code == ErrorCode::NotFound => {}
                Err(problem) => return Err(problem),
            }
        }
        Ok((views, more))
    }

    /// A page of a conversation's members in the order of their ids, after one of them; `true` if more follow.
    ///
    /// # Errors
    /// 404 when the caller never was a member, 403 when he is none any more, `unavailable`.
    pub async fn members(
        &self,
        user: UserId,
        id: ConversationId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<(Vec<Member>, bool), Problem> {
        match self.store().is_member(id, user).await.map_err(store_problem)? {
            Some(true) => {}
            Some(false) => {
                return Err(Problem::new(ErrorCode::Forbidden, "you are no longer a member of this conversation"));
            }
            None => return Err(Problem::not_found()),
        }
        let after = after.unwrap_or(UserId(Uuid::nil()));
        let wanted = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
        let mut rows = self.store().members_after(id, after, wanted).await.map_err(store_problem)?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        Ok((rows.into_iter().map(member).collect(), more))
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
        let notices = self.limits().notices_per_hour();
        let changed = self.store().change_members(id, user, change, notices, Timestamp::now());
        let changed = changed.await.map_err(store_problem)?;
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
            MembersChanged::Limited(reached) => Err(limited(&reached)),
            MembersChanged::NotFound | MembersChanged::NoSuchUser | MembersChanged::NoSuchMember => {
                Err(Problem::not_found())
            }
            MembersChanged::Forbidden => Err(Problem::new(ErrorCode::Forbidden, "your role does not allow this here")),
            MembersChanged::TooOften => Err(Problem::new(
                ErrorCode::LimitReached,
                format!("a user can be added to a group {} times", limits::MAX_STAYS),
            )),
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

/// The refusal of a change that would notify too many users.
fn limited(reached: &Reached) -> Problem {
    let limit = json!({ "name": reached.kind, "quota": reached.most, "window": reached.span.as_secs() });
    Problem::rate_limited(u64::try_from(reached.wait.as_millis()).unwrap_or(u64::MAX)).with("limit", limit)
}

/// A conversation on the wire. A former member sees neither who is there now nor how far they are, nor whether that
/// changes.
pub(super) fn view(shown: ShownConversation) -> ConversationView {
    let conversation = shown.conversation;
    ConversationView {
        conversation_id: conversation.id,
        kind: conversation.kind,
        name: conversation.name,
        members: shown.members.into_iter().map(member).collect(),
        member_count: u32::try_from(shown.member_count).unwrap_or(u32::MAX),
        created_at: conversation.created_at,
        last_seq: shown.left_at.unwrap_or(conversation.last_seq),
        read_up_to: shown.read_up_to,
        delivered_up_to: shown.delivered_up_to,
        roster: if shown.left_at.is_none() {
            conversation::roster(conversation.membership_version, shown.device_versions)
        } else {
            String::new()
        },
    }
}

fn member(shown: ShownMember) -> Member {
    Member {
        user_id: shown.user_id,
        role: shown.role,
        joined_at: shown.joined_at,
        read_up_to: shown.read_up_to,
        delivered_up_to: shown.delivered_up_to,
    }
}
