use std::sync::atomic::AtomicUsize;

use tokio::sync::Notify;
use webhost_proto::wire::{ListTenants, MoveStep, TenantList};

use super::*;

/// Runs until it is let go; counts its runs.
#[derive(Default)]
struct Slow {
    runs: AtomicUsize,
    go: Notify,
}

#[tonic::async_trait]
impl Handler for Slow {
    async fn handle(
        &self,
        _command: command::Kind,
        progress: watch::Sender<Option<MoveProgress>>,
    ) -> Outcome {
        self.runs.fetch_add(1, Ordering::SeqCst);
        progress.send_replace(Some(MoveProgress { rows_done: 7, ..MoveProgress::default() }));
        self.go.notified().await;
        Outcome::TenantList(TenantList::default())
    }
}

struct Panicking;

#[tonic::async_trait]
impl Handler for Panicking {
    async fn handle(
        &self,
        _command: command::Kind,
        _progress: watch::Sender<Option<MoveProgress>>,
    ) -> Outcome {
        panic!("a handler with a fault");
    }
}

struct Bench {
    dir: tempfile::TempDir,
    slow: Arc<Slow>,
    tracker: Tracker,
    replies: mpsc::Receiver<CommandReply>,
    shutdown: CancellationToken,
}

impl Bench {
    fn new() -> Self {
        Self::in_dir(tempfile::tempdir().expect("a directory"))
    }

    fn in_dir(dir: tempfile::TempDir) -> Self {
        let slow = Arc::new(Slow::default());
        let registry = Registry::default()
            .with(CommandName::ListTenants, slow.clone())
            .with(CommandName::OpenTunnel, Arc::new(Panicking));
        let journal = Journal::open(dir.path()).expect("a journal");
        let shutdown = CancellationToken::new();
        let (tracker, replies) = Tracker::new(registry, journal, shutdown.clone());
        Self { dir, slow, tracker, replies, shutdown }
    }

    async fn next(&mut self) -> Outcome {
        self.replies.recv().await.expect("a reply").outcome.expect("an outcome")
    }

    fn runs(&self) -> usize {
        self.slow.runs.load(Ordering::SeqCst)
    }
}

fn command(id: CommandId, kind: command::Kind) -> Command {
    Command { id: id.to_wire(), expires_at_us: now_us() + 60_000_000, kind: Some(kind) }
}

fn list(id: CommandId) -> Command {
    command(id, command::Kind::ListTenants(ListTenants {}))
}

fn failure(outcome: &Outcome) -> FailureKind {
    match outcome {
        Outcome::Failed(failed) => failed.kind(),
        other => panic!("expected a failure, got {other:?}"),
    }
}

#[tokio::test]
async fn a_command_that_comes_again_attaches_and_its_outcome_is_remembered() {
    let mut bench = Bench::new();
    let id = CommandId::generate();
    bench.tracker.receive(list(id));
    assert!(matches!(bench.next().await, Outcome::Accepted(_)));
    assert!(matches!(bench.next().await, Outcome::Progress(_)));
    assert_eq!(bench.tracker.running()[0].id, id);

    bench.tracker.receive(list(id));
    assert!(matches!(bench.next().await, Outcome::Accepted(_)));
    assert_eq!(bench.runs(), 1);

    bench.slow.go.notify_one();
    assert!(matches!(bench.next().await, Outcome::TenantList(_)));
    assert!(bench.tracker.running().is_empty());

    bench.tracker.receive(list(id));
    assert!(matches!(bench.next().await, Outcome::TenantList(_)));
    assert_eq!(bench.runs(), 1);

    // And over a restart, even when its time has ended meanwhile.
    let mut bench = Bench::in_dir(bench.dir);
    bench.tracker.receive(Command { expires_at_us: 1, ..list(id) });
    assert!(matches!(bench.next().await, Outcome::TenantList(_)));
    assert_eq!(bench.runs(), 0);
}

#[tokio::test]
async fn a_command_that_the_shutdown_ended_has_no_outcome_and_runs_again() {
    let mut bench = Bench::new();
    let id = CommandId::generate();
    bench.tracker.receive(list(id));
    assert!(matches!(bench.next().await, Outcome::Accepted(_)));
    bench.shutdown.cancel();
    bench.tracker.wait().await;
    let Bench { dir, tracker, .. } = bench;
    drop(tracker);
    let mut bench = Bench::in_dir(dir);
    bench.tracker.receive(list(id));
    assert!(matches!(bench.next().await, Outcome::Accepted(_)));
    bench.slow.go.notify_one();
    while !matches!(bench.next().await, Outcome::TenantList(_)) {}
    assert_eq!(bench.runs(), 1);
}

#[tokio::test]
async fn what_is_late_unknown_or_not_allowed_is_answered_and_not_run() {
    let mut bench = Bench::new();
    let id = CommandId::generate;
    let step = |step: MoveStepKind| {
        command::Kind::MoveStep(MoveStep { step: step.into(), ..MoveStep::default() })
    };
    for (what, command, expected) in [
        ("late", Command { expires_at_us: now_us() - 1, ..list(id()) }, FailureKind::Expired),
        ("without a time", Command { expires_at_us: 0, ..list(id()) }, FailureKind::Expired),
        ("of no known kind", Command { kind: None, ..list(id()) }, FailureKind::Refused),
        ("not allowed", command(id(), step(MoveStepKind::Copy)), FailureKind::Refused),
        // "Refused" would say something about the fence.
        ("a cut-over", command(id(), step(MoveStepKind::CutOver)), FailureKind::Interrupted),
        ("an undo", command(id(), step(MoveStepKind::Undo)), FailureKind::Interrupted),
    ] {
        bench.tracker.receive(command);
        assert_eq!(failure(&bench.next().await), expected, "{what}");
    }
    assert_eq!(bench.runs(), 0);
    bench.tracker.receive(Command { id: vec![1], ..list(id()) });
    assert!(bench.tracker.running().is_empty());
}

#[tokio::test]
async fn a_time_ends_by_the_coordinators_clock() {
    let mut bench = Bench::new();
    bench.tracker.set_clock(now_us() + 3_600_000_000);
    bench.tracker.receive(list(CommandId::generate()));
    assert_eq!(failure(&bench.next().await), FailureKind::Expired);
}

#[tokio::test]
async fn a_handler_that_panics_ends_its_command_and_nothing_else() {
    let mut bench = Bench::new();
    let open = command(CommandId::generate(), command::Kind::OpenTunnel(Default::default()));
    bench.tracker.receive(open);
    assert!(matches!(bench.next().await, Outcome::Accepted(_)));
    assert_eq!(failure(&bench.next().await), FailureKind::Interrupted);
    assert!(bench.tracker.running().is_empty());
}

#[tokio::test]
async fn only_so_many_run_at_once() {
    let mut bench = Bench::new();
    for _ in 0..MAX_RUNNING {
        bench.tracker.receive(list(CommandId::generate()));
        while !matches!(bench.next().await, Outcome::Accepted(_)) {}
    }
    bench.tracker.receive(list(CommandId::generate()));
    let over = loop {
        match bench.next().await {
            Outcome::Progress(_) => {}
            other => break other,
        }
    };
    assert_eq!(failure(&over), FailureKind::Interrupted);
}
