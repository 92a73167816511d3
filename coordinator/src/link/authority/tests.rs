use rcgen::CertificateSigningRequest;
use tls::name::PeerName as Name;

use super::*;
use crate::store::testing;

fn request(params: CertificateParams) -> (CertificateSigningRequest, KeyPair) {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    (params.serialize_request(&key).expect("a request"), key)
}

async fn authority(store: &Store, key: &SealingKey) -> Authority {
    Authority::load_or_create(store, key, Leaves::default()).await.expect("an authority")
}

#[tokio::test]
async fn coordinators_that_start_at_once_share_one_authority() {
    let store = testing::database().await;
    let key = SealingKey::generate().expect("a key");
    let (one, two) = tokio::join!(authority(&store, &key), authority(&store, &key));
    let later = authority(&store, &key).await;
    for other in [&two, &later] {
        assert_eq!(one.root(), other.root());
        assert_eq!(one.nodes(), other.nodes());
        assert_eq!(one.coordinators(), other.coordinators());
    }
    // What the one issues the other's servers accept: the keys are the same.
    let csr = request(CertificateParams::default()).0;
    let issued =
        later.issue_node(NodeId::generate(), csr.der(), SystemTime::now()).expect("issues");
    assert_eq!(issued.chain[1], one.nodes().to_vec());
}

#[tokio::test]
async fn a_wrong_sealing_key_is_an_error_and_never_a_new_authority() {
    let store = testing::database().await;
    let key = SealingKey::generate().expect("a key");
    let first = authority(&store, &key).await;
    let wrong = SealingKey::generate().expect("a key");
    let error = Authority::load_or_create(&store, &wrong, Leaves::default()).await.err();
    let text = error.expect("refused").to_string();
    assert!(text.contains("does not open the root authority's private key"), "{text}");
    assert_eq!(authority(&store, &key).await.root(), first.root());
}

#[tokio::test]
async fn of_a_request_only_the_public_key_is_used() {
    let store = testing::database().await;
    let key = SealingKey::generate().expect("a key");
    let authority = authority(&store, &key).await;
    let mut params = CertificateParams::new(vec!["evil.example".into()]).expect("names");
    let wanted = PeerName::Coordinator(Uuid::now_v7()).to_string();
    params.subject_alt_names.push(SanType::URI(wanted.as_str().try_into().expect("ascii")));
    params.distinguished_name.push(DnType::CommonName, "root");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (csr, _) = request(params);
    let node = NodeId::generate();
    let issued = authority.issue_node(node, csr.der(), SystemTime::now()).expect("issues");
    let leaf = CertificateDer::from(issued.chain[0].clone());
    assert_eq!(Name::of(&leaf), Ok(PeerName::Node(node)));

    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).expect("parses");
    let usage = parsed.extended_key_usage().expect("reads").expect("has one").value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
    assert!(!parsed.is_ca());
    let names = parsed.subject_alternative_name().expect("reads").expect("has one").value;
    assert_eq!(names.general_names.len(), 1);
    assert!(!parsed.subject().to_string().contains("root"));
    assert_eq!(issued.serial.len(), 32);
}

#[tokio::test]
async fn requests_that_prove_nothing_are_refused() {
    let store = testing::database().await;
    let key = SealingKey::generate().expect("a key");
    let authority = authority(&store, &key).await;
    let (csr, _) = request(CertificateParams::default());
    let mut forged = csr.der().to_vec();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
    let p384 = CertificateParams::default().serialize_request(&p384).expect("a request");
    for (what, der) in [
        ("nothing", Vec::new()),
        ("noise", vec![0x30; 300]),
        ("a forged signature", forged),
        ("another curve", p384.der().to_vec()),
        ("too long", vec![0; 9000]),
    ] {
        let outcome = authority.issue_node(NodeId::generate(), &der, SystemTime::now());
        assert!(matches!(outcome, Err(AuthorityError::Request(_))), "{what}");
    }
}

#[tokio::test]
async fn leaves_live_as_long_as_configured_and_two_never_share_a_serial() {
    let store = testing::database().await;
    let key = SealingKey::generate().expect("a key");
    let leaves = Leaves { lifetime: Duration::from_secs(3600) };
    let authority = Authority::load_or_create(&store, &key, leaves).await.expect("an authority");
    let now = SystemTime::now();
    let (csr, _) = request(CertificateParams::default());
    let one = authority.issue_node(NodeId::generate(), csr.der(), now).expect("issues");
    let two = authority.issue_node(NodeId::generate(), csr.der(), now).expect("issues");
    assert_ne!(one.serial, two.serial);
    let leaf = CertificateDer::from(one.chain[0].clone());
    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).expect("parses");
    let validity = parsed.validity();
    let lasts = validity.not_after.timestamp() - validity.not_before.timestamp();
    assert_eq!(lasts, 3660);
}

#[tokio::test]
async fn a_coordinator_gets_its_names_and_refuses_what_is_none() {
    let store = testing::database().await;
    let key = SealingKey::generate().expect("a key");
    let authority = authority(&store, &key).await;
    let issue = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        authority.issue_coordinator(Uuid::now_v7(), &names, SystemTime::now())
    };
    let identity = issue(&["fleet.example", "192.0.2.1", "[2001:db8::1]"]).expect("issues");
    assert_eq!(identity.chain().len(), 3);
    for wrong in ["", "a b", "-x", "*.example", "a..b"] {
        assert!(matches!(issue(&[wrong]), Err(AuthorityError::HostName(_))), "{wrong:?}");
    }
}
