//! Attacks that were possible once. Each file holds one kind, and fails on the code from before its cure.

mod exports;
mod fan_out;
mod signals;
