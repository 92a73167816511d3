mod drains;
mod limits;
mod looks;
mod moves;

use std::collections::BTreeMap;

use axum::body::Body;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;
use webhost_proto::ids::{CommandId, MoveId, NodeId, TenantId};
use webhost_proto::wire::{CommandReply, ListedTenant, TenantList, command_reply};

use super::*;
use crate::decide::plans::NodeKind;
use crate::link::NodeEvents;
use crate::link::authority::Leaves;
use crate::link::sealing::SealingKey;
use crate::store::api_tokens::{self, Role};
use crate::store::commands;
use crate::world::{World, catalog, large, report, small};

/// The API over a world, and a token for each role.
struct Site {
    world: World,
    app: Router,
    description: OpenApi,
    tokens: BTreeMap<Role, String>,
    state: ApiState,
}

impl Site {
    async fn new() -> Self {
        let world = World::new(catalog(7)).await;
        let key = SealingKey::from_bytes([7; 32]);
        let authority =
            Authority::load_or_create(&world.store, &key, Leaves::default()).await.expect("a CA");
        let state = ApiState {
            store: world.store.clone(),
            book: world.book.clone(),
            catalog: world.desk.slots.catalog.clone(),
            desk: world.desk.clone(),
            signals: Signals::default(),
            authority: Arc::new(authority),
            directory: Directory::new(Duration::from_secs(5)),
            rules: crate::moves::Rules::default(),
            retention: crate::config::Usage::default().retention(),
        };
        let bounds = Bounds { body_bytes: 4096, time: Duration::from_secs(60) };
        let (app, description) = router(&state, bounds);
        let mut tokens = BTreeMap::new();
        for role in Role::ALL {
            let token = auth::generate().expect("random");
            let client = world.store.client().await.expect("a client");
            let hash = auth::hash(&token);
            assert!(
                api_tokens::insert(&**client, role.as_str(), *role, &hash, None)
                    .await
                    .expect("inserts")
            );
            tokens.insert(*role, token);
        }
        Self { world, app, description, tokens, state }
    }

    async fn send(&self, request: http::Request<Body>) -> (StatusCode, Value) {
        let response = self.app.clone().oneshot(request).await.expect("answers");
        let status = response.status();
        assert!(response.headers().contains_key("x-request-id"));
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        (status, body)
    }

    async fn ask(
        &self,
        token: Option<&str>,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let mut request = http::Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        self.send(request.body(body).expect("a request")).await
    }

    async fn admin(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let body = (method != Method::GET).then_some(body);
        self.ask(Some(&self.tokens[&Role::Admin]), method, path, body).await
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.admin(Method::GET, path, Value::Null).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    /// An active tenant on a shared node.
    async fn tenant(&self) -> (NodeId, TenantId) {
        let node = self.world.node("shared-1", NodeKind::Shared).await;
        let (tenant, _) = self.world.sign_up(small("acme")).await;
        self.world.ingest.report(node, report(1, &[(tenant, 500, 3)])).await.expect("applies");
        (node, tenant)
    }

    /// Every operation: method, path, and the roles that it declares.
    fn operations(&self) -> Vec<(Method, String, Vec<String>)> {
        let json = serde_json::to_value(&self.description).expect("JSON");
        let mut all = Vec::new();
        for (path, methods) in json["paths"].as_object().expect("paths") {
            for (method, operation) in methods.as_object().expect("methods") {
                let roles =
                    operation["security"][0]["bearer"].as_array().map_or(Vec::new(), |roles| {
                        roles.iter().filter_map(|r| r.as_str()).map(str::to_owned).collect()
                    });
                let method = method.to_uppercase().parse().expect("a method");
                all.push((method, path.clone(), roles));
            }
        }
        all
    }
}

#[tokio::test]
async fn every_route_has_roles_and_lets_nobody_else_by() {
    let site = Site::new().await;
    let operations = site.operations();
    assert!(operations.len() >= 22, "{operations:?}");
    for (method, path, roles) in operations {
        assert!(!roles.is_empty(), "{method} {path} declares no role");
        let path = path
            .replace("{tenant}", "nobody")
            .replace("{node}", "nowhere")
            .replace("{id}", "none")
            .replace("{customer_id}", "nobody");
        for token in [None, Some("whf_wrong")] {
            let (status, body) = site.ask(token, method.clone(), &path, Some(json!({}))).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path}");
            assert_eq!(body["error"]["code"], "unauthorized");
        }
        for (role, token) in &site.tokens {
            let (status, body) =
                site.ask(Some(token), method.clone(), &path, Some(json!({}))).await;
            let may = roles.iter().any(|known| known == role.as_str());
            assert_eq!(status != StatusCode::FORBIDDEN, may, "{method} {path} {role}: {body}");
        }
    }
}

