//! From node to node: what was committed here is told to the nodes where its readers are.
//!
//! The bus only hastens, like the registry. This is the contract; one file per backend stands beside it.

use crate::node::Node;
use sotto_schema::append::Wake;

pub mod local;

/// A backend of the bus.
#[derive(Debug)]
pub enum Bus {
    /// One node: there is nobody else to tell.
    Local(local::LocalBus),
}

impl Bus {
    /// Tells other nodes, and this one, what a commit outside the actors has moved.
    pub fn publish(&self, node: &Node, wake: &Wake) {
        match self {
            Self::Local(local) => local.publish(node, wake),
        }
    }
}
