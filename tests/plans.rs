//! What the statements of the hot path read, by PostgreSQL's own count: the rows that are asked for, and never a table from
//! end to end, however small it was when the statement was planned.

use crate::load::measured;
use crate::support::database::{Kind, connect};
use crate::support::node::TestNode;
use crate::verify::seeded;

/// Rows and index entries of one table that a message or a connect may cost. A look into each is one; the widest does ten.
const MOST: i64 = 12;

/// Rows and index entries read since the counters were set back, by table.
async fn read(node: &TestNode) -> Vec<(String, i64)> {
    let text = "SELECT t.relname::text, t.seq_tup_read + COALESCE((SELECT SUM(GREATEST(i.idx_tup_read, i.idx_tup_fetch)) \
        FROM pg_stat_user_indexes i WHERE i.relid = t.relid), 0)::bigint FROM pg_stat_user_tables t ORDER BY 2 DESC";
    let rows = connect(&node.store_url).await.query(text, &[]).await.expect("the counters");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

async fn command(node: &TestNode, text: &str) {
    connect(&node.store_url).await.batch_execute(text).await.expect("the database does as it is told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_that_were_planned_on_empty_tables_read_no_table_from_end_to_end() {
    let mut node = TestNode::start(Kind::Postgres).await;
    seeded(&node, &["--count", "400", "--pairs"]).await;
    // What actix-server may say when the listener closes under its loop.
    node.expect_log("actix_server::accept");
    // The worst that can be known of a table: that it is empty. Plans are made anew after it, and kept.
    node.terminate().await;
    command(&node, "VACUUM ANALYZE").await;
    node.restart().await;
    command(&node, "SELECT pg_stat_reset()").await;
    let brief = ["--seconds", "3", "--warmup", "0"];
    let run = async |scenario: &[&'static str]| measured(&node, &[scenario, &brief].concat()).await;
    run(&["rate", "--pairs", "50", "--rate", "100"]).await;
    run(&["pairs", "--pairs", "200", "--window", "4"]).await;
    run(&["connect", "--connections", "400", "--at-once", "16"]).await;
    // A backend tells its counts when it ends, at the latest.
    node.terminate().await;
    let count =
        "SELECT (SELECT COUNT(*) FROM messages), (SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'devices')";
    let row = connect(&node.store_url).await.query_one(count, &[]).await.expect("counts");
    let (messages, arrivals): (i64, i64) = (row.get(0), row.get(1));
    assert!(messages > 500 && arrivals > 500, "too little to judge by: {messages} messages, {arrivals} arrivals");
    let all = read(&node).await;
    let bound = MOST * (messages + arrivals);
    let much: Vec<_> = all.iter().filter(|(_, read)| *read > bound).collect();
    assert!(much.is_empty(), "{messages} messages, {arrivals} arrivals, at most {bound} per table: {all:?}");
}
