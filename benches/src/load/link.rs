//! A TCP connection that never waits, with a wire on it.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

use super::wire::{Event, Wire, WireError};

/// Memory that a connection keeps between two writes; what one turn needed more is given back.
const KEPT: usize = 16 * 1024;

/// A connection of one device.
pub struct Link {
    stream: TcpStream,
    wire: Box<dyn Wire>,
    is_connected: bool,
    /// The beginning of a frame that is not whole yet.
    input: Vec<u8>,
    /// What waits to be written, from `written` on.
    out: Vec<u8>,
    written: usize,
}

/// Why a link is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The system's reason.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The protocol's reason.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The server ended TCP.
    #[error("the connection ended")]
    Ended,
}

impl Link {
    /// Begins to connect, from the given address of this machine if there is one.
    ///
    /// # Errors
    /// When the system has no socket or port left.
    pub fn connect(
        to: SocketAddr,
        from: Option<IpAddr>,
        wire: Box<dyn Wire>,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(from) = from {
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        match socket.connect(&to.into()) {
            Err(error) if !is_under_way(&error) => return Err(error),
            _ => {}
        }
        let mut stream = TcpStream::from_std(socket.into());
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { stream, wire, is_connected: false, input: Vec::new(), out: Vec::new(), written: 0 })
    }

    /// The wire, and where its bytes go; [`Link::flush`] writes them.
    pub fn wire(&mut self) -> (&mut dyn Wire, &mut Vec<u8>) {
        (self.wire.as_mut(), &mut self.out)
    }

    /// The system says that something can be done: reads until there is nothing more, or the scratch was full. Whether
    /// it was, so that there may be more.
    ///
    /// # Errors
    /// When the connection is of no more use; events that came before it are told all the same.
    pub fn ready(&mut self, scratch: &mut [u8], events: &mut Vec<Event>) -> Result<bool, LinkError> {
        if !self.is_connected {
            if let Some(error) = self.stream.take_error()? {
                return Err(error.into());
            }
            match self.stream.peer_addr() {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(false),
                Err(error) => return Err(error.into()),
            }
            self.is_connected = true;
            self.wire.open(&mut self.out);
        }
        let length = match self.stream.read(scratch) {
            Ok(0) => return Err(LinkError::Ended),
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        let is_full = length == scratch.len();
        let read = scratch.get(..length).unwrap_or_default();
        if self.input.is_empty() {
            let used = self.wire.receive(read, &mut self.out, events)?;
            self.input.extend_from_slice(read.get(used..).unwrap_or_default());
        } else {
            self.input.extend_from_slice(read);
            let used = self.wire.receive(&self.input, &mut self.out, events)?;
            self.input.drain(..used.min(self.input.len()));
            if self.input.is_empty() {
                self.input = Vec::new();
            }
        }
        Ok(is_full)
    }

    /// Bytes that wait to be written.
    pub fn waiting(&self) -> usize {
        self.out.len() - self.written
    }

    /// Writes what the system takes.
    ///
    /// # Errors
    /// When the connection is of no more use.
    pub fn flush(&mut self) -> io::Result<()> {
        if !self.is_connected {
            return Ok(());
        }
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.written > KEPT {
                        self.out.drain(..self.written);
                        self.written = 0;
                    }
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.written = 0;
        if self.out.capacity() > KEPT {
            self.out = Vec::new();
        }
        Ok(())
    }
}

/// Whether connecting goes on by itself.
#[cfg(unix)]
fn is_under_way(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error())
}

/// Whether connecting goes on by itself.
#[cfg(not(unix))]
fn is_under_way(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}
