//! Commands: delivered, attached to, answered once, by the right node.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use webhost_agent::command::{CommandName, Handler, Registry};
use webhost_coordinator::store::commands::{self, Sent};
use webhost_proto::ids::{CommandId, NodeId};
use webhost_proto::wire::command_reply::Outcome;
use webhost_proto::wire::{FailureKind, ListTenants, MoveProgress, TenantList, command};

use crate::hostile::RawAgent;
use crate::world::{World, handler, within};

/// Answers when it is let go; counts its runs.
#[derive(Default)]
struct Slow {
    runs: AtomicUsize,
    started: Notify,
    go: Notify,
}

#[tonic::async_trait]
impl Handler for Slow {
    async fn handle(
        &self,
        _command: command::Kind,
        _progress: watch::Sender<Option<MoveProgress>>,
    ) -> Outcome {
        self.runs.fetch_add(1, Ordering::SeqCst);
        self.started.notify_one();
        self.go.notified().await;
        Outcome::TenantList(TenantList::default())
    }
}

async fn send(world: &World, node: NodeId, lives: Duration) -> CommandId {
    let client = world.store.client().await.expect("a client");
    let kind = command::Kind::ListTenants(ListTenants {});
    let id = commands::enqueue(&**client, node, None, kind, Timestamp::now() + lives)
        .await
        .expect("queued");
    world.signals.commands.notify();
    id
}

async fn look(world: &World, id: CommandId) -> Sent {
    let client = world.store.client().await.expect("a client");
    commands::get(&**client, id).await.expect("reads").expect("is there")
}

async fn ended(world: &World, id: CommandId) -> Outcome {
    let mut replies = world.signals.replies.listen();
    within(async {
        loop {
            if let Some(reply) = look(world, id).await.reply {
                return reply.outcome.expect("an outcome");
            }
            replies.heard().await;
        }
    })
    .await
}

#[tokio::test]
async fn a_command_reaches_its_agent_and_the_reply_comes_back() {
    let world = World::start().await;
    let machine = world.machine("fsn-1").await;
    let slow = Arc::new(Slow::default());
    let registry = handler(CommandName::ListTenants, slow.clone());
    let mut agent = machine.agent(&world.link, registry);
    agent.connected().await;
    slow.go.notify_one();
    let id = send(&world, machine.node(), Duration::from_secs(60)).await;
    assert!(matches!(ended(&world, id).await, Outcome::TenantList(_)));
    assert!(look(&world, id).await.accepted);
    assert_eq!(slow.runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_command_outlives_the_session_and_runs_once() {
    let mut world = World::start().await;
    let machine = world.machine("fsn-1").await;
    let slow = Arc::new(Slow::default());
    let registry = handler(CommandName::ListTenants, slow.clone());
    // Put in while nobody is connected: it waits for the agent.
    let id = send(&world, machine.node(), Duration::from_secs(60)).await;
    let mut agent = machine.agent(&world.link, registry.clone());
    agent.connected().await;
    within(slow.started.notified()).await;
    // The coordinator restarts while it runs; it ends while nobody listens.
    world.stop().await;
    slow.go.notify_one();
    world.serve().await;
    assert!(matches!(ended(&world, id).await, Outcome::TenantList(_)));
    assert_eq!(slow.runs.load(Ordering::SeqCst), 1);
    agent.stop().await;

    // Were the reply lost, the command would come again, to a new run of the
    // agent even: its journal answers.
    let client = world.store.client().await.expect("a client");
    let lose = "update commands set reply = null, replied_at = null where id = $1";
    client.execute(lose, &[&id.0]).await.expect("loses it");
    let mut agent = machine.agent(&world.link, registry);
    agent.connected().await;
    assert!(matches!(ended(&world, id).await, Outcome::TenantList(_)));
    assert_eq!(slow.runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_command_whose_time_ended_is_not_delivered() {
    let world = World::start().await;
    let machine = world.machine("fsn-1").await;
    let slow = Arc::new(Slow::default());
    let id = send(&world, machine.node(), Duration::ZERO).await;
    let mut agent = machine.agent(&world.link, handler(CommandName::ListTenants, slow.clone()));
    agent.connected().await;
    let Outcome::Failed(failed) = ended(&world, id).await else { panic!("must have failed") };
    assert_eq!(failed.kind(), FailureKind::Expired);
    assert_eq!(slow.runs.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_the_agent_does_not_do_is_refused() {
    let world = World::start().await;
    let machine = world.machine("fsn-1").await;
    let mut agent = machine.agent(&world.link, Registry::default());
    agent.connected().await;
    let id = send(&world, machine.node(), Duration::from_secs(60)).await;
    let Outcome::Failed(failed) = ended(&world, id).await else { panic!("must have failed") };
    assert_eq!(failed.kind(), FailureKind::Refused);
}

#[tokio::test]
async fn only_the_node_that_was_asked_may_answer_and_only_once() {
    let world = World::start().await;
    let (asked, other) = (world.machine("fsn-1").await, world.machine("fsn-2").await);
    let id = send(&world, asked.node(), Duration::from_secs(60)).await;
    let mut liar = RawAgent::greeted(&world, &other).await;
    liar.reply(id, Outcome::TenantList(TenantList::default())).await;
    // An acknowledged report says that what came before it was dealt with.
    liar.report_and_wait(1).await;
    assert!(!look(&world, id).await.ended);

    let mut honest = RawAgent::greeted(&world, &asked).await;
    let first = TenantList { tenants: vec![Default::default()] };
    honest.reply(id, Outcome::TenantList(first.clone())).await;
    honest.reply(id, Outcome::TenantList(TenantList::default())).await;
    honest.report_and_wait(1).await;
    let reply = look(&world, id).await.reply.expect("a reply");
    assert_eq!(reply.outcome, Some(Outcome::TenantList(first)));
}
