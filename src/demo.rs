//! `sotto demo`: a real server, four devices on it, and a story that has to come true.
//!
//! The server is this program once more, as a child process, so that it can really be killed. The devices are the
//! client library, as an application uses it. Every step has a time limit, and every promise is compared with what
//! is there: the first one that does not hold ends the demo with an error.

mod crash;
mod device;
mod error;
mod figures;
mod keep;
mod link;
mod lock;
mod past;
mod proof;
mod scan;
mod server;
mod story;
mod talk;
mod world;

use std::future::Future;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

pub use self::error::DemoError;
use self::server::Server;
use self::story::Story;
use self::world::World;
use crate::shutdown::Shutdown;

/// No step of the story may take longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Plays the story, and with `keep` leaves the server running until a signal comes.
///
/// # Errors
/// Something was not as promised, or was not there in time.
pub async fn run(keep: bool) -> Result<(), DemoError> {
    let began = Instant::now();
    let shutdown = Shutdown::new();
    shutdown.listen_for_signals().map_err(|error| DemoError::files("cannot listen for signals", error))?;
    let plain = crate::config::environment().iter().any(|(name, value)| name == "NO_COLOR" && !value.is_empty());
    let out = io::stdout();
    let coloured = out.is_terminal() && !plain;
    let mut story = Story::new(Box::new(out), coloured, began);
    let folder = tempfile::Builder::new().prefix("sotto-demo-").tempdir();
    let mut folder = folder.map_err(|error| DemoError::files("cannot make a temporary folder", error))?;
    let told = tokio::select! {
        told = tell(&mut story, folder.path(), began, keep) => told,
        () = shutdown.triggered() => Err(DemoError::Interrupted),
    };
    story.flush();
    let world = told.inspect_err(|error| {
        if !matches!(error, DemoError::Interrupted) {
            story.failed(&server::log_tail(folder.path()));
        }
    })?;
    if keep {
        folder.disable_cleanup(true);
        keep::tell(&mut story, &world, folder.path()).await?;
        shutdown.triggered().await;
        story.plain("");
    }
    world.end(&mut story).await?;
    if keep {
        keep::farewell(&mut story, folder.path());
    }
    Ok(())
}

async fn tell(story: &mut Story, folder: &std::path::Path, began: Instant, keep: bool) -> Result<World, DemoError> {
    story.title("Sotto: one server, three people, four devices, end-to-end encrypted, on this machine");
    let server = Server::start(story, folder, keep).await?;
    let mut world = World::begin(story, server, folder).await?;
    talk::direct(story, &mut world).await?;
    talk::group(story, &mut world).await?;
    talk::away(story, &mut world).await?;
    let outage = crash::kill_and_recover(story, &mut world).await?;
    lock::protect(story, &world).await?;
    past::verify(story, &world).await?;
    proof::what_is_stored(story, &world).await?;
    proof::no_plaintext(story, &world, folder)?;
    figures::print(story, &world, &outage, began)?;
    Ok(world)
}

/// Waits for a step, but not for ever.
async fn within<T>(what: impl Into<String>, step: impl Future<Output = T>) -> Result<T, DemoError> {
    let late = |_| DemoError::Late { what: what.into(), patience: PATIENCE };
    tokio::time::timeout(PATIENCE, step).await.map_err(late)
}
