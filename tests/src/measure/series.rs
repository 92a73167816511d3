//! The series that a run is made of, each with its figures.

pub mod busy;
pub mod copy;
pub mod large;
pub mod pause;

use tokio::sync::watch;
use webhost_agent::mover::catalog::Rules;
use webhost_agent::mover::connect::Endpoint;
use webhost_agent::mover::error::Side;
use webhost_agent::mover::fail::Fail;
use webhost_agent::mover::run::{Run, Tuning};
use webhost_agent::mover::spec::{Progress, Secret, Spec};
use webhost_coordinator::config::Moves;
use webhost_proto::ids::{Epoch, MoveId, NodeId, TenantId};

use super::town::{Sides, Town};

/// A move of the town's tenant, socket to socket; `dedicated` says that the
/// target serves nobody else. As fast as a coordinator lets it go by default.
pub fn a_move(town: &Town, sides: &Sides, dedicated: bool) -> Run {
    let [source, target] = sides.mover();
    let limits = Moves::default();
    Run {
        spec: Spec {
            move_id: MoveId::generate(),
            tenant: TenantId(town.tenant),
            epoch: Epoch(1),
            source_node: NodeId::generate(),
            target_node: NodeId::generate(),
            target_tunnel: String::new(),
            ticket: Secret(Vec::new()),
            target_place: "the target".into(),
            source_place: "the source".into(),
            max_rows_per_second: if dedicated {
                limits.max_rows_per_second
            } else {
                limits.max_rows_per_second_to_shared
            },
            target_http: false,
            tenant_host: String::new(),
            target_dedicated: dedicated,
            retain_from_us: 0,
            way_back_until_us: 0,
            old_copy_gone: false,
        },
        rules: Rules::default(),
        source: Endpoint::Local(Box::new(source)),
        target: Endpoint::Local(Box::new(target)),
        here: Side::Source,
        alone: false,
        tuning: Tuning::default(),
        archives: std::env::temp_dir().join("webhost-no-archives"),
        fail: Fail::Off,
        requests: std::sync::Arc::new(webhost_agent::mover::requests::Nobody),
        progress: watch::Sender::new(Progress::default()),
    }
}
