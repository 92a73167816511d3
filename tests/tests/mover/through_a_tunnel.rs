//! A whole move through the TLS tunnel of the target's agent.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use webhost_agent::command::Handler;
use webhost_agent::mover::spec::Secret;
use webhost_agent::mover::supervisor::{Supervisor, Way};
use webhost_agent::mover::tunnel::{Database, TunnelIdentity, serve};
use webhost_proto::ids::NodeId;
use webhost_proto::tls::{Identity, tunnel_server};
use webhost_proto::wire::{self, MoveStepKind as K, command, command_reply::Outcome};
use webhost_tests::schema;
use webhost_tests::writers::{Findings, Writers, check};

use crate::kills::{answer, setup, well};
use crate::scene::{LEVELS, a_move, states, world};

struct Authority {
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

fn authority() -> Authority {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let der = params.self_signed(&key).expect("a certificate").der().to_vec();
    Authority { der, issuer: Issuer::new(params, key) }
}

impl Authority {
    fn node(&self, node: NodeId) -> TunnelIdentity {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        let name = format!("spiffe://webhost-fleet/node/{node}");
        params.subject_alt_names = vec![SanType::URI(name.as_str().try_into().expect("ascii"))];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params.signed_by(&key, &self.issuer).expect("a certificate");
        TunnelIdentity {
            chain: vec![leaf.der().to_vec()],
            key_pkcs8: Secret(key.serialize_der()),
            node_authorities: vec![self.der.clone()],
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_moves_through_the_tunnel_and_strangers_do_not() {
    let world = world(schema::WEBHOST, 3_000).await;
    let authority = authority();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut spec = a_move(&world).spec;
    spec.target_tunnel = listener.local_addr().expect("an address").to_string();
    spec.ticket = Secret(b"the ticket of this move".to_vec());

    // The target's agent.
    let dir = tempfile::tempdir().expect("a directory");
    let mut target = setup(&world, &spec, dir.path(), None);
    target.node = spec.target_node;
    target.tunnel_address = Some(spec.target_tunnel.clone());
    let tickets = Arc::clone(&target.tickets);
    let shutdown = CancellationToken::new();
    let theirs = authority.node(spec.target_node);
    let identity = Identity::new(theirs.chain, theirs.key_pkcs8.0).expect("an identity");
    let config = tunnel_server(&identity, &[authority.der.clone().into()]).expect("a config");
    let (_config, config) = watch::channel(config);
    let database =
        Database::of(&world.mover(&world.target)).expect("a database").on_disk("/".into());
    let mut server = tokio::task::JoinSet::new();
    server.spawn(serve(listener, config, tickets, database, shutdown.clone()));
    let target = Supervisor::load(target).expect("loads");
    let open = wire::OpenTunnel {
        move_id: spec.move_id.to_wire(),
        tenant_id: spec.tenant.to_wire(),
        ticket_sha256: ring::digest::digest(&ring::digest::SHA256, &spec.ticket.0)
            .as_ref()
            .to_vec(),
        source_node_id: spec.source_node.to_wire(),
        expires_at_us: i64::MAX,
    };
    let opened = target.handle(command::Kind::OpenTunnel(open), watch::channel(None).0).await;
    assert!(matches!(opened, Outcome::TunnelOpened(_)), "{opened:?}");

    // The source's.
    let dir = tempfile::tempdir().expect("a directory");
    let source = |identity: TunnelIdentity| {
        let mut setup = setup(&world, &spec, dir.path(), None);
        setup.way = Way::Tunnel(Arc::new(move || Ok(identity.clone())));
        Supervisor::load(setup).expect("loads")
    };
    let refused = |outcome, wanted: &str| match outcome {
        Outcome::Failed(failed) => assert!(failed.message.contains(wanted), "{}", failed.message),
        other => panic!("{other:?}"),
    };
    // Another node with a good certificate; a node of another fleet; a wrong
    // ticket.
    let stranger = source(authority.node(NodeId::generate()));
    refused(answer(&stranger, &spec, K::Preflight).await, "refused");
    let other_fleet = source(self::authority().node(spec.source_node));
    refused(answer(&other_fleet, &spec, K::Preflight).await, "tunnel of node");
    let ours = source(authority.node(spec.source_node));
    let mut guess = spec.clone();
    guess.ticket = Secret(b"a guess".to_vec());
    refused(answer(&ours, &guess, K::Preflight).await, "no such move, ticket or node");

    let writers = Writers::start(&world, &LEVELS, Duration::from_millis(5), 3);
    for step in [K::Preflight, K::Guard, K::Copy, K::Drain, K::Verify, K::CutOver] {
        well(&ours, &spec, step).await;
    }
    let ledger = writers.stop().await.expect("writers");
    assert_eq!(states(&world).await, ("moved".into(), "active".into()));
    assert_eq!(check(&world, &ledger, 1).await.expect("check"), Findings::default());
    // And back, through the same tunnel.
    well(&ours, &spec, K::RollBack).await;
    assert_eq!(states(&world).await, ("active".into(), "moved".into()));
    well(&ours, &spec, K::Finish).await;
    let found = check(&world, &ledger, 0).await.expect("check");
    assert_eq!(Findings { foreign: 0, ..found }, Findings::default());

    let close = command::Kind::CloseTunnel(wire::CloseTunnel { move_id: spec.move_id.to_wire() });
    let closed = target.handle(close, watch::channel(None).0).await;
    assert!(matches!(closed, Outcome::TunnelClosed(_)), "{closed:?}");
    refused(answer(&ours, &spec, K::Preflight).await, "refused");
    shutdown.cancel();
    while let Some(ended) = server.join_next().await {
        ended.expect("no panic").expect("ends well");
    }
}
