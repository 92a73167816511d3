//! A person's word on a move, as the API takes it.

use super::*;

/// Nothing is forgotten by a slip, before its time, or while the node is there.
#[tokio::test]
async fn a_move_is_forgotten_by_a_persons_word_alone() {
    let site = Site::new().await;
    let (_, tenant) = site.tenant().await;
    let own = site.world.node("own-1", NodeKind::Dedicated).await;
    let wanted = json!({ "customer_id": tenant, "target_mode": "single_tenant" });
    let (status, body) = site.admin(Method::POST, "/api/admin/deployment/migrate", wanted).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    let id = body["move_id"].as_str().expect("an id");
    let path = format!("/api/moves/{id}/forget");
    let forget = |word: Value| site.admin(Method::POST, &path, word);
    let gone = json!({ "node_is_gone": true });

    let (status, body) = forget(json!({})).await;
    assert!(status.is_client_error() && body.to_string().contains("node_is_gone"), "{body}");
    let (status, body) = forget(json!({ "node_is_gone": false })).await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
    let (status, body) = forget(gone.clone()).await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");

    // It was abandoned, and waits for its target alone.
    let abandoned = format!(
        "update moves set state = 'clean_target', target_node_id = '{}' where id = '{id}'",
        own.0
    );
    site.world.execute(&abandoned).await;
    let connection = |at: &str| format!("update nodes set connected_at = {at}");
    site.world.execute(&connection("now()")).await;
    let (status, body) = forget(gone.clone()).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(body.to_string().contains("own-1 is connected"), "{body}");
    site.world.execute(&connection("null")).await;
    let (status, body) = forget(gone).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert!(body["ended_at"].is_string(), "{body}");
    let said = body["events"].to_string();
    assert!(said.contains("own-1 is gone for good"), "{said}");
}
