//! A fleet of rows and a scripted agent, for the driver's tests.

mod answers;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use uuid::Uuid;
use webhost_proto::ids::{CommandId, MoveId, NodeId, TenantId};
use webhost_proto::wire::{self, CommandReply, command, command_reply};

pub(crate) use self::answers::{failed, good, name, recovered};

use crate::decide::Catalog;
use crate::link::Signals;
use crate::moves::{Approval, Driver, NewMove, Progress, Rules, Timing};
use crate::slots::Slots;
use crate::store::commands::{self, Answered};
use crate::store::{Store, moves, testing};
use crate::usage::Book;
use crate::usage::sample::{Metric, Sample};

pub(crate) struct World {
    pub store: Store,
    pub signals: Signals,
    pub timing: Timing,
    pub rules: Rules,
    pub book: Arc<Book>,
    pub tenant: TenantId,
    pub source: NodeId,
    pub target: NodeId,
    pub now: Timestamp,
}

/// What the agents do about one command; none leaves it unanswered.
pub(crate) type Script<'a> = &'a mut dyn FnMut(&command::Kind) -> Option<command_reply::Outcome>;

impl World {
    pub(crate) async fn new() -> Self {
        Self::on(testing::database().await).await
    }

    /// A tenant and two nodes of their own in a database that others use too.
    pub(crate) async fn on(store: Store) -> Self {
        let (tenant, source, target) =
            (TenantId::generate(), NodeId::generate(), NodeId::generate());
        let client = store.client().await.expect("a client");
        for (id, name, kind, shape) in [
            (source, "shared-1", "shared", "ax52"),
            (target, "dedicated-1", "dedicated", "shared-cpu-512"),
        ] {
            // The clock of these tests runs ahead of the database's, and no
            // agent is there to report.
            client
                .execute(
                    "insert into nodes (id, name, kind, shape, region, state, tunnel_address,
                                        connected_at, last_seen_at)
                     values ($1, $2, $3, $4, 'iad', 'active', '10.0.0.1:7403', now(),
                             now() + interval '30 days')",
                    &[&id.0, &format!("{name}-{id}"), &kind, &shape],
                )
                .await
                .expect("a node");
        }
        client
            .execute(
                "insert into tenants (id, slug, name, email, plan, state)
                 values ($1, $1::uuid::text, 'Acme', 'a@example.com', 'hobby', 'active')",
                &[&tenant.0],
            )
            .await
            .expect("a tenant");
        client
            .execute(
                "insert into placements (tenant_id, node_id, mode, state, epoch)
                 values ($1, $2, 'multi_tenant', 'active', 1)",
                &[&tenant.0, &source.0],
            )
            .await
            .expect("a placement");
        drop(client);
        let now = Timestamp::now();
        // So short that what plays on passes over it.
        let keep_old_copy = Duration::from_secs(10);
        let (signals, timing) = (Signals::default(), Timing { keep_old_copy, ..Timing::default() });
        let book = Arc::new(Book::new(Duration::from_secs(300)));
        let rules = Rules::default();
        Self { store, signals, timing, rules, book, tenant, source, target, now }
    }

    /// A driver that knows nothing but the database: as after a restart.
    pub(crate) fn driver(&self) -> Driver {
        let progress = Progress::new(self.store.clone(), Duration::from_secs(1));
        let slots = Slots {
            book: self.book.clone(),
            catalog: Arc::new(Catalog::default()),
            silence: SignedDuration::from_mins(1),
        };
        let (store, timing) = (self.store.clone(), self.timing.clone());
        Driver::new(store, slots, timing, self.signals.clone(), progress).with_rules(self.rules)
    }

    pub(crate) fn upgrade(&self) -> NewMove {
        NewMove {
            tenant: self.tenant,
            mode: "single_tenant".into(),
            plan: "starter".into(),
            regions: vec!["iad".into()],
            target: Some(self.target),
            requested_by: "system".into(),
            reason: "it has outgrown its server".into(),
            decision_id: None,
            approval: Approval::Given { by: "rule".into() },
            dry_run: false,
            confirm_rows: 0,
        }
    }

    pub(crate) async fn request(&self) -> MoveId {
        crate::moves::request(&self.store, self.upgrade()).await.expect("a move")
    }

    /// One more dedicated node.
    pub(crate) async fn another_dedicated(&self) -> NodeId {
        let id = NodeId::generate();
        let client = self.store.client().await.expect("a client");
        client
            .execute(
                "insert into nodes (id, name, kind, shape, region, state, tunnel_address,
                                    connected_at, last_seen_at)
                 select $1, $2, kind, shape, region, state, tunnel_address, connected_at,
                        last_seen_at
                 from nodes where id = $3",
                &[&id.0, &format!("dedicated-{id}"), &self.target.0],
            )
            .await
            .expect("a node");
        id
    }

    /// The tenant lives there.
    pub(crate) async fn live_on(&self, node: NodeId) {
        let client = self.store.client().await.expect("a client");
        client
            .execute(
                "update placements p set node_id = $2, mode = case n.kind
                        when 'shared' then 'multi_tenant' else 'single_tenant' end
                 from nodes n where n.id = $2 and p.tenant_id = $1",
                &[&self.tenant.0, &node.0],
            )
            .await
            .expect("moves in");
    }

    /// The agent of `node` reports the tenant's requests of ten seconds.
    pub(crate) fn report(&self, node: NodeId, calls: u64, errors: u64) {
        let mut sample = Sample::default();
        sample.set(Metric::ApiCalls, calls, false);
        sample.set(Metric::ApiErrors, errors, false);
        sample.set(Metric::RequestDurationUs, calls * 1000, false);
        let report = wire::Report { host: Some(wire::HostSample::default()), ..Default::default() };
        let at_us = self.now.as_microsecond();
        self.book.apply(node, &report, &[(self.tenant, sample)], at_us, 10_000_000);
    }

    /// Nobody has heard of `node` for an hour, or its agent is connected.
    pub(crate) async fn silent(&self, node: NodeId, silent: bool) {
        let client = self.store.client().await.expect("a client");
        client
            .execute(
                "update nodes set connected_at = case when $2 then null else now() end,
                        last_seen_at = now() - interval '1 hour' where id = $1",
                &[&node.0, &silent],
            )
            .await
            .expect("a node");
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = crate::moves::timing::later(self.now, time);
    }

    pub(crate) async fn tick(&self) {
        self.driver().tick(self.now).await.expect("a tick");
    }

    /// Every command that an agent has not answered, with its node.
    pub(crate) async fn open_commands(&self) -> Vec<(NodeId, CommandId, command::Kind)> {
        let client = self.store.client().await.expect("a client");
        let mut open = Vec::new();
        for node in [self.source, self.target] {
            for command in
                commands::open_for(&**client, node, self.now).await.expect("open commands")
            {
                let id = CommandId::from_wire(&command.id).expect("an id");
                open.push((node, id, command.kind.expect("a kind")));
            }
        }
        open
    }

    pub(crate) async fn answer(
        &self,
        node: NodeId,
        id: CommandId,
        outcome: command_reply::Outcome,
    ) -> Answered {
        let reply = CommandReply { command_id: id.to_wire(), outcome: Some(outcome) };
        let client = self.store.client().await.expect("a client");
        commands::answer(&**client, id, node, &reply).await.expect("answers")
    }

    /// The agents answer what `script` says; then the driver, newly started,
    /// has a look. Repeated until nothing is answered any more.
    pub(crate) async fn play(&mut self, script: Script<'_>) {
        let mut ignored = HashSet::new();
        for _ in 0..200 {
            self.tick().await;
            let mut answered = false;
            for (node, id, kind) in self.open_commands().await {
                if ignored.contains(&id) {
                    continue;
                }
                match script(&kind) {
                    Some(outcome) => {
                        self.answer(node, id, outcome).await;
                        answered = true;
                    }
                    None => {
                        ignored.insert(id);
                    }
                }
            }
            if !answered && self.open_commands().await.iter().all(|c| ignored.contains(&c.1)) {
                // A pause before another try may be all that is left.
                let before = self.snapshot().await;
                self.pass(self.timing.longest_pause);
                self.tick().await;
                if self.snapshot().await == before {
                    return;
                }
            }
        }
        panic!("the move never comes to rest: {:?}", self.snapshot().await);
    }

    async fn snapshot(&self) -> (Vec<String>, usize) {
        let client = self.store.client().await.expect("a client");
        let rows = client
            .query(
                "select state from moves where tenant_id = $1 and ended_at is null",
                &[&self.tenant.0],
            )
            .await
            .expect("states");
        let count: i64 =
            client.query_one("select count(*) from commands", &[]).await.expect("count").get(0);
        (rows.iter().map(|row| row.get(0)).collect(), usize::try_from(count).expect("a count"))
    }

    pub(crate) async fn row(&self, id: MoveId) -> moves::Move {
        let client = self.store.client().await.expect("a client");
        moves::get(&**client, id).await.expect("reads").expect("the move")
    }

    pub(crate) async fn state(&self, id: MoveId) -> &'static str {
        self.row(id).await.state.as_str()
    }

    /// Placement states by node, and the tenant's epoch.
    pub(crate) async fn books(&self) -> (Vec<(&'static str, String, i64)>, i64) {
        let client = self.store.client().await.expect("a client");
        let rows = client
            .query(
                "select node_id, state, epoch from placements where tenant_id = $1 order by id",
                &[&self.tenant.0],
            )
            .await
            .expect("placements");
        let placements = rows
            .iter()
            .map(|row| {
                let node: Uuid = row.get(0);
                let side = if node == self.source.0 { "source" } else { "target" };
                (side, row.get(1), row.get(2))
            })
            .collect();
        let epoch = client
            .query_one("select epoch from tenants where id = $1", &[&self.tenant.0])
            .await
            .expect("epoch")
            .get(0);
        (placements, epoch)
    }

    pub(crate) async fn assert_stayed(&self, id: MoveId, ending: &str) {
        assert_eq!(self.state(id).await, ending);
        let (placements, epoch) = self.books().await;
        assert_eq!(epoch, 1);
        assert_eq!(placements[0], ("source", "active".to_owned(), 1));
        assert!(placements[1..].iter().all(|p| p.1 == "ended"), "{placements:?}");
        self.assert_settled().await;
    }

    pub(crate) async fn assert_moved(&self, id: MoveId) {
        assert_eq!(self.state(id).await, "completed");
        let (placements, epoch) = self.books().await;
        assert_eq!(epoch, 2);
        let expected = [("source", "ended".to_owned(), 1), ("target", "active".to_owned(), 2)];
        assert_eq!(placements, expected);
        self.assert_settled().await;
    }

    pub(crate) async fn assert_rolled_back(&self, id: MoveId) {
        assert_eq!(self.state(id).await, "rolled_back");
        let (placements, epoch) = self.books().await;
        assert_eq!(epoch, 3);
        let expected = [("source", "active".to_owned(), 3), ("target", "ended".to_owned(), 2)];
        assert_eq!(placements, expected);
        self.assert_settled().await;
    }

    /// Plays until the way back is open, and leaves it so.
    pub(crate) async fn switched(&mut self) -> MoveId {
        let id = self.request().await;
        self.play(&mut |command| (name(command) != "way_back").then(|| good(command))).await;
        assert_eq!(self.state(id).await, "way_back");
        id
    }

    /// No command is on its way, and no ticket is left in the database.
    pub(crate) async fn assert_settled(&self) {
        assert_eq!(self.open_commands().await, []);
        let client = self.store.client().await.expect("a client");
        let left: i64 = client
            .query_one(
                "select (select count(*) from commands where body <> '' and move_id is not null)
                      + (select count(*) from moves where durable->>'ticket' is not null)",
                &[],
            )
            .await
            .expect("counts")
            .get(0);
        assert_eq!(left, 0, "tickets left in the database");
    }

    pub(crate) async fn audit(&self, id: MoveId) -> Vec<String> {
        let client = self.store.client().await.expect("a client");
        client
            .query(
                "select action from audit where subject = 'move' and subject_id = $1 order by id",
                &[&id.to_string()],
            )
            .await
            .expect("audit")
            .iter()
            .map(|row| row.get(0))
            .collect()
    }

    pub(crate) async fn result(&self, id: MoveId) -> Value {
        self.row(id).await.result
    }
}
