//! Links of new devices to accounts.

use crate::device_link::Deciding;
use crate::rows::device_link::{LinkBegun, LinkCollected, LinkConfirmed, LinkRow, NewLink};
use crate::rows::reauthentication::Proof;
use crate::rows::sign_in::{Allowance, NewSession};
use sotto_protocol::{DeviceId, LinkId, Timestamp, UserId};

super::facade! {
    /// Stores a link that begins, if the limits allow.
    write fn begin_device_link(new: NewLink, allowances: Vec<Allowance>, now: Timestamp) -> LinkBegun = device_link::begin;
    /// A link.
    read fn device_link(id: LinkId) -> Option<LinkRow> = device_link::find;
    /// An account shows the QR code; the first one that shows the right one binds the link. `false`: there is none for it.
    write fn scan_device_link(id: LinkId, account: UserId, is_right: bool, now: Timestamp) -> bool = device_link::scan;
    /// An account confirms a link that it has scanned, if the proof holds.
    write fn confirm_device_link(id: LinkId, is_right: bool, proof: Proof) -> LinkConfirmed = device_link::confirm;
    /// An account refuses a link that it has scanned.
    write fn refuse_device_link(id: LinkId, account: UserId, is_right: bool, now: Timestamp) -> Deciding = device_link::refuse;
    /// Refuses the confirmed links of an account that no device has used, but for those that `keeper` confirmed. Returns how many.
    write fn refuse_device_links(account: UserId, keeper: DeviceId, now: Timestamp) -> usize = device_link::refuse_confirmed;
    /// The new device, which has shown that it is the one, joins the account under this id and with this family.
    write fn collect_device_link(id: LinkId, device: DeviceId, session: NewSession, signed_prekey_expires_at: Timestamp, now: Timestamp) -> LinkCollected = device_link::collect;
    /// Removes links that have ended. Returns how many.
    write fn sweep_device_links(now: Timestamp) -> usize = device_link::sweep;
}
