//! Agents that mean no good, with a certificate.

use prost::Message;
use tokio::sync::mpsc;
use tonic::Streaming;
use webhost_agent::link::channel;
use webhost_proto::ids::CommandId;
use webhost_proto::wire::command_reply::Outcome;
use webhost_proto::wire::link_client::LinkClient;
use webhost_proto::wire::{
    self, AgentMessage, CommandReply, CoordinatorMessage, HostSample, Report, agent_message,
    coordinator_message,
};
use webhost_proto::{MAX_MESSAGE_BYTES, PROTOCOL_VERSION, tls};

use crate::world::{Machine, World, settings, within};

/// Speaks the wire by hand.
pub(crate) struct RawAgent {
    out: mpsc::Sender<AgentMessage>,
    inbound: Streaming<CoordinatorMessage>,
    sequence: u64,
}

impl RawAgent {
    pub(crate) async fn dial(world: &World, machine: &Machine) -> Self {
        let client = machine.identity.link_client().expect("a configuration");
        let stream = tls::connect(&world.link, client).await.expect("connects");
        let channel = channel::over(stream).await.expect("speaks HTTP/2");
        let (out, messages) = mpsc::channel(16);
        let messages = futures_util::stream::unfold(messages, |mut messages| async move {
            messages.recv().await.map(|message| (message, messages))
        });
        let inbound =
            LinkClient::new(channel).session(messages).await.expect("a session").into_inner();
        Self { out, inbound, sequence: 0 }
    }

    pub(crate) async fn greeted(world: &World, machine: &Machine) -> Self {
        let mut raw = Self::dial(world, machine).await;
        raw.send(agent_message::Kind::Hello(hello())).await;
        let welcome = raw.next().await.expect("an answer");
        assert!(matches!(welcome, coordinator_message::Kind::Welcome(_)), "{welcome:?}");
        raw
    }

    pub(crate) async fn send(&self, kind: agent_message::Kind) {
        // An error says that the session is over, which the reading shows.
        let _over = self.out.send(AgentMessage { kind: Some(kind) }).await;
    }

    pub(crate) async fn reply(&self, id: CommandId, outcome: Outcome) {
        let reply = CommandReply { command_id: id.to_wire(), outcome: Some(outcome) };
        self.send(agent_message::Kind::Reply(reply)).await;
    }

    /// The next message; none when the session is over.
    pub(crate) async fn next(&mut self) -> Option<coordinator_message::Kind> {
        within(self.inbound.message()).await.ok().flatten().and_then(|message| message.kind)
    }

    pub(crate) async fn report_and_wait(&mut self, epoch: u64) {
        self.sequence += 1;
        let report = Report { epoch, sequence: self.sequence, ..sound() };
        self.send(agent_message::Kind::Report(report)).await;
        loop {
            match self.next().await.expect("the session lives") {
                coordinator_message::Kind::ReportAck(_) => return,
                _ => continue,
            }
        }
    }

    /// Everything until the session is over; the last words are a goodbye's.
    pub(crate) async fn last_words(&mut self) -> String {
        let mut words = String::new();
        while let Some(kind) = self.next().await {
            if let coordinator_message::Kind::Goodbye(goodbye) = kind {
                words = goodbye.reason;
            }
        }
        words
    }
}

fn hello() -> wire::Hello {
    wire::Hello { protocol_version: PROTOCOL_VERSION, ..wire::Hello::default() }
}

fn sound() -> Report {
    Report {
        epoch: 1,
        sequence: 1,
        collected_at_us: 1,
        interval_ms: 1_000,
        dictionary_version: 1,
        dictionary: Some(wire::TenantDictionary { version: 1, tenants: Vec::new() }),
        host: Some(HostSample::default()),
        ..Report::default()
    }
}

