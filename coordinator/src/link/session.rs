//! One agent's session, from its first message to its end.
//!
//! A session reads one message, deals with it to its end, and reads the next:
//! what an agent sends faster than that waits in its own connection's window.
//! What goes to the agent waits in a bounded queue; an agent that doesn't
//! read is given up after a time.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::Rng;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use tracing::{debug, info, warn};
use webhost_proto::PROTOCOL_VERSION;
use webhost_proto::ids::{CommandId, NodeId};
use webhost_proto::short::Memory;
use webhost_proto::tls::PeerInfo;
use webhost_proto::wire::{
    self, AgentMessage, CoordinatorMessage, agent_message, command_reply, coordinator_message,
};

use super::sessions::{Ending, Registered, Sessions};
use super::validate::{Held, Verdict, validate_hello, validate_report};
use super::{LinkSettings, NodeEvents, Progress, Refusal, Signals};
use crate::store::commands::{self, Answered};
use crate::store::nodes::NodeState;
use crate::store::{Store, StoreError, node_link};

/// What all sessions share.
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) events: Arc<dyn NodeEvents>,
    pub(super) signals: Signals,
    pub(super) progress: broadcast::Sender<Progress>,
    pub(super) sessions: Sessions,
    /// A session began: the outbox may hold something for it.
    pub(super) began: tokio::sync::Notify,
    pub(super) settings: LinkSettings,
    pub(super) shutdown: CancellationToken,
}

pub(super) type Outgoing = mpsc::Sender<Result<CoordinatorMessage, Status>>;

/// Why a session is over.
enum End {
    /// The agent closed it or the connection broke.
    Gone(String),
    /// The agent takes nothing any more.
    Stuck,
    /// We end it: what the agent is told, and how long it shall stay away.
    Refused { reason: String, retry_after: Duration },
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        let retry_after = Duration::from_secs(match refusal {
            Refusal::Invalid(_) => 60,
            Refusal::Forbidden(_) => 300,
            Refusal::Unavailable(_) => 5,
        });
        Self::Refused { reason: refusal.to_string(), retry_after }
    }
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> Self {
        warn!(%error, "the state database refused; the agent tries again");
        Refusal::Unavailable("the coordinator's state database is not available".into()).into()
    }
}

/// Who is at the other end, by its certificate alone.
pub(super) struct Peer {
    pub(super) node: NodeId,
    pub(super) serial: String,
    pub(super) info: PeerInfo,
}

/// Runs a session to its end, and tells the agent why it ended.
pub(super) async fn run(
    shared: Arc<Shared>,
    peer: Peer,
    mut inbound: Streaming<AgentMessage>,
    out: Outgoing,
) {
    let node = peer.node;
    let end = tokio::select! {
        () = shared.shutdown.cancelled() => going_away(&shared),
        end = greet_and_serve(&shared, &peer, &mut inbound, &out) => end,
    };
    match end {
        End::Gone(why) => debug!(%node, why, "session ended"),
        End::Stuck => {
            warn!(%node, "session ended: the agent doesn't read");
            peer.info.cut.cancel();
        }
        End::Refused { reason, retry_after } => {
            info!(%node, reason, "session ended by the coordinator");
            let retry_after_ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
            let goodbye = wire::Goodbye { reason, retry_after_ms };
            // Told if there is room to tell; the connection ends either way.
            let _full = out.try_send(Ok(message(coordinator_message::Kind::Goodbye(goodbye))));
            drop(out);
            // A moment for the goodbye to leave; then nothing keeps the
            // connection open, whatever the agent does.
            tokio::time::sleep(Duration::from_millis(500)).await;
            peer.info.cut.cancel();
        }
    }
}

/// Spread over a time that grows with the fleet: 10,000 agents come back
/// within half a minute, a handful at once.
fn going_away(shared: &Shared) -> End {
    let most = (shared.sessions.count() as u64 * 3).clamp(200, 30_000);
    let retry_after = Duration::from_millis(rand::rng().random_range(0..most));
    End::Refused { reason: "the coordinator is shutting down".into(), retry_after }
}

