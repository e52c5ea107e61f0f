//! The terminal that the view has to itself, and gives back whatever happens.

use std::{
    io::{self, Stdout},
    panic,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::Show,
        event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};

use super::{page, state::State};

/// Whether the terminal is in our hands. One for the process, as there is one terminal: a panic in any thread must be
/// able to give it back.
static IS_OURS: AtomicBool = AtomicBool::new(false);
static PANIC_HOOK: Once = Once::new();

/// The terminal, given back when dropped.
#[derive(Debug)]
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

/// What came from the person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// `q`, Escape or Ctrl-C.
    Stop,
    /// The terminal has another size.
    Resize,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When it is none, or is taken already.
    pub fn open() -> io::Result<Self> {
        // Without this, the message of a panic would be lost with the screen that it is written on.
        PANIC_HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                give_back();
                before(panic);
            }));
        });
        if IS_OURS.swap(true, Ordering::AcqRel) {
            return Err(io::Error::other("the terminal is in use by another view"));
        }
        Self::take().inspect_err(|_| give_back())
    }

    fn take() -> io::Result<Self> {
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen)?;
        Ok(Self { terminal: Terminal::new(CrosstermBackend::new(io::stdout()))? })
    }

    /// Whether the terminal is still ours: a panic in any thread gives it back.
    pub fn is_ours(&self) -> bool {
        IS_OURS.load(Ordering::Acquire)
    }

    /// Draws.
    ///
    /// # Errors
    /// When the terminal cannot be written to.
    pub fn draw(&mut self, state: &State) -> io::Result<()> {
        self.terminal.draw(|frame| page::render(frame, state)).map(|_| ())
    }

    /// Waits a while for something to come.
    ///
    /// # Errors
    /// When the terminal cannot be read.
    pub fn input(&self, wait: Duration) -> io::Result<Option<Input>> {
        if !event::poll(wait)? {
            return Ok(None);
        }
        Ok(match event::read()? {
            Event::Key(key) if is_stop(key) => Some(Input::Stop),
            Event::Resize(..) => Some(Input::Resize),
            _ => None,
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn is_stop(key: KeyEvent) -> bool {
    let is_pressed = key.kind == KeyEventKind::Press;
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    is_pressed
        && match key.code {
            KeyCode::Char('c') => is_control,
            KeyCode::Char('q') | KeyCode::Esc => !is_control,
            _ => false,
        }
}

/// Gives the terminal back, once. What cannot be undone now cannot be undone at all, so errors tell nothing.
fn give_back() {
    if IS_OURS.swap(false, Ordering::AcqRel) {
        let _cooked = disable_raw_mode();
        let _left = execute!(io::stdout(), LeaveAlternateScreen, Show);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_keys_stop_a_run() {
        let key = |code, modifiers| KeyEvent::new(code, modifiers);
        assert!(is_stop(key(KeyCode::Char('q'), KeyModifiers::NONE)));
        assert!(is_stop(key(KeyCode::Esc, KeyModifiers::NONE)));
        assert!(is_stop(key(KeyCode::Char('c'), KeyModifiers::CONTROL)));
        assert!(!is_stop(key(KeyCode::Char('c'), KeyModifiers::NONE)));
        assert!(!is_stop(key(KeyCode::Char('q'), KeyModifiers::CONTROL)));
        let released = KeyEvent::new_with_kind(KeyCode::Char('q'), KeyModifiers::NONE, KeyEventKind::Release);
        assert!(!is_stop(released));
    }
}