#[tokio::test]
async fn nothing_but_health_answers_without_a_token() {
    let site = Site::new().await;
    let (status, body) = site.ask(None, Method::GET, "/healthz", None).await;
    assert_eq!((status, &body["status"]), (StatusCode::OK, &json!("ok")));
    for path in ["/", "/api", "/api/nothing", "/metrics", "/api/openapi.json"] {
        let (status, _) = site.ask(None, Method::GET, path, None).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
    }
    let (status, body) = site.admin(Method::GET, "/api/nothing", Value::Null).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::NOT_FOUND, &json!("not_found")));
}

#[tokio::test]
async fn revoked_and_expired_tokens_work_no_longer() {
    let site = Site::new().await;
    let token = site.tokens[&Role::Viewer].clone();
    let ask = || site.ask(Some(&token), Method::GET, "/api/tenants", None);
    assert_eq!(ask().await.0, StatusCode::OK);
    site.world
        .execute("update api_tokens set expires_at = now() - interval '1 s' where name = 'viewer'")
        .await;
    assert_eq!(ask().await.0, StatusCode::UNAUTHORIZED);
    site.world.execute("update api_tokens set expires_at = null").await;
    assert_eq!(ask().await.0, StatusCode::OK);
    let client = site.world.store.client().await.expect("a client");
    assert!(api_tokens::revoke(&**client, "viewer").await.expect("revokes"));
    assert!(!api_tokens::revoke(&**client, "viewer").await.expect("once"));
    assert_eq!(ask().await.0, StatusCode::UNAUTHORIZED);
    let stored = "select count(*) from api_tokens where sha256 is not null and length(sha256) = 32";
    assert_eq!(site.world.count(stored).await, 3);
}

#[tokio::test]
async fn a_signup_is_answered_with_decision_and_place() {
    let site = Site::new().await;
    let node = site.world.node("shared-1", NodeKind::Shared).await;
    let app = site.tokens[&Role::App].clone();
    let request = |key: &str, body: &Value| {
        http::Request::post("/api/tenants")
            .header("authorization", format!("Bearer {app}"))
            .header("content-type", "application/json")
            .header("idempotency-key", key)
            .body(Body::from(body.to_string()))
            .expect("a request")
    };
    let (status, body) = site.send(request("k", &small("acme"))).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    assert_eq!(body["placement"]["node_id"], json!(node));
    assert_eq!(body["decision"]["mode"], "multi_tenant");
    let (status, again) = site.send(request("k", &small("acme"))).await;
    assert_eq!((status, &again), (StatusCode::CREATED, &body));
    let (status, other) = site.send(request("k", &small("other"))).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(other["error"]["code"], "idempotency_key_reused");
    let (status, taken) = site.send(request("k2", &small("acme"))).await;
    assert_eq!((status, &taken["error"]["field"]), (StatusCode::CONFLICT, &json!("slug")));

    let place = site.get("/api/tenants/acme/place").await;
    assert_eq!((&place["node"], &place["epoch"]), (&json!("shared-1"), &json!(1)));
    assert_eq!(place["tenant_state"], "provisioning");
    let id = body["customer_id"].as_str().expect("an id");
    assert_eq!(site.get(&format!("/api/tenants/{id}")).await["placement"]["node"], "shared-1");
    let (status, _) = site.ask(Some(&app), Method::GET, "/api/tenants/acme/place", None).await;
    assert_eq!(status, StatusCode::OK, "the application may ask");
}

