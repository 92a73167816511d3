//! Both ends on loopback.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rcgen::ExtendedKeyUsagePurpose;
use rustls::{ClientConfig, HandshakeKind, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::testing::{Authority, Leaf};
use super::*;
use crate::ids::NodeId;

/// A hang must end a test; nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(30);

struct Server {
    address: String,
    acceptor: Acceptor,
    shutdown: CancellationToken,
    _config: watch::Sender<Arc<ServerConfig>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn serve(config: Arc<ServerConfig>, limits: Limits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let (sender, config) = watch::channel(config);
    let shutdown = CancellationToken::new();
    let acceptor = Acceptor::start(listener, config, limits, &TaskTracker::new(), shutdown.clone())
        .expect("starts");
    let address = acceptor.local_addr().to_string();
    Server { address, acceptor, shutdown, _config: sender }
}

/// Connects and exchanges one byte; a server's refusal in TLS 1.3 shows only
/// at the first read.
async fn greet(server: &mut Server, client: Arc<ClientConfig>) -> Result<PeerInfo, String> {
    let acceptor = &mut server.acceptor;
    let dial = async {
        let mut stream =
            connect(&server.address, client).await.map_err(|error| error.to_string())?;
        stream.read_u8().await.map_err(|error| error.to_string())
    };
    let accept = async {
        let mut stream = acceptor.next().await.expect("still serving");
        stream.write_u8(7).await.expect("writes");
        stream.flush().await.expect("flushes");
        let info = stream.info().clone();
        // Held open until the client has read.
        (stream, info)
    };
    let both = async {
        tokio::pin!(dial, accept);
        tokio::select! {
            dialled = &mut dial => {
                dialled?;
                Ok(accept.await.1)
            }
            (_stream, info) = &mut accept => dial.await.map(|_| info),
        }
    };
    tokio::time::timeout(PATIENCE, both).await.expect("an answer in time")
}

/// An agent's own configuration.
fn client_with(identity: &Identity, coordinators: &Authority) -> Arc<ClientConfig> {
    link_client(identity, std::slice::from_ref(&coordinators.certificate)).expect("a configuration")
}

#[tokio::test]
async fn the_link_takes_nodes_of_this_fleet_and_nobody_else() {
    let (nodes, coordinators, foreign) = (Authority::new(), Authority::new(), Authority::new());
    let node = NodeId::generate();
    let server_identity = coordinators.issue(&Leaf::coordinator());
    let config = link_server(&server_identity, std::slice::from_ref(&nodes.certificate))
        .expect("a configuration");
    let mut server = serve(config, Limits::mutual()).await;

    let good = nodes.issue(&Leaf::node(node));
    let info = greet(&mut server, client_with(&good, &coordinators)).await.expect("taken in");
    assert_eq!(peer_node(&info.certificates), Ok(node));

    let expired = Leaf { not_before: -7200, not_after: -60, ..Leaf::node(node) };
    let early = Leaf { not_before: 3600, not_after: 7200, ..Leaf::node(node) };
    let serves = Leaf { usage: ExtendedKeyUsagePurpose::ServerAuth, ..Leaf::node(node) };
    let named_coordinator =
        Leaf { usage: ExtendedKeyUsagePurpose::ClientAuth, ..Leaf::coordinator() };
    for (what, identity) in [
        ("of a foreign authority", foreign.issue(&Leaf::node(node))),
        ("expired", nodes.issue(&expired)),
        ("not yet valid", nodes.issue(&early)),
        ("for server authentication", nodes.issue(&serves)),
        (
            "a node's name signed by the coordinators' authority",
            coordinators.issue(&Leaf::node(node)),
        ),
        ("a coordinator's name signed by the nodes' authority", nodes.issue(&named_coordinator)),
        ("a coordinator's", coordinators.issue(&Leaf::coordinator())),
    ] {
        let outcome = greet(&mut server, client_with(&identity, &coordinators)).await;
        assert!(outcome.is_err(), "a certificate {what} was taken in");
    }
    let none = enrolment_client(sha256(&coordinators.certificate)).expect("a configuration");
    assert!(greet(&mut server, none).await.is_err(), "no certificate was taken in");
    assert_eq!(server.acceptor.counts().accepted.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn two_names_in_one_certificate_are_nobodys() {
    let (nodes, coordinators) = (Authority::new(), Authority::new());
    let config = link_server(
        &coordinators.issue(&Leaf::coordinator()),
        std::slice::from_ref(&nodes.certificate),
    );
    let mut server = serve(config.expect("a configuration"), Limits::mutual()).await;
    let name = |node| PeerName::Node(node).to_string();
    for uris in [vec![], vec![name(NodeId::generate()), name(NodeId::generate())]] {
        let leaf = Leaf { uris, ..Leaf::node(NodeId::generate()) };
        let (chain, key) = nodes.issue_der(&leaf);
        assert!(Identity::new(chain.clone(), key.clone()).is_err(), "our own end refuses it");
        let outcome = greet(&mut server, raw_client(chain, key, &coordinators)).await;
        assert!(outcome.is_err(), "{:?} was taken in", leaf.uris);
    }
}

/// A client by rustls alone, for certificates that [`Identity`] refuses.
fn raw_client(chain: Vec<Vec<u8>>, key: Vec<u8>, coordinators: &Authority) -> Arc<ClientConfig> {
    let verifier =
        verify::NamedServer::coordinator(std::slice::from_ref(&coordinators.certificate));
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier.expect("a verifier")))
        .with_client_auth_cert(
            chain.into_iter().map(Into::into).collect(),
            rustls_pki_types::PrivatePkcs8KeyDer::from(key).into(),
        );
    Arc::new(config.expect("a configuration"))
}

fn sha256(certificate: &[u8]) -> [u8; 32] {
    ring::digest::digest(&ring::digest::SHA256, certificate).as_ref().try_into().expect("32 bytes")
}

#[tokio::test]
async fn a_nodes_certificate_can_not_act_as_coordinator() {
    let (nodes, coordinators) = (Authority::new(), Authority::new());
    let node = nodes.issue(&Leaf::node(NodeId::generate()));
    let serving =
        nodes.issue(&Leaf { usage: ExtendedKeyUsagePurpose::ServerAuth, ..Leaf::coordinator() });
    let both_authorities = [nodes.certificate.clone(), coordinators.certificate.clone()];
    let named_node = coordinators.issue(&Leaf {
        usage: ExtendedKeyUsagePurpose::ServerAuth,
        ..Leaf::node(NodeId::generate())
    });
    for (what, identity) in [
        ("a node's certificate", &node),
        ("a coordinator's name signed by the nodes' authority", &serving),
        ("a node's name signed by the coordinators' authority", &named_node),
    ] {
        let config = link_server(identity, &both_authorities).expect("a configuration");
        let mut server = serve(config, Limits::mutual()).await;
        let outcome = greet(&mut server, client_with(&node, &coordinators)).await;
        assert!(outcome.is_err(), "{what} acted as a coordinator");
    }
}

#[tokio::test]
async fn a_tunnel_reaches_exactly_the_node_that_was_meant() {
    let (nodes, coordinators) = (Authority::new(), Authority::new());
    let authorities = std::slice::from_ref(&nodes.certificate);
    let (source, target) = (NodeId::generate(), NodeId::generate());
    let (source_identity, target_identity) =
        (nodes.issue(&Leaf::node(source)), nodes.issue(&Leaf::node(target)));
    let config = tunnel_server(&target_identity, authorities).expect("a configuration");
    let mut server = serve(config, Limits::mutual()).await;

    let meant = tunnel_client(&source_identity, authorities, target).expect("a configuration");
    let info = greet(&mut server, meant).await.expect("reaches it");
    assert_eq!(peer_node(&info.certificates), Ok(source));

    let other = tunnel_client(&source_identity, authorities, source).expect("a configuration");
    let error = greet(&mut server, other).await.expect_err("another node answered");
    assert!(error.contains(&source.to_string()) && error.contains(&target.to_string()), "{error}");

    let link = client_with(&source_identity, &coordinators);
    assert!(greet(&mut server, link).await.is_err(), "the link's protocol is not the tunnel's");
}

#[tokio::test]
async fn a_pinned_root_must_be_the_right_one() {
    let coordinators = Authority::new();
    let (mut chain, key) = coordinators.issue_der(&Leaf::coordinator());
    chain.push(coordinators.certificate.to_vec());
    let identity = Identity::new(chain, key).expect("an identity");
    let mut server = serve(open_server(&identity).expect("a server"), Limits::open()).await;

    let right = enrolment_client(sha256(&coordinators.certificate)).expect("a configuration");
    greet(&mut server, right).await.expect("enrols");

    let wrong = enrolment_client([7; 32]).expect("a configuration");
    let error = greet(&mut server, wrong).await.expect_err("a wrong pin was accepted");
    assert!(error.contains("not the one of the join token"), "{error}");

    // The pinned root in the chain proves nothing unless it signed the leaf.
    let (chain, key) = Authority::new().issue_der(&Leaf::coordinator());
    let chain = vec![chain[0].clone(), coordinators.certificate.to_vec()];
    let impostor = Identity::new(chain, key).expect("an identity");
    let mut server = serve(open_server(&impostor).expect("a server"), Limits::open()).await;
    let right = enrolment_client(sha256(&coordinators.certificate)).expect("a configuration");
    assert!(greet(&mut server, right).await.is_err(), "an impostor sent the root along");
}

#[tokio::test]
async fn no_session_is_resumed_even_for_a_client_that_would() {
    let (nodes, coordinators) = (Authority::new(), Authority::new());
    let server_identity = coordinators.issue(&Leaf::coordinator());
    let config = link_server(&server_identity, std::slice::from_ref(&nodes.certificate));
    let mut server = serve(config.expect("a configuration"), Limits::mutual()).await;
    let (chain, key) = nodes.issue_der(&Leaf::node(NodeId::generate()));
    // rustls' default client keeps tickets and resumes.
    let eager = raw_client(chain, key, &coordinators);
    for _ in 0..3 {
        let mut dialled = connect(&server.address, eager.clone()).await.expect("connects");
        let mut accepted = server.acceptor.next().await.expect("accepts");
        accepted.write_u8(1).await.expect("writes");
        accepted.flush().await.expect("flushes");
        dialled.read_u8().await.expect("reads");
        assert_eq!(dialled.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[tokio::test]
async fn an_expired_certificate_ends_the_live_stream_and_stays_out() {
    let (nodes, coordinators) = (Authority::new(), Authority::new());
    let server_identity = coordinators.issue(&Leaf::coordinator());
    let config = link_server(&server_identity, std::slice::from_ref(&nodes.certificate));
    let mut server = serve(config.expect("a configuration"), Limits::mutual()).await;
    let brief = Leaf { not_after: 2, ..Leaf::node(NodeId::generate()) };
    let identity = nodes.issue(&brief);
    let client = client_with(&identity, &coordinators);
    let mut dialled = connect(&server.address, client.clone()).await.expect("connects");
    let mut accepted = server.acceptor.next().await.expect("accepts");
    let mut byte = [0];
    let ended = tokio::time::timeout(PATIENCE, accepted.read(&mut byte)).await.expect("it ends");
    assert!(ended.expect_err("an error").to_string().contains("expired"));
    assert!(accepted.info().cut.is_cancelled());
    drop(accepted);
    assert!(matches!(dialled.read(&mut byte).await, Err(_) | Ok(0)));
    assert!(greet(&mut server, client).await.is_err(), "an expired certificate came back in");
}

#[tokio::test]
async fn cutting_a_stream_wakes_its_reader() {
    let coordinators = Authority::new();
    let (mut chain, key) = coordinators.issue_der(&Leaf::coordinator());
    chain.push(coordinators.certificate.to_vec());
    let identity = Identity::new(chain, key).expect("an identity");
    let mut server = serve(open_server(&identity).expect("a server"), Limits::open()).await;
    let client = enrolment_client(sha256(&coordinators.certificate)).expect("a configuration");
    let _dialled = connect(&server.address, client).await.expect("connects");
    let mut accepted = server.acceptor.next().await.expect("accepts");
    let cut = accepted.info().cut.clone();
    let mut byte = [0];
    let (read, ()) = tokio::join!(accepted.read(&mut byte), async {
        tokio::task::yield_now().await;
        cut.cancel();
    });
    assert!(read.is_err());
}

#[tokio::test]
async fn silent_strangers_are_closed_and_can_not_keep_others_out() {
    let (nodes, coordinators) = (Authority::new(), Authority::new());
    let server_identity = coordinators.issue(&Leaf::coordinator());
    let config = link_server(&server_identity, std::slice::from_ref(&nodes.certificate));
    let limits = Limits {
        handshake: Duration::from_secs(2),
        handshakes: 8,
        per_source: 4,
        ..Limits::mutual()
    };
    let mut server = serve(config.expect("a configuration"), limits).await;
    let mut strangers = Vec::new();
    for _ in 0..20 {
        strangers.push(TcpStream::connect(&server.address).await.expect("connects"));
    }
    // Every one of them is closed by the server, none having said a word.
    for stranger in &mut strangers {
        let mut bytes = [0; 64];
        let closed = tokio::time::timeout(PATIENCE, stranger.read(&mut bytes)).await;
        assert!(matches!(closed.expect("it is closed"), Err(_) | Ok(0)));
    }
    let counts = server.acceptor.counts();
    let timed_out = counts.timed_out.load(Ordering::Relaxed);
    let over = counts.over_source_limit.load(Ordering::Relaxed);
    assert_eq!(timed_out + over, 20);
    assert!(over > 0, "the cap per source never held");
    let identity = nodes.issue(&Leaf::node(NodeId::generate()));
    greet(&mut server, client_with(&identity, &coordinators)).await.expect("room for a node");
}

#[tokio::test]
async fn connections_are_capped_and_their_places_come_back() {
    let (nodes, coordinators) = (Authority::new(), Authority::new());
    let server_identity = coordinators.issue(&Leaf::coordinator());
    let config = link_server(&server_identity, std::slice::from_ref(&nodes.certificate));
    let limits = Limits { connections: 2, ..Limits::mutual() };
    let mut server = serve(config.expect("a configuration"), limits).await;
    let identity = nodes.issue(&Leaf::node(NodeId::generate()));
    let client = client_with(&identity, &coordinators);
    let mut held = Vec::new();
    for _ in 0..2 {
        let dialled = connect(&server.address, client.clone()).await.expect("connects");
        held.push((dialled, server.acceptor.next().await.expect("accepts")));
    }
    assert!(greet(&mut server, client.clone()).await.is_err(), "a third was taken in");
    assert_eq!(server.acceptor.counts().over_connection_limit.load(Ordering::Relaxed), 1);
    held.pop();
    greet(&mut server, client).await.expect("its place came back");
}

#[tokio::test]
async fn a_new_configuration_serves_the_next_connection() {
    let (nodes, coordinators, renewed) = (Authority::new(), Authority::new(), Authority::new());
    let authorities = std::slice::from_ref(&nodes.certificate);
    let config = |authority: &Authority| {
        link_server(&authority.issue(&Leaf::coordinator()), authorities).expect("a configuration")
    };
    let mut server = serve(config(&coordinators), Limits::mutual()).await;
    let identity = nodes.issue(&Leaf::node(NodeId::generate()));
    greet(&mut server, client_with(&identity, &coordinators)).await.expect("the old one");
    server._config.send_replace(config(&renewed));
    greet(&mut server, client_with(&identity, &renewed)).await.expect("the new one");
    assert!(greet(&mut server, client_with(&identity, &coordinators)).await.is_err());
}

#[test]
fn nothing_of_a_key_is_printed() {
    let (chain, key) = Authority::new().issue_der(&Leaf::coordinator());
    let printed = format!("{:?}", Identity::new(chain, key.clone()).expect("an identity"));
    assert!(printed.contains("Coordinator") && !printed.contains(&format!("{:?}", &key[..8])));
}
