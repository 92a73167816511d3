//! One session with the coordinator, from dialling to its end.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tracing::{debug, warn};
use webhost_proto::wire::{
    self, AgentMessage, CommandReply, CoordinatorMessage, agent_message, coordinator_message,
};
use webhost_proto::{MAX_MESSAGE_BYTES, PROTOCOL_VERSION, tls};

use super::{HelloFacts, Link, LinkState, channel, now_us, synced};

/// From the Hello to the Welcome.
const WELCOME_WITHIN: Duration = Duration::from_secs(15);

/// How often a session looks whether more of the backlog is due.
const BACKLOG_TICK: Duration = Duration::from_millis(250);

/// Messages between the session and the connection.
const OUTGOING: usize = 4;

/// Why there is no session any more.
pub(super) enum Ended {
    /// The coordinator said so.
    Goodbye { reason: String, retry_after: Duration },
    /// Anything else.
    Broken(String),
}

impl Link {
    pub(super) async fn session(&mut self) -> Ended {
        match self.session_until_error().await {
            Ok(ended) | Err(ended) => ended,
        }
    }

    async fn session_until_error(&mut self) -> Result<Ended, Ended> {
        self.set_state(LinkState::Connecting, None);
        let hello = hello((self.hello)());
        let dialled = dial(self.options.address.clone(), self.client.clone(), hello);
        let (out, mut inbound, welcome, clock) = self.take_reports_while(dialled).await?;
        self.connected(&welcome);
        self.status.send_modify(|status| status.clock = Some(clock));
        // The coordinator takes no number beyond this, and no clock is.
        let mut clock = Some(clock).filter(|clock| clock.offset_us.unsigned_abs() < 1 << 53);
        self.spool.rewind(welcome.report_window as usize, welcome.takes_short_reports);
        self.spool.set_max_tenants((welcome.max_tenants as usize).max(1));
        let mut reply: Option<CommandReply> = None;
        loop {
            let now_ms = self.now_ms();
            let something = self.spool.ready(now_ms) || reply.is_some();
            self.begin_sync();
            tokio::select! {
                message = inbound.message() => {
                    let message = message.map_err(|status| broken(&status))?;
                    let Some(message) = message else {
                        return Ok(Ended::Broken("closed by the coordinator".into()));
                    };
                    if let Some(ended) = self.take(message) {
                        return Ok(ended);
                    }
                }
                Some(report) = self.reports.recv() => self.keep(report),
                done = synced(&mut self.sync) => self.end_sync(&done),
                // A burst of the backlog becomes due by the time alone.
                () = tokio::time::sleep(BACKLOG_TICK), if self.spool.waits() => {}
                Some(next) = self.replies.recv(), if reply.is_none() => reply = Some(next),
                room = out.reserve(), if something => {
                    let Ok(room) = room else {
                        return Ok(Ended::Broken("the connection broke".into()));
                    };
                    // Replies first: somebody waits for them.
                    let kind = match reply.take() {
                        Some(reply) => Some(agent_message::Kind::Reply(reply)),
                        None => self.spool.next(now_ms).map(|mut report| {
                            if let Some(host) = &mut report.host {
                                host.clock = clock.take();
                            }
                            agent_message::Kind::Report(report)
                        }),
                    };
                    if kind.is_some() {
                        room.send(AgentMessage { kind });
                    }
                }
            }
        }
    }

    fn take(&mut self, message: CoordinatorMessage) -> Option<Ended> {
        match message.kind {
            Some(coordinator_message::Kind::ReportAck(ack)) => {
                self.spool.acknowledge(&ack, self.now_ms());
                self.status.send_modify(|status| status.last_ack_us = Some(now_us()));
                self.show_spool();
            }
            Some(coordinator_message::Kind::Command(command)) => self.tracker.receive(command),
            Some(coordinator_message::Kind::Tenants(tenants)) => self.expect(Some(&tenants)),
            Some(coordinator_message::Kind::Goodbye(goodbye)) => return Some(ended_by(goodbye)),
            Some(coordinator_message::Kind::Welcome(_)) => warn!("a second Welcome is ignored"),
            // A newer coordinator may know messages that we don't.
            None => debug!("a message of no known kind is ignored"),
        }
        None
    }
}

