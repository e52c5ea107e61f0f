//! The bus of a single node: straight to its own actors.

use crate::node::Node;
use sotto_schema::append::Wake;

/// There is nobody else.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalBus;

impl LocalBus {
    #[allow(clippy::unused_self, reason = "the other backend has a connection")]
    pub(super) fn publish(&self, node: &Node, wake: &Wake) {
        node.wake(wake, false);
    }
}
