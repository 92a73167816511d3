//! `webhost-agent status`: reads the socket, prints a table or JSON, and says
//! by its exit code how the agent is.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use super::document::{Document, SCHEMA};
use super::table;
use super::top::{self, By};

/// How long the agent may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// The most that a status may be, in bytes.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The exit code of an agent that is well.
pub const HEALTHY: u8 = 0;
/// The exit code when something is degraded.
pub const DEGRADED: u8 = 1;
/// The exit code when the agent doesn't run or can't be asked.
pub const UNREADABLE: u8 = 2;
/// The exit code when the tenant that was asked for is not here.
pub const NO_TENANT: u8 = 3;

/// How to print.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub json: bool,
    /// One tenant alone, by slug or id.
    pub tenant: Option<String>,
    /// By what tenants are sorted, and how many are shown (0: all).
    pub by: By,
    pub top: usize,
    /// Again and again, with this pause.
    pub watch: Option<Duration>,
}

/// Reads the status of the agent at `socket`.
///
/// # Errors
/// A sentence that says what to do.
pub async fn fetch(socket: &Path) -> Result<Document, String> {
    let place = socket.display();
    let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!(
            "the agent is not running: there is no {place}; start it (systemctl start \
             webhost-agent), or name its socket with --socket"
        ),
        std::io::ErrorKind::ConnectionRefused => format!(
            "the agent is not running: nobody answers at {place}; start it (systemctl start \
             webhost-agent)"
        ),
        std::io::ErrorKind::PermissionDenied => format!(
            "{place} may not be opened; run this as root or as a member of the group \
             webhost-agent"
        ),
        _ => format!("{place}: {error}"),
    })?;
    let mut text = Vec::new();
    tokio::time::timeout(LIMIT, stream.take(MAX_BYTES).read_to_end(&mut text))
        .await
        .map_err(|_| {
            format!("the agent did not answer within {} s; look into its log", LIMIT.as_secs())
        })?
        .map_err(|error| format!("{place}: {error}"))?;
    let document: Document = serde_json::from_slice(&text)
        .map_err(|error| format!("{place} does not speak as an agent does: {error}"))?;
    if document.schema != SCHEMA {
        return Err(format!(
            "the agent's status has schema {}, this program reads {SCHEMA}; use the agent's own \
             version ({})",
            document.schema, document.version
        ));
    }
    Ok(document)
}

/// Runs the command; returns the exit code.
///
/// # Errors
/// When the output can't be written; a reader that went away is none.
pub async fn run(socket: &Path, options: &Options) -> std::io::Result<u8> {
    loop {
        let mut fetched = fetch(socket).await;
        let mut missing = false;
        if let (Ok(document), Some(name)) = (&mut fetched, &options.tenant)
            && !top::only(document, name)
        {
            missing = true;
            fetched = Err(format!("there is no tenant {name:?} on this node"));
        }
        let code = match &fetched {
            Err(_) if missing => NO_TENANT,
            Ok(document) if document.healthy => HEALTHY,
            Ok(_) => DEGRADED,
            Err(_) => UNREADABLE,
        };
        let printed = print(&fetched, options);
        match printed {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(code),
            other => other?,
        }
        let Some(pause) = options.watch else { return Ok(code) };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = tokio::signal::ctrl_c() => return Ok(code),
        }
    }
}

fn print(fetched: &Result<Document, String>, options: &Options) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match fetched {
        Ok(document) if options.json => {
            // One document a line, so that a watch can be read by a program.
            let text = if options.watch.is_some() {
                serde_json::to_string(document)
            } else {
                serde_json::to_string_pretty(document)
            };
            writeln!(out, "{}", text.map_err(std::io::Error::other)?)?;
        }
        Ok(document) => {
            clear(&mut out, options)?;
            let text = match document.tenants.first() {
                Some(tenant) if options.tenant.is_some() => table::render_one(tenant),
                _ => table::render(document, options.by, options.top),
            };
            out.write_all(text.as_bytes())?;
        }
        Err(why) => {
            if !options.json {
                clear(&mut out, options)?;
            }
            out.flush()?;
            writeln!(std::io::stderr().lock(), "{why}")?;
        }
    }
    out.flush()
}

/// Clears a terminal between two pictures; a file gets them one after another.
fn clear(out: &mut impl Write, options: &Options) -> std::io::Result<()> {
    use std::io::IsTerminal;
    if options.watch.is_some() && std::io::stdout().is_terminal() {
        write!(out, "\x1b[2J\x1b[H")?;
    }
    Ok(())
}
