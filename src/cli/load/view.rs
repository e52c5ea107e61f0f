//! The live view of a load run: the whole terminal, fed once per second.
//!
//! [`State`] takes what was measured, [`page`] draws it, [`screen`] is the terminal, and [`View`] is the thread between
//! them: keys are answered and a new size is drawn at once, however busy the run is.

mod page;
mod screen;
mod state;

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use sotto_harness::load::Moment;

pub use self::state::{Header, Totals};
use self::{
    screen::{Input, Screen},
    state::State,
};

/// How soon a key or new figures are seen.
const BLINK: Duration = Duration::from_millis(100);

/// The terminal while a run lasts. It is given back when this is finished or dropped, and when the program panics.
///
/// A signal that ends the program at once leaves the terminal as it is: whoever shows a view turns SIGTERM and SIGHUP
/// into an end of the run. Ctrl-C is no signal meanwhile but a key, see [`View::stop_wanted`].
#[derive(Debug)]
pub struct View {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// What the run and the view's thread share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// There is something new to draw.
    is_new: AtomicBool,
    /// The thread is to end.
    is_over: AtomicBool,
    /// How often a stop was asked for.
    stops: AtomicU8,
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut State)) {
        // The state is whole after each of its methods: one that panicked has done nothing yet.
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.is_new.store(true, Ordering::Release);
    }
}

impl View {
    /// Takes the terminal and shows an empty page. Only for a standard output that is a terminal.
    ///
    /// # Errors
    /// When the terminal cannot be used so, or another view has it.
    pub fn start(header: Header) -> io::Result<Self> {
        let screen = Screen::open()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(header)),
            is_new: AtomicBool::new(true),
            is_over: AtomicBool::new(false),
            stops: AtomicU8::new(0),
        });
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("view".to_owned()).spawn(move || show(screen, &own))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Shows another second.
    pub fn update(&self, moment: &Moment, totals: Totals) {
        self.shared.change(|state| state.take(moment, totals));
    }

    /// Says what the run is doing, in a few words, in place of warm-up and measuring: `preparing 10,000 accounts`.
    /// None: again what follows from the time.
    pub fn stage(&self, stage: Option<String>) {
        self.shared.change(|state| state.set_stage(stage));
    }

    /// Whether the person has asked to stop early, in order: with what was measured so far, and a settled ledger.
    #[must_use]
    pub fn stop_wanted(&self) -> bool {
        self.shared.stops.load(Ordering::Acquire) > 0
    }

    /// Whether the person has asked again, and wants to leave without waiting for what is under way.
    #[must_use]
    pub fn leave_wanted(&self) -> bool {
        self.shared.stops.load(Ordering::Acquire) > 1
    }

    /// Gives the terminal back.
    ///
    /// # Errors
    /// When the view ended before, because the terminal failed. The terminal is given back all the same.
    pub fn finish(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        self.shared.is_over.store(true, Ordering::Release);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_panic| Err(io::Error::other("the view panicked")))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // Whoever wants to know calls `finish`.
        let _is_over_anyway = self.end();
    }
}

/// The view's thread. The screen is given back however it ends.
fn show(mut screen: Screen, shared: &Shared) -> io::Result<()> {
    while screen.is_ours() && !shared.is_over.load(Ordering::Acquire) {
        if shared.is_new.swap(false, Ordering::AcqRel) {
            // Drawn from a copy: a slow terminal must not hold up the run.
            let state = shared.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
            screen.draw(&state)?;
        }
        match screen.input(BLINK)? {
            Some(Input::Stop) => {
                let _before = shared.stops.fetch_add(1, Ordering::AcqRel);
                shared.change(State::stop);
            }
            Some(Input::Resize) => shared.is_new.store(true, Ordering::Release),
            None => {}
        }
    }
    Ok(())
}
