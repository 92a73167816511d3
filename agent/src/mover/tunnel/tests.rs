use webhost_proto::ids::{MoveId, NodeId, TenantId};
use webhost_proto::wire;

use super::*;

fn ticket(secret: &[u8]) -> Ticket {
    Ticket {
        move_id: MoveId::generate(),
        tenant: TenantId::generate(),
        sha256: ring::digest::digest(&ring::digest::SHA256, secret).as_ref().to_vec(),
        source_node: NodeId::generate(),
        expires_at_us: 1_000,
    }
}

#[test]
fn a_ticket_admits_one_node_to_one_move_for_a_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let ours = ticket(b"secret");
    let tickets = Tickets::load(dir.path()).expect("loads");
    tickets.open(ours.clone()).expect("opens");
    // After a restart of the agent, too.
    for tickets in [&tickets, &Tickets::load(dir.path()).expect("loads again")] {
        let admit =
            |move_id, secret: &[u8], node, now| tickets.admit(move_id, secret, node, now).err();
        assert_eq!(admit(ours.move_id, b"secret", ours.source_node, 999), None);
        for (move_id, secret, node, now, why) in [
            (MoveId::generate(), &b"secret"[..], ours.source_node, 0, "no such move"),
            (ours.move_id, b"guess", ours.source_node, 0, "wrong ticket"),
            (ours.move_id, b"", ours.source_node, 0, "wrong ticket"),
            (ours.move_id, b"secret", NodeId::generate(), 0, "the ticket is another node's"),
            (ours.move_id, b"secret", ours.source_node, 1_000, "the ticket expired"),
        ] {
            assert_eq!(admit(move_id, secret, node, now), Some(why));
        }
    }
}

#[test]
fn closing_ends_what_runs_and_is_remembered() {
    let dir = tempfile::tempdir().expect("a directory");
    let ours = ticket(b"secret");
    let tickets = Tickets::load(dir.path()).expect("loads");
    tickets.open(ours.clone()).expect("opens");
    let running = tickets.admit(ours.move_id, b"secret", ours.source_node, 0).expect("admitted");
    tickets.close(ours.move_id).expect("closes");
    tickets.close(ours.move_id).expect("closes twice");
    assert!(running.is_cancelled());
    let tickets = Tickets::load(dir.path()).expect("loads again");
    assert!(tickets.admit(ours.move_id, b"secret", ours.source_node, 0).is_err());
}

#[tokio::test]
async fn greetings_take_no_byte_too_much_and_are_bounded() {
    let hello = wire::TunnelHello { move_id: vec![7; 16], ticket: vec![9; 200], purpose: 1 };
    let mut bytes = Vec::new();
    write(&mut bytes, &hello).await.expect("writes");
    bytes.extend_from_slice(b"more");
    let mut rest = bytes.as_slice();
    assert_eq!(read::<wire::TunnelHello>(&mut rest).await.expect("reads"), hello);
    assert_eq!(rest, b"more");
    for wrong in [&[0xff_u8, 0xff, 0xff, 0xff][..], &[0xff, 0x7f], &[0x80], &[2, 0xff]] {
        assert!(read::<wire::TunnelHello>(&mut &*wrong).await.is_err(), "{wrong:?}");
    }
}