async fn greet_and_serve(
    shared: &Arc<Shared>,
    peer: &Peer,
    inbound: &mut Streaming<AgentMessage>,
    out: &Outgoing,
) -> End {
    let hello = match greeting(shared, peer, inbound).await {
        Ok(hello) => hello,
        Err(end) => return end,
    };
    let Registered { number, ending, mailbox, order, fenced } =
        shared.sessions.register(peer.node, peer.serial.clone());
    if fenced {
        warn!(node = %peer.node, address = %peer.info.address, boot_id = hello.boot_id,
            "a second session of this node began; the first one is ended");
    }
    let told = Memory::default();
    let mut session = Session { shared, node: peer.node, out, mailbox, held: None, told };
    let end = tokio::select! {
        why = ending => ended(why.unwrap_or(Ending::Fenced)),
        () = shared.shutdown.cancelled() => going_away(shared),
        end = session.serve(&hello, &order, inbound) => end,
    };
    // Only the node's newest session may say that the node is gone, and not
    // while a newer one is saying that it came.
    let _turn = order.lock().await;
    if shared.sessions.holds(peer.node, number) {
        shared.events.disconnected(peer.node).await;
        shared.sessions.remove(peer.node, number);
    }
    end
}

fn ended(why: Ending) -> End {
    let (reason, seconds) = match why {
        Ending::Fenced => ("another session of this node began", 30),
        Ending::Revoked => ("this node is revoked", 300),
        Ending::CertificateReplaced => ("this node enrolled again; this certificate is void", 300),
    };
    End::Refused { reason: reason.into(), retry_after: Duration::from_secs(seconds) }
}

/// Waits for the Hello, and checks that the node may speak.
async fn greeting(
    shared: &Shared,
    peer: &Peer,
    inbound: &mut Streaming<AgentMessage>,
) -> Result<wire::Hello, End> {
    let first = tokio::time::timeout(shared.settings.hello_timeout, inbound.message());
    let first = first.await.map_err(|_| Refusal::Invalid("no Hello came in time".into()))?;
    let first = first.map_err(|status| gone(&status))?;
    let Some(agent_message::Kind::Hello(hello)) = first.and_then(|message| message.kind) else {
        return Err(Refusal::Invalid("the first message must be Hello".into()).into());
    };
    validate_hello(&hello).map_err(Refusal::Invalid)?;
    let client = shared.store.client().await?;
    let standing = node_link::standing(&**client, &[peer.node]).await?.pop();
    let refused = |reason: &str| End::from(Refusal::Forbidden(reason.into()));
    let standing = standing.ok_or_else(|| refused("this node is unknown here"))?;
    if standing.state == NodeState::Revoked {
        return Err(ended(Ending::Revoked));
    }
    if standing.serial.as_ref() != Some(&peer.serial) {
        return Err(ended(Ending::CertificateReplaced));
    }
    Ok(hello)
}

fn gone(status: &Status) -> End {
    match status.code() {
        // A message beyond the size limit: the agent's fault, and it should
        // not come back with the same at once.
        tonic::Code::OutOfRange | tonic::Code::ResourceExhausted => {
            Refusal::Invalid(status.message().to_owned()).into()
        }
        _ => End::Gone(status.message().to_owned()),
    }
}

struct Session<'a> {
    shared: &'a Shared,
    node: NodeId,
    out: &'a Outgoing,
    mailbox: mpsc::Receiver<wire::Command>,
    held: Option<Held>,
    /// What this session's reports said, for those that leave it out.
    told: Memory,
}