#[tokio::test]
async fn bad_signups_name_the_field() {
    let site = Site::new().await;
    let mut unknown = small("a");
    unknown["colour"] = json!("red");
    let mut no_email = small("a");
    no_email.as_object_mut().expect("an object").remove("email");
    let mut bad_plan = small("a");
    bad_plan["plan"] = json!("gold");
    let mut bad_profile = small("a");
    bad_profile["profile_overrides"] = json!({ "vehicle_count": -1 });
    for (body, status, words) in [
        (small("Bad"), 422, "slug"),
        (small("admin"), 422, "slug"),
        (bad_plan, 422, "plan"),
        (bad_profile, 422, "profile_overrides.vehicle_count"),
        (unknown, 400, "colour"),
        (no_email, 400, "email"),
        (json!([]), 400, ""),
    ] {
        let (found, answer) = site.admin(Method::POST, "/api/tenants", body.clone()).await;
        assert_eq!(found.as_u16(), status, "{body}: {answer}");
        assert!(answer["error"].to_string().contains(words), "{answer}");
    }
    let huge = json!({ "name": "x".repeat(5000) });
    let (status, _) = site.admin(Method::POST, "/api/tenants", huge).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(site.world.count("select count(*) from tenants").await, 0);
}

#[tokio::test]
async fn lists_are_read_page_by_page() {
    let site = Site::new().await;
    for n in 0..5 {
        site.world.sign_up(small(&format!("t{n}"))).await;
    }
    let first = site.get("/api/tenants?limit=2").await;
    let last = first[1]["id"].as_str().expect("an id").to_owned();
    assert_eq!(first.as_array().map(Vec::len), Some(2));
    let rest = site.get(&format!("/api/tenants?after={last}&state=waiting")).await;
    assert_eq!(rest.as_array().map(Vec::len), Some(3));
    assert_eq!(site.get("/api/tenants?state=active").await, json!([]));
    for path in [
        "/api/tenants?limit=0",
        "/api/tenants?limit=1001",
        "/api/tenants?after=x",
        "/api/tenants?state=lost",
    ] {
        let (status, body) = site.admin(Method::GET, path, Value::Null).await;
        assert!(status.is_client_error(), "{path}: {body}");
    }
}

#[tokio::test]
async fn usage_and_records_of_an_active_tenant() {
    let site = Site::new().await;
    let (node, tenant) = site.tenant().await;
    let usage = site.get("/api/tenants/acme/usage").await;
    let metrics = &usage["usage_metrics"];
    assert_eq!(metrics["gps_points_today"], 500);
    assert_eq!(metrics["vehicle_count"], 3);
    assert_eq!(metrics["basis"]["vehicle_count"], "measured");
    assert_eq!(metrics["average_response_time_ms"], Value::Null);
    assert_eq!(metrics["resource_utilization"]["node_cpu_utilization"], 0.5);
    for name in [
        "vehicle_count",
        "gps_points_today",
        "api_calls_today",
        "storage_used_mb",
        "peak_concurrent_users",
        "average_response_time_ms",
        "error_rate",
        "geographic_distribution",
        "growth_rate",
        "resource_utilization",
        "patterns",
    ] {
        assert!(metrics.get(name).is_some(), "{name}");
    }
    let nodes = site.get("/api/nodes").await;
    assert_eq!((&nodes[0]["name"], &nodes[0]["tenants"]), (&json!("shared-1"), &json!(1)));
    assert_eq!(nodes[0]["connected"], true);
    let one = site.get(&format!("/api/nodes/{node}")).await;
    assert_eq!(one["usage"]["reports"], 1);
    assert_eq!(site.get("/api/placements?node=shared-1").await[0]["state"], "active");
    assert_eq!(site.get("/api/tenants/acme/placements").await[0]["node_id"], json!(node));
    let decisions = site.get("/api/decisions?tenant=acme").await;
    assert_eq!(decisions[0]["outcome"], "placed");
    assert!(decisions[0]["inputs"]["profile"]["vehicle_count"].is_number());
    let audit = site.get(&format!("/api/audit?subject=tenant&subject_id={tenant}")).await;
    let actions: Vec<_> =
        audit.as_array().expect("rows").iter().map(|row| row["action"].clone()).collect();
    assert_eq!(actions, ["tenant.active", "slot.reserved", "tenant.signed_up"]);
    assert_eq!(site.get("/api/moves").await, json!([]));
    assert!(site.get("/api/openapi.json").await["paths"]["/api/tenants"]["post"].is_object());
}