type Opened =
    (mpsc::Sender<AgentMessage>, Streaming<CoordinatorMessage>, wire::Welcome, wire::Clock);

async fn dial(
    address: String,
    client: std::sync::Arc<rustls::ClientConfig>,
    hello: wire::Hello,
) -> Result<Opened, Ended> {
    let stream =
        tls::connect(&address, client).await.map_err(|error| Ended::Broken(error.to_string()))?;
    let greeting = async {
        let channel = channel::over(stream)
            .await
            .map_err(|error| Ended::Broken(format!("{address}: {}", sources(&error))))?;
        let mut client = wire::link_client::LinkClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES);
        let (out, messages) = mpsc::channel(OUTGOING);
        let kind = Some(agent_message::Kind::Hello(hello));
        let (asked_us, asked) = (now_us(), tokio::time::Instant::now());
        out.send(AgentMessage { kind })
            .await
            .map_err(|_| Ended::Broken("the connection broke".into()))?;
        let mut inbound = client
            .session(ReceiverStream::new(messages))
            .await
            .map_err(|status| broken(&status))?
            .into_inner();
        let first = inbound.message().await.map_err(|status| broken(&status))?;
        match first.and_then(|message| message.kind) {
            Some(coordinator_message::Kind::Welcome(welcome)) => {
                let clock = clock(asked_us, asked.elapsed(), welcome.clock_us);
                Ok((out, inbound, welcome, clock))
            }
            Some(coordinator_message::Kind::Goodbye(goodbye)) => Err(ended_by(goodbye)),
            _ => Err(Ended::Broken("the coordinator did not answer the Hello".into())),
        }
    };
    tokio::time::timeout(WELCOME_WITHIN, greeting)
        .await
        .map_err(|_| Ended::Broken(format!("{address}: no Welcome within 15 s")))?
}

/// How far this clock is before the coordinator's, who told its own at some
/// moment of the `took` after `asked_us`.
fn clock(asked_us: i64, took: Duration, told_us: i64) -> wire::Clock {
    let error_us = u64::try_from(took.as_micros() / 2).unwrap_or(u64::MAX);
    let middle_us = asked_us.saturating_add_unsigned(error_us);
    wire::Clock { offset_us: middle_us.saturating_sub(told_us), error_us }
}

fn hello(facts: HelloFacts) -> wire::Hello {
    wire::Hello {
        protocol_version: PROTOCOL_VERSION,
        agent_version: env!("CARGO_PKG_VERSION").into(),
        boot_id: facts.boot_id,
        capabilities: facts.capabilities,
        capacity: Some(facts.capacity),
        tunnel_address: facts.tunnel_address,
    }
}

fn ended_by(goodbye: wire::Goodbye) -> Ended {
    let retry_after = Duration::from_millis(goodbye.retry_after_ms.into());
    Ended::Goodbye { reason: format!("the coordinator said: {}", goodbye.reason), retry_after }
}

/// A refused certificate shows as a broken connection; its reason is deep in
/// the chain of causes.
fn broken(status: &tonic::Status) -> Ended {
    Ended::Broken(sources(status))
}

fn sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_by_table() {
        for (asked_us, took_us, told_us, offset_us, error_us) in [
            (1_000_000, 0, 1_000_000, 0, 0),
            (1_000_000, 4_000, 1_002_000, 0, 2_000),
            (5_000_000, 4_000, 1_000_000, 4_002_000, 2_000),
            (1_000_000, 200, 3_000_100, -2_000_000, 100),
            (i64::MAX, 10, -1, i64::MAX, 5),
        ] {
            let found = clock(asked_us, Duration::from_micros(took_us), told_us);
            assert_eq!(found, wire::Clock { offset_us, error_us }, "{asked_us} {told_us}");
        }
    }
}
