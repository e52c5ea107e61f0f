//! Whatever strangers send: each answer is a problem of the contract, nobody waits for ever, and nothing has changed.

pub mod cases;
mod change;
mod frames;
mod fuzz;
mod ids;
mod leaks;
mod room;
mod routes;
mod tcp;
mod tokens;