#[tokio::test]
async fn a_tenant_is_changed_suspended_and_taken_up_again() {
    let site = Site::new().await;
    site.tenant().await;
    let patch = |body: Value| site.admin(Method::PATCH, "/api/tenants/acme", body);
    let (status, body) = patch(json!({ "plan": "starter" })).await;
    assert_eq!((status, &body["plan"]), (StatusCode::OK, &json!("starter")));
    let (_, body) = patch(json!({ "profile_overrides": { "vehicle_count": 12 } })).await;
    assert_eq!(body["profile"]["vehicle_count"], 12);
    let (_, body) = patch(json!({ "suspended": true })).await;
    assert_eq!(body["state"], "suspended");
    let (_, body) = patch(json!({ "suspended": false })).await;
    assert_eq!(body["state"], "active");
    for (body, status) in [
        (json!({ "plan": "gold" }), 422),
        (json!({ "profile_overrides": { "budget": "x" } }), 422),
        (json!({ "slug": "other" }), 400),
    ] {
        assert_eq!(patch(body.clone()).await.0.as_u16(), status, "{body}");
    }
    let audited = "select count(*) from audit where action = 'tenant.changed'
                   and actor = 'token admin'";
    assert_eq!(site.world.count(audited).await, 4);
}

#[tokio::test]
async fn a_draining_node_gets_no_tenants() {
    let site = Site::new().await;
    let node = site.world.node("shared-1", NodeKind::Shared).await;
    let drain =
        |on: bool| site.admin(Method::POST, "/api/nodes/shared-1/drain", json!({ "draining": on }));
    assert_eq!(drain(true).await.1["state"], "draining");
    assert_eq!(site.world.sign_up(small("acme")).await.1["state"], "waiting");
    assert_eq!(drain(false).await.1["state"], "active");
    site.world.execute(&format!("update nodes set state = 'revoked' where id = '{node}'")).await;
    assert_eq!(drain(true).await.0, StatusCode::CONFLICT);
}

#[tokio::test]
async fn machines_are_invited_by_what_the_catalogue_knows() {
    let site = Site::new().await;
    let invite = |shape: &str, kind: &str, region: &str| {
        site.admin(
            Method::POST,
            "/api/node-tokens",
            json!({ "name": "n1", "kind": kind, "shape": shape, "region": region }),
        )
    };
    let (status, body) = invite("ax52", "shared", "EU").await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    assert!(body["token"].as_str().expect("a token").starts_with("whf1."));
    for (shape, kind, region, field) in [
        ("ax99", "shared", "EU", "shape"),
        ("ax52", "dedicated", "EU", "kind"),
        ("ax52", "shared", "moon", "region"),
    ] {
        let (status, body) = invite(shape, kind, region).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(body["error"]["field"], field, "{body}");
    }
}

