//! Free ports of loopback.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Mutex;

static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// An address that nothing listens on, never given twice by this process.
/// Another process could still take it before its user binds it.
///
/// # Errors
/// When the kernel has no port left.
pub fn free() -> std::io::Result<SocketAddr> {
    loop {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut given = GIVEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if given.insert(address.port()) {
            return Ok(address);
        }
    }
}
