//! How much one user, address or number may do in a span of time.

use super::{section::section, value::Seconds};

section! {
    /// Rate limits. What goes beyond is answered 429 `rate_limited` with `Retry-After`.
    pub struct Limits in "limits" {
        /// `false` switches all of them off but the tries of a code, for load tests; works only on loopback or with `dev.insecure`.
        /// `SOTTO_LIMITS__ENABLED`
        pub enabled: bool = true;
        /// Messages a user may send a minute.
        /// `SOTTO_LIMITS__MESSAGES_PER_MINUTE`
        pub messages_per_minute: u32 = 20, within 1..=1_000_000;
        /// Requests a user may make a minute.
        /// `SOTTO_LIMITS__REQUESTS_PER_MINUTE`
        pub requests_per_minute: u32 = 100, within 1..=1_000_000;
        /// Conversations a user may begin an hour.
        /// `SOTTO_LIMITS__CONVERSATIONS_PER_HOUR`
        pub conversations_per_hour: u32 = 20, within 1..=1_000_000;
        /// Read marks a user may set a minute, over socket and REST together.
        /// `SOTTO_LIMITS__READ_MARKS_PER_MINUTE`
        pub read_marks_per_minute: u32 = 300, within 1..=1_000_000;
        /// Users that one user may notify an hour by new groups, by changes of members, and by a new registration id (`PUT /v1/keys`): each notice is a write into another user's log. A bucket that fills evenly; a change that notifies more than the whole limit takes all of it. Leaving a group, signing in and removing devices are not counted. Counted in the database; without it these changes are not possible.
        /// `SOTTO_LIMITS__NOTIFIED_USERS_PER_HOUR`
        pub notified_users_per_hour: u32 = 20_000, within 1..=1_000_000;
        /// Wrong codes from one network that is not signed in (IPv4 address, IPv6 /64), and again as many from the devices of one account, within `limits.failed_sign_in_window`. Counted in the database; without it codes are refused.
        /// `SOTTO_LIMITS__FAILED_SIGN_INS`
        pub failed_sign_ins: u32 = 5, within 1..=1_000_000;
        /// The span in which failed sign-ins are counted.
        /// `SOTTO_LIMITS__FAILED_SIGN_IN_WINDOW`
        pub failed_sign_in_window: Seconds = Seconds(900), within 1..=86_400;
        /// Codes to one number an hour that strangers may ask for; as many again for each network that its account signed in from in the last 90 days.
        /// `SOTTO_LIMITS__CODES_PER_NUMBER_PER_HOUR`
        pub codes_per_number_per_hour: u32 = 3, within 1..=1_000_000;
        /// The same a day.
        /// `SOTTO_LIMITS__CODES_PER_NUMBER_PER_DAY`
        pub codes_per_number_per_day: u32 = 10, within 1..=1_000_000;
        /// Codes an hour that the signed-in devices of an account may ask for, for its own number and the one that it changes to. They count against nothing that strangers can exhaust.
        /// `SOTTO_LIMITS__CODES_PER_ACCOUNT_PER_HOUR`
        pub codes_per_account_per_hour: u32 = 6, within 1..=1_000_000;
        /// The same a day.
        /// `SOTTO_LIMITS__CODES_PER_ACCOUNT_PER_DAY`
        pub codes_per_account_per_day: u32 = 20, within 1..=1_000_000;
        /// Codes for one block of ten thousand numbers (all but the last four digits the same) an hour that strangers may ask for. Counted in the database; without it no code is sent.
        /// `SOTTO_LIMITS__CODES_PER_BLOCK_PER_HOUR`
        pub codes_per_block_per_hour: u32 = 50, within 1..=1_000_000;
        /// Codes asked for from one IPv4 address or IPv6 /64 an hour.
        /// `SOTTO_LIMITS__CODES_PER_HOST_PER_HOUR`
        pub codes_per_host_per_hour: u32 = 10, within 1..=1_000_000;
        /// Codes asked for from one network (IPv4 /24, IPv6 /48) an hour; as many again for numbers whose accounts signed in from there.
        /// `SOTTO_LIMITS__CODES_PER_ADDRESS_PER_HOUR`
        pub codes_per_address_per_hour: u32 = 20, within 1..=1_000_000;
        /// Codes asked for from one wide network (IPv4 /16, IPv6 /32) an hour.
        /// `SOTTO_LIMITS__CODES_PER_REGION_PER_HOUR`
        pub codes_per_region_per_hour: u32 = 200, within 1..=1_000_000;
        /// Codes asked of this node an hour for all numbers together; a quarter is kept for purposes that need an account, an eighth for signed-in devices and known networks. What they may cost over all nodes is `sms.budget_per_hour`.
        /// `SOTTO_LIMITS__CODES_PER_NODE_PER_HOUR`
        pub codes_per_node_per_hour: u32 = 1_000, within 1..=1_000_000;
        /// Devices from one network (IPv4 /24, IPv6 /48) an hour that may ask to be linked to an account. Counted in the database; without it they are refused.
        /// `SOTTO_LIMITS__LINKS_PER_ADDRESS_PER_HOUR`
        pub links_per_address_per_hour: u32 = 20, within 1..=1_000_000;
        /// The same for all that ask this node.
        /// `SOTTO_LIMITS__LINKS_PER_NODE_PER_HOUR`
        pub links_per_node_per_hour: u32 = 1_000, within 1..=1_000_000;
        /// Wrong second factors per account within `limits.failed_sign_in_window`, at sign-in, and again as many by its signed-in devices. Counted in the database; without it they are refused.
        /// `SOTTO_LIMITS__WRONG_SECOND_FACTORS`
        pub wrong_second_factors: u32 = 5, within 1..=1_000_000;
        /// The same a day.
        /// `SOTTO_LIMITS__WRONG_SECOND_FACTORS_PER_DAY`
        pub wrong_second_factors_per_day: u32 = 15, within 1..=1_000_000;
        /// Wrong PINs of a registration lock per account and day, at sign-in, and again as many by its signed-in devices. Counted in the database; without it they are refused.
        /// `SOTTO_LIMITS__WRONG_PINS_PER_DAY`
        pub wrong_pins_per_day: u32 = 5, within 1..=1_000_000;
        /// Codes, sign-ins and links of new devices that one network (IPv4 address, IPv6 /64) may ask for a minute, right or wrong. Counted by each node alone, as are the next four.
        /// `SOTTO_LIMITS__SIGN_INS_PER_NETWORK_PER_MINUTE`
        pub sign_ins_per_network_per_minute: u32 = 120, within 1..=1_000_000;
        /// Refreshes of tokens of one network a minute, and looks of new devices whether their link is confirmed.
        /// `SOTTO_LIMITS__REFRESHES_PER_NETWORK_PER_MINUTE`
        pub refreshes_per_network_per_minute: u32 = 240, within 1..=1_000_000;
        /// Sockets that one network may open a minute.
        /// `SOTTO_LIMITS__SOCKETS_PER_NETWORK_PER_MINUTE`
        pub sockets_per_network_per_minute: u32 = 300, within 1..=1_000_000;
        /// Pages and documents (`/`, `/openapi.json`, `/metrics`, `/docs`) of one network a minute.
        /// `SOTTO_LIMITS__PAGES_PER_NETWORK_PER_MINUTE`
        pub pages_per_network_per_minute: u32 = 240, within 1..=1_000_000;
        /// `/livez`, `/readyz` and `/health` of one network a minute.
        /// `SOTTO_LIMITS__PROBES_PER_NETWORK_PER_MINUTE`
        pub probes_per_network_per_minute: u32 = 3_000, within 1..=1_000_000;
        /// One-time keys that one user may claim of another at once; above that the last resort is given.
        /// `SOTTO_LIMITS__KEY_CLAIMS`
        pub key_claims: u32 = 6, within 1..=1_000_000;
        /// The span after which one more claim is free.
        /// `SOTTO_LIMITS__KEY_CLAIM_INTERVAL`
        pub key_claim_interval: Seconds = Seconds(600), within 1..=86_400;
        /// Numbers an account may look up in its first day.
        /// `SOTTO_LIMITS__LOOKUPS_FIRST_DAY`
        pub lookups_first_day: u32 = 1_000, within 1..=1_000_000;
        /// Numbers an account may look up each day after its first.
        /// `SOTTO_LIMITS__LOOKUPS_PER_DAY`
        pub lookups_per_day: u32 = 200, within 1..=1_000_000;
    }
}