#[tokio::test]
async fn who_does_not_keep_to_the_protocol_is_shown_out() {
    let world = World::start().await;
    let machine = world.machine("fsn-1").await;
    let old = wire::Hello { protocol_version: 99, ..hello() };
    let long = wire::Hello { agent_version: "x".repeat(65), ..hello() };
    for (first, reason) in [
        (agent_message::Kind::Report(sound()), "the first message must be Hello"),
        (agent_message::Kind::Hello(old), "protocol version 99"),
        (agent_message::Kind::Hello(long), "hello.agent_version"),
    ] {
        let mut raw = RawAgent::dial(&world, &machine).await;
        raw.send(first).await;
        let words = raw.last_words().await;
        assert!(words.contains(reason), "{words:?} instead of {reason:?}");
    }
    let unnumbered = Report { sequence: 0, ..sound() };
    let crowd = wire::TenantDictionary {
        version: 1,
        tenants: vec![Default::default(); settings().max_tenants as usize + 1],
    };
    let crowded = Report { dictionary: Some(crowd), ..sound() };
    for (second, reason) in [
        (agent_message::Kind::Hello(hello()), "a second Hello"),
        (agent_message::Kind::Report(unnumbered), "report.sequence"),
        (agent_message::Kind::Report(crowded), "1001 tenants"),
        (agent_message::Kind::Reply(CommandReply::default()), "command id"),
    ] {
        let mut raw = RawAgent::greeted(&world, &machine).await;
        raw.send(second).await;
        let words = raw.last_words().await;
        assert!(words.contains(reason), "{words:?} instead of {reason:?}");
    }
    assert_eq!(world.heard.borrow().reports, 0, "nothing unsound went up");
}

#[tokio::test]
async fn who_says_nothing_is_shown_out() {
    let brief = webhost_coordinator::link::LinkSettings {
        hello_timeout: std::time::Duration::from_millis(100),
        ..settings()
    };
    let world = World::with(brief, Default::default()).await;
    let machine = world.machine("fsn-1").await;
    let mut raw = RawAgent::dial(&world, &machine).await;
    let words = raw.last_words().await;
    assert!(words.contains("no Hello came in time"), "{words:?}");
}

#[tokio::test]
async fn a_report_without_the_dictionary_is_asked_for_it_and_not_applied() {
    let world = World::start().await;
    let machine = world.machine("fsn-1").await;
    let mut raw = RawAgent::greeted(&world, &machine).await;
    let bare = Report { dictionary: None, ..sound() };
    raw.send(agent_message::Kind::Report(bare)).await;
    let Some(coordinator_message::Kind::ReportAck(ack)) = raw.next().await else {
        panic!("expected an acknowledgement")
    };
    assert!(ack.need_dictionary && ack.sequence == 0);
    assert_eq!(world.heard.borrow().reports, 0);
    raw.report_and_wait(1).await;
    assert_eq!(world.heard.borrow().reports, 1);
}

#[tokio::test]
async fn bombs_are_refused_and_others_notice_nothing() {
    let world = World::start().await;
    let (bad, good) = (world.machine("fsn-1").await, world.machine("fsn-2").await);
    let mut honest = RawAgent::greeted(&world, &good).await;

    // Beyond the limit: refused before it is decoded.
    let columns = |count: usize| Report { columns: vec![Default::default(); count], ..sound() };
    let large = columns(MAX_MESSAGE_BYTES);
    assert!(large.encoded_len() > MAX_MESSAGE_BYTES);
    let mut raw = RawAgent::greeted(&world, &bad).await;
    raw.send(agent_message::Kind::Report(large)).await;
    raw.last_words().await;

    // Within the limit, two bytes for each of 130,000 empty columns: decoded
    // to about 13 MB at most, one at a time per session, and the session ends.
    let small = columns(MAX_MESSAGE_BYTES / 2 - 64);
    assert!(small.encoded_len() < MAX_MESSAGE_BYTES - 32);
    assert!(size_of::<wire::Column>() <= 96);
    let mut raw = RawAgent::greeted(&world, &bad).await;
    raw.send(agent_message::Kind::Report(small)).await;
    let words = raw.last_words().await;
    assert!(words.contains("columns, at most"), "{words:?}");

    honest.report_and_wait(1).await;
    let heard = world.heard.borrow().clone();
    assert_eq!(heard.reports, 1);
    assert_eq!(heard.cursors.get(&good.node()), Some(&(1, 1)));
}
