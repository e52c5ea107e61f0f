//! What a node is called, and where it would meet others.

use super::{section::section, url::Url};

section! {
    /// Several nodes. This version runs as one node.
    pub struct Cluster in "cluster" {
        /// Redis for registry and bus. Not in this version yet: a value is refused.
        /// `SOTTO_CLUSTER__REDIS_URL`
        pub redis_url: Option<Url> = None;
        /// The node's name in `welcome.node` and in metrics: letters, digits, `-`, `_` and `.`, at most 64.
        /// `SOTTO_CLUSTER__NODE_ID`
        pub node_id: Option<String> = None, unset means "random, kept in `data.dir`";
    }
}
