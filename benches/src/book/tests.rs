//! Made-up histories: each kind of broken promise is found, and its clean twin is not.
