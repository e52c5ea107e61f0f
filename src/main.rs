//! The program `sotto`: reads the command line, does what it says, and tells how it ended.

use std::process::ExitCode;

use clap::Parser;
use sotto::cli::{self, Cli, Command};

/// Connections come and go by the thousand, and each leaves holes between what stays: jemalloc fills them better than
/// glibc's allocator, and with less work (`docs/performance.md`).
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(serve) => serve.run(),
        Command::Demo(demo) => demo.run(),
        Command::Migrate(migrate) => migrate.run(),
        Command::Config(config) => config.run(),
        Command::Store(store) => store.run(),
        Command::Keys(keys) => keys.run(),
        Command::User(user) => user.run(),
        Command::Verify(verify) => verify.run(),
        Command::Load(load) => load.run(),
        Command::Cluster(cluster) => cluster.run(),
        Command::Health(health) => health.run(),
        Command::Openapi(openapi) => openapi.run(),
    };
    cli::report(&outcome)
}
