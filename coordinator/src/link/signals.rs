//! How the rooms of one coordinator wake each other: a counter that grows.
//! A signal carries nothing and may be missed without harm; whoever wakes
//! reads the whole state.

use tokio::sync::watch;

/// Something that happens again and again. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Signal(watch::Sender<u64>);

impl Default for Signal {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Signal {
    /// It happened.
    pub fn notify(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// From now on; what happened before is not heard.
    pub fn listen(&self) -> Listener {
        Listener(self.0.subscribe())
    }
}

/// Hears one signal. Any number of signals between two looks is heard once.
#[derive(Debug)]
pub struct Listener(watch::Receiver<u64>);

impl Listener {
    /// Returns at once when it happened since the last call, else when it
    /// happens. Never returns once every [`Signal`] is gone. Cancel safe.
    pub async fn heard(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The signals between the link and whoever sends commands.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    /// The outbox has new rows.
    pub commands: Signal,
    /// A command was answered.
    pub replies: Signal,
}
