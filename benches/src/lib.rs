//! Drives a running Sotto from outside, and keeps a ledger of what it promised.
