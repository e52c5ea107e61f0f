//! What a node is called, and where it would meet others.

use super::{section::section, url::Url};

section! {
    /// Several nodes on one PostgreSQL: any of them serves any device.
    pub struct Cluster in "cluster" {
        /// Redis, which makes delivery between nodes fast: `redis://[USER:PASSWORD@]HOST:PORT/DB`, or `redis+sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT/NAME/DB` for the primary that Sentinels name. Unset: registry and bus live in the process, and nodes meet in the database only. A Redis Cluster is refused.
        /// `SOTTO_CLUSTER__REDIS_URL`
        pub redis_url: Option<Url> = None;
        /// The node's name in `welcome.node` and in metrics: letters, digits, `-`, `_` and `.`, at most 64.
        /// `SOTTO_CLUSTER__NODE_ID`
        pub node_id: Option<String> = None, unset means "random, kept in `data.dir`";
    }
}