impl Session<'_> {
    async fn serve(
        &mut self,
        hello: &wire::Hello,
        order: &tokio::sync::Mutex<()>,
        inbound: &mut Streaming<AgentMessage>,
    ) -> End {
        match self.serve_until_error(hello, order, inbound).await {
            Err(end) | Ok(end) => end,
        }
    }

    async fn serve_until_error(
        &mut self,
        hello: &wire::Hello,
        order: &tokio::sync::Mutex<()>,
        inbound: &mut Streaming<AgentMessage>,
    ) -> Result<End, End> {
        let turn = order.lock().await;
        let tenants = self.shared.events.connected(self.node, hello).await?;
        drop(turn);
        self.welcome(tenants).await?;
        self.shared.began.notify_one();
        loop {
            tokio::select! {
                Some(command) = self.mailbox.recv() => {
                    self.send(coordinator_message::Kind::Command(command)).await?;
                }
                message = inbound.message() => match message {
                    Ok(Some(message)) => self.take(message).await?,
                    Ok(None) => return Ok(End::Gone("closed by the agent".into())),
                    Err(status) => return Err(gone(&status)),
                },
            }
        }
    }

    async fn welcome(
        &self,
        tenants: Vec<(webhost_proto::ids::TenantId, String)>,
    ) -> Result<(), End> {
        let settings = &self.shared.settings;
        let tenants = tenants
            .into_iter()
            .map(|(id, slug)| wire::ExpectedTenant { tenant_id: id.to_wire(), slug })
            .collect();
        self.send(coordinator_message::Kind::Welcome(wire::Welcome {
            protocol_version: PROTOCOL_VERSION,
            report_interval_ms: settings.report_interval_ms,
            report_window: settings.report_window,
            max_tenants: settings.max_tenants,
            clock_us: clock_us(),
            tenants: Some(wire::TenantSet { tenants }),
            coordinator_version: env!("CARGO_PKG_VERSION").into(),
            takes_short_reports: true,
        }))
        .await
    }

    async fn take(&mut self, message: AgentMessage) -> Result<(), End> {
        match message.kind {
            Some(agent_message::Kind::Report(report)) => self.report(report).await,
            Some(agent_message::Kind::Reply(reply)) => self.reply(reply).await,
            Some(agent_message::Kind::Hello(_)) => {
                Err(Refusal::Invalid("a second Hello in one session".into()).into())
            }
            None => Err(Refusal::Invalid("a message of no known kind".into()).into()),
        }
    }

    async fn report(&mut self, mut report: wire::Report) -> Result<(), End> {
        let max_tenants = self.shared.settings.max_tenants as usize;
        self.told.restore(&mut report, max_tenants).map_err(Refusal::Invalid)?;
        let verdict = validate_report(&report, max_tenants, self.held).map_err(Refusal::Invalid)?;
        let ack = match verdict {
            Verdict::Apply(held) => {
                self.held = Some(held);
                self.shared.events.report(self.node, report).await?
            }
            // Nothing was applied, so nothing is acknowledged: 0 is before
            // every sequence number.
            Verdict::NeedDictionary => {
                wire::ReportAck { epoch: report.epoch, sequence: 0, need_dictionary: true }
            }
        };
        self.send(coordinator_message::Kind::ReportAck(ack)).await
    }

    async fn reply(&mut self, reply: wire::CommandReply) -> Result<(), End> {
        let node = self.node;
        let command = CommandId::from_wire(&reply.command_id)
            .map_err(|error| Refusal::Invalid(format!("reply: {error}")))?;
        let Some(outcome) = &reply.outcome else {
            return Err(Refusal::Invalid(format!("the reply to {command} is empty")).into());
        };
        match outcome {
            command_reply::Outcome::Accepted(_) => {
                let client = self.shared.store.client().await?;
                commands::accepted(&**client, node, command).await?;
            }
            command_reply::Outcome::Progress(progress) => {
                let progress = Progress { node, command, progress: progress.clone() };
                // Nobody may be listening; progress is for those who are.
                let _nobody = self.shared.progress.send(progress);
            }
            _ => {
                let client = self.shared.store.client().await?;
                match commands::answer(&**client, command, node, &reply).await? {
                    Answered::Stored => self.shared.signals.replies.notify(),
                    Answered::Late => debug!(%node, %command, "the reply came twice or too late"),
                    Answered::Unknown => {
                        warn!(%node, %command, "a reply to a command that this node never got");
                    }
                }
            }
        }
        Ok(())
    }

    /// Queues a message for the agent. Waits where the queue is full: then
    /// nothing is read from this agent either.
    async fn send(&self, kind: coordinator_message::Kind) -> Result<(), End> {
        let sent = self.out.send(Ok(message(kind)));
        match tokio::time::timeout(self.shared.settings.send_timeout, sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone("the connection broke".into())),
            Err(_) => Err(End::Stuck),
        }
    }
}

fn message(kind: coordinator_message::Kind) -> CoordinatorMessage {
    CoordinatorMessage { kind: Some(kind) }
}

fn clock_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
