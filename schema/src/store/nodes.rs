//! Nodes as they see each other.

use crate::append::Wake;
use crate::rows::nodes::{NewerRow, NodeReport, NodeRow};
use sotto_protocol::DeviceId;

super::facade! {
    /// Writes a node's row by the database's clock, removes those that nobody has written for a minute, and reads all.
    write fn report_node(report: NodeReport) -> Vec<NodeRow> = nodes::report;
    /// Every node that was seen within a minute or so, by name.
    read fn nodes() -> Vec<NodeRow> = nodes::list;
    /// Removes the row of a node that ends in order.
    write fn remove_node(incarnation: uuid::Uuid) -> usize = nodes::remove;
    /// Commits a wake that nothing has caused, for every sweep to read.
    write fn canary(wake: Wake) -> () = nodes::canary;
    /// Of these devices with the numbers of their connections: those that have claimed a higher number since.
    read fn newer_connections(known: Vec<(DeviceId, i64)>) -> Vec<NewerRow> = nodes::newer;
}
