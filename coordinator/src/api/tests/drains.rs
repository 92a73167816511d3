//! Emptying a node by way of the API.

use super::*;

#[tokio::test]
async fn a_node_is_drained_by_a_time_and_its_tenants_moved() {
    let site = Site::new().await;
    site.tenant().await;
    site.world.node("shared-2", NodeKind::Shared).await;
    site.world.node("own-1", NodeKind::Dedicated).await;
    let now = jiff::Timestamp::now().as_second();
    let by = jiff::Timestamp::from_second(now + 8 * 3600).expect("a time");
    let plan = site.get(&format!("/api/nodes/shared-1/drain?by={by}")).await;
    assert_eq!((&plan["late"], &plan["tenants"][0]["slug"]), (&json!(0), &json!("acme")), "{plan}");
    assert_eq!(plan["by"], json!(by));
    assert!(plan["tenants"][0]["begins"].is_string() && plan["ends"].is_string(), "{plan}");

    let drain = async |node: &str, body: Value| {
        let path = format!("/api/nodes/{node}/drain");
        site.admin(Method::POST, &path, body).await
    };
    let past = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(1);
    for (node, body, field) in [
        ("shared-1", json!({ "draining": true, "by": past }), "by"),
        ("shared-1", json!({ "draining": false, "by": by }), "by"),
        ("shared-1", json!({ "draining": false, "move_tenants": true }), "move_tenants"),
        ("own-1", json!({ "draining": true, "by": by }), "by"),
    ] {
        let (status, body) = drain(node, body).await;
        assert_eq!(
            (status, &body["error"]["field"]),
            (StatusCode::UNPROCESSABLE_ENTITY, &json!(field))
        );
    }
    let wanted = json!({ "draining": true, "by": by, "move_tenants": true });
    let (status, body) = drain("shared-1", wanted.clone()).await;
    assert_eq!((status, &body["begun"]), (StatusCode::OK, &json!(1)), "{body}");
    assert_eq!((&body["state"], &body["drain_by"]), (&json!("draining"), &json!(by)));
    assert_eq!(body["refused"], json!([]));
    // Once more changes nothing: the move is there.
    let (_, body) = drain("shared-1", wanted).await;
    assert_eq!(body["begun"], 0, "{body}");
    let (_, body) = drain("shared-1", json!({ "draining": true })).await;
    assert_eq!(body["drain_by"], json!(by), "asked again without one it keeps its time: {body}");
    let moves = site.get("/api/moves").await;
    assert_eq!(moves.as_array().map(Vec::len), Some(1));
    let plan = site.get("/api/nodes/shared-1/drain").await;
    assert_eq!((&plan["by"], &plan["tenants"][0]["move_id"]), (&json!(by), &moves[0]["id"]));
    let audited = "select count(*) from audit where action = 'node.draining'
                   and actor = 'token admin' and detail ? 'by'";
    assert_eq!(site.world.count(audited).await, 3);
    let (_, body) = drain("shared-1", json!({ "draining": false })).await;
    assert_eq!((&body["state"], &body["drain_by"]), (&json!("active"), &Value::Null), "{body}");
    let (status, _) = site.admin(Method::GET, "/api/nodes/own-1/drain", Value::Null).await;
    assert_eq!(status, StatusCode::CONFLICT);
}