#[tokio::test]
async fn the_seeds_admin_endpoints() {
    let site = Site::new().await;
    let (_, tenant) = site.tenant().await;
    let path = "/api/admin/deployment/evaluate";
    let (status, body) = site
        .admin(
            Method::POST,
            path,
            json!({ "customer_id": tenant, "vehicle_count": 40, "budget": 200 }),
        )
        .await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(body["customer_id"], json!(tenant));
    assert_eq!(body["current_deployment"]["mode"], "multi_tenant");
    assert_eq!(body["current_deployment"]["status"], "active");
    assert_eq!(body["current_deployment"]["days_on_current_mode"], 0);
    assert_eq!(body["recommended"]["mode"], "single_tenant");
    assert_eq!(body["recommended"]["infrastructure"], "flyio");
    assert_eq!(body["usage_metrics"]["vehicle_count"], 3);
    let (status, body) =
        site.admin(Method::POST, path, json!({ "customer_id": tenant, "budget": -1 })).await;
    assert_eq!((status.as_u16(), &body["error"]["field"]), (422, &json!("budget")));
    // Another mode at a confidence of 0.70 is no reason to migrate, and the
    // record says so.
    let weak = json!({ "customer_id": tenant, "budget": 150, "compliance_requirements": ["gdpr"] });
    let (_, body) = site.admin(Method::POST, path, weak).await;
    let recommended = &body["recommended"];
    assert_eq!(
        (&recommended["mode"], &recommended["confidence"]),
        (&json!("single_tenant"), &json!(0.7))
    );
    let decisions = site.get(&format!("/api/decisions?tenant={tenant}")).await;
    assert_eq!(decisions[0]["outcome"], "stay", "{decisions}");
    assert_eq!(decisions[1]["outcome"], "migrate", "{decisions}");
    let nobody = TenantId::generate();
    let (status, _) = site.admin(Method::POST, path, json!({ "customer_id": nobody })).await;
    assert_eq!(status, StatusCode::NOT_FOUND);

    let status_path = format!("/api/admin/deployment/status/{tenant}");
    assert_eq!(site.get(&status_path).await["migration_status"], "none");
    let migrate = |mode: &str| {
        site.admin(
            Method::POST,
            "/api/admin/deployment/migrate",
            json!({ "customer_id": tenant, "target_mode": mode }),
        )
    };
    assert_eq!(migrate("both").await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let (status, body) = migrate("single_tenant").await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    assert_eq!(
        (&body["status"], &body["message"]),
        (&json!("success"), &json!("Migration queued"))
    );
    assert_eq!(body["decision"]["forced"], true);
    assert_eq!(migrate("single_tenant").await.0, StatusCode::CONFLICT, "one open move a tenant");
    let status = site.get(&status_path).await;
    assert_eq!(status["migration_status"], "waiting_for_node");

    let id = body["move_id"].as_str().expect("an id");
    let shown = site.get(&format!("/api/moves/{id}")).await;
    assert_eq!(shown["approved_by"], "token admin");
    assert_eq!(site.get("/api/moves?tenant=acme&open=true").await[0]["id"], json!(id));
    let (status, _) =
        site.admin(Method::POST, &format!("/api/moves/{id}/approve"), json!({})).await;
    assert_eq!(status, StatusCode::CONFLICT, "it is approved already");
    let (status, body) =
        site.admin(Method::POST, &format!("/api/moves/{id}/cancel"), json!({})).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let path = format!("/api/moves/{}/refuse", MoveId::generate());
    let (status, _) = site.admin(Method::POST, &path, json!({ "reason": "no" })).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn not_even_an_admin_forces_against_compliance() {
    let site = Site::new().await;
    site.world.node("own-1", NodeKind::Dedicated).await;
    let (tenant, _) = site.world.sign_up(large("acme")).await;
    let (status, body) = site
        .admin(
            Method::POST,
            "/api/admin/deployment/migrate",
            json!({ "customer_id": tenant, "target_mode": "multi_tenant" }),
        )
        .await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
}

#[tokio::test]
async fn tenants_of_a_node_are_adopted_after_a_dry_run() {
    let site = Site::new().await;
    let node = site.world.node("shared-1", NodeKind::Shared).await;
    let listed = |slug: &str, plan: &str| ListedTenant {
        tenant_id: TenantId::generate().to_wire(),
        slug: slug.into(),
        name: slug.into(),
        email: "a@example.com".into(),
        plan: plan.into(),
        vehicles: 2,
        storage_bytes: 1000,
    };
    let tenants = vec![
        listed("one", "hobby"),
        listed("two", ""),
        listed("Bad Slug", "hobby"),
        listed("one", "hobby"),
        listed("gold", "gold"),
        ListedTenant { tenant_id: vec![1], ..listed("short", "hobby") },
    ];
    let state = site.state.clone();
    let agent = async move {
        let mut sent = state.signals.commands.listen();
        loop {
            sent.heard().await;
            let client = state.store.client().await.expect("a client");
            let now = jiff::Timestamp::now();
            for command in commands::open_for(&**client, node, now).await.expect("reads") {
                let id = CommandId::from_wire(&command.id).expect("an id");
                let reply = CommandReply {
                    command_id: command.id,
                    outcome: Some(command_reply::Outcome::TenantList(TenantList {
                        tenants: tenants.clone(),
                    })),
                };
                commands::answer(&**client, id, node, &reply).await.expect("answers");
            }
            state.signals.replies.notify();
        }
    };
    let operator = async {
        let import = |apply: bool| {
            site.admin(
                Method::POST,
                "/api/nodes/shared-1/import",
                json!({ "apply": apply, "default_plan": "hobby" }),
            )
        };
        let (status, dry) = import(false).await;
        assert_eq!(status, StatusCode::OK, "{dry}");
        assert_eq!(dry["counts"], json!({ "adopt": 2, "refuse": 4 }));
        assert_eq!(site.world.count("select count(*) from tenants").await, 0);
        let (_, applied) = import(true).await;
        assert_eq!((&applied["counts"], &applied["applied"]), (&dry["counts"], &json!(true)));
        let active = "select count(*) from placements where state = 'active'";
        assert_eq!(site.world.count(active).await, 2);
        let (_, again) = import(true).await;
        assert_eq!(again["counts"], json!({ "known": 2, "refuse": 4 }));
    };
    tokio::select! {
        () = agent => {}
        () = operator => {}
    }
}
