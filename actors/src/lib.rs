//! stub
pub mod echo;
pub mod socket;
pub mod socket_driver;
