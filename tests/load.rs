//! `sotto load`: that it runs every scenario against real nodes. That it measures what is stands in `tests/honest`.

mod command;
mod target;

pub use self::command::measured;
