//! Tells the service manager how the server is: the protocol of sd_notify(3), a line or two to the socket that
//! `NOTIFY_SOCKET` names. Where nobody listens nothing happens: a server does not depend on being watched.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;

/// The service manager, where there is one.
#[derive(Debug, Clone)]
pub struct Manager {
    socket: Option<PathBuf>,
}

impl Manager {
    /// The one behind this socket.
    pub fn new(socket: Option<PathBuf>) -> Self {
        Self { socket }
    }

    /// The server answers; `status` says in words how it is.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}\n"));
    }

    /// The server stops.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping\n");
    }

    fn tell(&self, text: &str) {
        let Some(socket) = &self.socket else { return };
        let told = address(socket.as_os_str())
            .and_then(|address| UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address));
        if let Err(error) = told {
            tracing::debug!(%error, "the service manager could not be told");
        }
    }
}

/// A path, or a name in the abstract namespace behind `@`.
fn address(socket: &OsStr) -> std::io::Result<SocketAddr> {
    match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => abstract_address(name),
        None => SocketAddr::from_pathname(socket),
    }
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> std::io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt as _;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &[u8]) -> std::io::Result<SocketAddr> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_hears_what_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = Manager::new(Some(path));
        manager.ready("sealed");
        let mut buffer = [0; 64];
        let read = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..read], b"READY=1\nSTATUS=sealed\n");
        manager.stopping();
        Manager::new(None).ready("nobody listens");
        Manager::new(Some(dir.path().join("gone"))).ready("nobody listens");
    }
}
