//! Moving, approving, advising, forcing and costing, by tables.

use serde_json::json;

use super::amount::{BasisPoints, Cents, Hundredths};
use super::migrate::{ApprovalRule, performance_issues};
use super::*;

fn catalog() -> Catalog {
    Catalog::default()
}

fn profile(plan: &str, stated: serde_json::Value) -> Profile {
    let stated = ProfileOverrides::from_json(&stated).unwrap();
    Profile::build(plan, &stated, &Usage::default(), &catalog()).unwrap()
}

fn lives(mode: Mode, plan: &str, days_in_mode: u32) -> Residence {
    Residence { mode, plan: plan.into(), days_in_mode }
}

/// A decision with that confidence, otherwise one that asks nobody.
fn confident(confidence: i64) -> Decision {
    let profile = profile("hobby", json!({"vehicle_count": 6}));
    let mut decision = recommend(&profile, &catalog());
    decision.confidence = Hundredths(confidence);
    decision
}

#[test]
fn a_move_needs_another_mode_and_more_than_070() {
    for (confidence, moves) in [(70, false), (71, true), (100, true)] {
        let decision = confident(confidence);
        let from = |mode| evaluate_migration(mode, &decision, &catalog());
        let verdict = from(Mode::MultiTenant);
        assert_eq!(matches!(verdict, Migration::Migrate { .. }), moves, "{confidence}");
        assert!(matches!(from(Mode::SingleTenant), Migration::Stay { .. }), "same mode");
    }
    let verdict = evaluate_migration(Mode::MultiTenant, &confident(100), &catalog());
    let Migration::Migrate { compliance_issue, fit_issue, .. } = verdict else { panic!() };
    assert_eq!((compliance_issue, fit_issue), (false, true));
}

#[test]
fn approval_at_every_boundary() {
    use ApprovalRule::{ConfidentAndSettled as Settled, ConfidentWithIssue as Issue};
    // confidence, response ms, errors in basis points, days, rule
    let cases = [
        (100, 201, 0, 0, Some(Issue)),
        (100, 200, 0, 0, None),
        (91, 201, 0, 0, Some(Issue)),
        (90, 201, 0, 0, None),
        (100, 0, 501, 0, Some(Issue)),
        (100, 0, 500, 0, None),
        (96, 0, 0, 31, Some(Settled)),
        (96, 0, 0, 30, None),
        (95, 0, 0, 31, None),
        (95, 201, 0, 31, Some(Issue)),
    ];
    for (confidence, milliseconds, errors, days, rule) in cases {
        let usage = Usage {
            average_response_time_ms: Some(milliseconds),
            error_rate: Some(BasisPoints(errors)),
            ..Default::default()
        };
        let residence = lives(Mode::MultiTenant, "hobby", days);
        let approval = auto_approve(&confident(confidence), &residence, &usage, &catalog());
        let case = format!("{confidence} {milliseconds} ms {errors} bp {days} d: {approval:?}");
        match approval {
            Approval::Auto { rule: by, .. } => assert_eq!(Some(by), rule, "{case}"),
            Approval::Admin { why } => {
                assert!(rule.is_none() && !why.is_empty(), "{case}");
            }
        }
    }
}

#[test]
fn a_busy_machine_counts_against_those_who_cause_it() {
    // machine, own share, tenants, counts
    let cases = [
        (8001, Some(4001), Some(2), true),
        (8000, Some(8000), Some(2), false),
        (9000, Some(4500), Some(2), true),
        (9000, Some(4499), Some(2), false),
        (9000, Some(0), Some(1), true),
        (9000, None, Some(2), false),
        (9000, Some(9000), None, false),
    ];
    for (node, own, tenants, counts) in cases {
        let usage = Usage {
            node_cpu: Some(BasisPoints(node)),
            cpu_of_node: own.map(BasisPoints),
            tenants_on_node: tenants,
            ..Default::default()
        };
        let issues = performance_issues(&usage, &catalog().thresholds);
        assert_eq!(!issues.is_empty(), counts, "{node} {own:?} {tenants:?}");
    }
    assert!(performance_issues(&Usage::default(), &catalog().thresholds).is_empty());
}

#[test]
fn a_compliance_issue_is_approved_at_once_and_only_on_a_shared_server() {
    let soc2 = profile("hobby", json!({"compliance_requirements": ["soc2"]}));
    let decision = recommend(&soc2, &catalog());
    let shared = lives(Mode::MultiTenant, "hobby", 0);
    let approval = auto_approve(&decision, &shared, &Usage::default(), &catalog());
    assert!(matches!(approval, Approval::Auto { .. }), "{approval:?}");
    let own = lives(Mode::SingleTenant, "starter", 0);
    let approval = auto_approve(&decision, &own, &Usage::default(), &catalog());
    assert!(matches!(approval, Approval::Admin { .. }), "{approval:?}");
}

#[test]
fn less_than_bought_or_a_shorter_retention_always_asks_an_administrator() {
    let slow = Usage { average_response_time_ms: Some(900), ..Default::default() };
    // It bought starter, or bought hobby and is served as starter.
    for bought in ["starter", "hobby"] {
        let decision = recommend(&profile(bought, json!({"budget": 20})), &catalog());
        assert_eq!((decision.mode, decision.confidence), (Mode::MultiTenant, Hundredths::ONE));
        let residence = lives(Mode::SingleTenant, "starter", 400);
        let Approval::Admin { why } = auto_approve(&decision, &residence, &slow, &catalog()) else {
            panic!("{bought}: approved without an administrator")
        };
        assert!(why.iter().any(|w| w.contains("retention_days")), "{why:?}");
    }
    let unmet = recommend(&profile("hobby", json!({"vehicle_count": 501})), &catalog());
    let residence = lives(Mode::MultiTenant, "hobby", 400);
    let approval = auto_approve(&unmet, &residence, &slow, &catalog());
    assert!(matches!(approval, Approval::Admin { .. }), "{approval:?}");
}

#[test]
fn advice_follows_the_week() {
    use Mode::{MultiTenant as M, SingleTenant as S};
    use advise::AdviceKind::{DowngradeMode, DowngradePlan, UpgradeMode, UpgradePlan};
    // mode, plan, vehicles, points a day, storage MB, users, advice
    let cases = [
        (M, "hobby", 4, 40_000, 4800, 40, None),
        (M, "hobby", 5, 0, 0, 0, Some((UpgradeMode, "starter"))),
        (M, "hobby", 1, 40_001, 0, 0, Some((UpgradeMode, "starter"))),
        (M, "hobby", 1, 0, 4801, 0, Some((UpgradeMode, "starter"))),
        (M, "hobby", 1, 0, 0, 41, Some((UpgradeMode, "starter"))),
        (S, "starter", 20, 0, 0, 0, None),
        (S, "starter", 21, 0, 0, 0, Some((UpgradePlan, "professional"))),
        (S, "starter", 4, 99_999, 1999, 19, Some((DowngradeMode, "hobby"))),
        (S, "starter", 5, 0, 0, 0, None),
        (S, "starter", 4, 100_000, 0, 0, None),
        (S, "professional", 5, 0, 0, 0, Some((DowngradeMode, "hobby"))),
        (S, "business", 19, 399_999, 0, 0, Some((DowngradePlan, "professional"))),
        (S, "business", 20, 0, 0, 0, None),
        (S, "business", 500, 0, 0, 0, None),
    ];
    for (mode, plan, vehicles, points, storage, users, want) in cases {
        let week = WeekPeaks {
            vehicles: Some(vehicles),
            gps_points_per_day: Some(points),
            storage_mb: Some(storage),
            users: Some(users),
        };
        let profile = profile(plan, json!({}));
        let advice = recommend_plan(&profile, &lives(mode, plan, 10), &week, &catalog());
        let got = advice.first().map(|a| (a.kind, a.to.as_str()));
        assert_eq!(got, want, "{plan} {vehicles} {points} {storage} {users}");
    }
    let nothing = recommend_plan(
        &profile("starter", json!({})),
        &lives(S, "starter", 10),
        &WeekPeaks::default(),
        &catalog(),
    );
    assert!(nothing.is_empty());
    let few = WeekPeaks { vehicles: Some(1), ..Default::default() };
    let soc2 = profile("starter", json!({"compliance_requirements": ["soc2"]}));
    let advice = recommend_plan(&soc2, &lives(S, "starter", 10), &few, &catalog());
    assert!(advice.is_empty(), "a rule forbids shared: {advice:?}");
}

#[test]
fn a_forced_move_overrides_scores_but_never_compliance() {
    let many = profile("starter", json!({"vehicle_count": 8, "budget": 60}));
    let decision = forced(Mode::MultiTenant, &many, &catalog()).unwrap();
    assert_eq!((decision.mode, decision.plan.as_str()), (Mode::MultiTenant, "hobby"));
    assert!(decision.forced && decision.granted.is_none());
    assert!(decision.notes.iter().any(|n| n.contains("vehicles 8 needed")), "{:?}", decision.notes);
    assert!(decision.notes.iter().any(|n| n.contains("less than the bought plan")));
    assert_eq!(decision.unmet_needs.len(), 1);

    for regime in ["soc2", "hipaa"] {
        let strict = profile("starter", json!({"compliance_requirements": [regime]}));
        let refused = forced(Mode::MultiTenant, &strict, &catalog()).unwrap_err();
        assert!(refused.to_string().contains(regime), "{refused}");
        assert!(forced(Mode::SingleTenant, &strict, &catalog()).is_ok());
    }
    // The other regimes weigh, but don't forbid.
    let gdpr = profile("hobby", json!({"compliance_requirements": ["gdpr"]}));
    assert!(forced(Mode::MultiTenant, &gdpr, &catalog()).is_ok());
}

#[test]
fn alternatives_carry_computed_costs() {
    let gdpr =
        recommend(&profile("hobby", json!({"compliance_requirements": ["gdpr"]})), &catalog());
    assert_eq!(gdpr.mode, Mode::MultiTenant);
    let [up] = gdpr.alternatives.as_slice() else { panic!("{:?}", gdpr.alternatives) };
    assert_eq!((up.mode, up.plan.as_str()), (Mode::SingleTenant, "starter"));
    // 8.00 - 0.59 to us, 49 - 15 to the customer.
    assert_eq!(up.estimated_cost_increase, Some(Cents(7_41)));
    assert_eq!((up.estimated_cost_savings, up.price_change), (None, Cents::dollars(34)));

    let forced = forced(Mode::SingleTenant, &profile("hobby", json!({})), &catalog()).unwrap();
    let [down] = forced.alternatives.as_slice() else { panic!("{:?}", forced.alternatives) };
    assert_eq!((down.mode, down.plan.as_str()), (Mode::MultiTenant, "hobby"));
    assert_eq!(down.estimated_cost_savings, Some(Cents(7_41)));
    assert!(down.estimated_cost_increase.is_none());

    for stated in [json!({"vehicle_count": 9}), json!({"latency_requirement": 45})] {
        let decision = recommend(&profile("hobby", stated.clone()), &catalog());
        assert!(decision.alternatives.is_empty(), "no rule-breaking alternative: {stated}");
    }
}

#[test]
fn contradiction_3_costs_are_sums() {
    let catalog = catalog();
    // 65 + 3.81 + 10 + 5 = 83.81 euros, at 1.0620.
    assert_eq!(catalog.costs.shared_server_month(), Cents(89_01));
    assert_eq!(cost::shared(&catalog.costs, 150), Cents(59));
    assert_eq!(cost::shared(&catalog.costs, 112), Cents(79));
    assert_eq!(cost::shared(&catalog.costs, 0), Cents(89_01));
    let rows: Vec<(String, i64, i64)> = cost::table(&catalog, None)
        .into_iter()
        .map(|row| (row.plan.0, row.cost.0, row.margin_share.0))
        .collect();
    let want = [
        ("hobby", 59, 9607),
        ("starter", 800, 8367),
        ("professional", 800, 9463),
        ("business", 6000, 8496),
    ];
    let want: Vec<_> = want.iter().map(|(plan, cost, m)| ((*plan).to_owned(), *cost, *m)).collect();
    assert_eq!(rows, want);
    // At the seeds' own dollar amounts (90.15) it would be 60 cents.
    let mut dearer = catalog.costs;
    dearer.dollars_per_euro = BasisPoints(10_757);
    assert_eq!(cost::shared(&dearer, 150), Cents(60));
}

#[test]
fn the_catalogue_is_checked() {
    catalog().validate().unwrap();
    type Spoil = fn(&mut Catalog);
    let cases: [(&str, Spoil); 14] = [
        ("plans.starter.name", |c| c.plans.insert(1, c.plans[1].clone())),
        ("plans.starter.vehicles", |c| c.plans[1].vehicles = 4),
        ("plans.starter.price", |c| c.plans[1].price = Cents::dollars(15)),
        ("plans.business.p95_ms", |c| c.plans[3].p95_ms = 61),
        ("plans.hobby.users", |c| c.plans[0].users = 0),
        ("plans.hobby.regions", |c| c.plans[0].regions = vec!["mars".into()]),
        ("plans.hobby.shape", |c| c.plans[0].shape = "shared-cpu-512".to_owned()),
        ("plans.hobby.cost", |c| c.plans[0].cost = Some(Cents(1))),
        ("plans.starter.cost", |c| c.plans[1].cost = None),
        ("plans", |c| c.plans.truncate(1)),
        ("shapes.ax52.memory_mb", |c| c.shapes[0].memory_mb = 0),
        ("regions.EU", |c| {
            c.regions.insert("EU".to_owned(), "mars".into());
        }),
        ("thresholds.place_limit", |c| c.thresholds.place_limit = Hundredths(80)),
        ("costs.dollars_per_euro", |c| c.costs.dollars_per_euro = BasisPoints(0)),
    ];
    for (key, spoil) in cases {
        let mut catalog = catalog();
        spoil(&mut catalog);
        let error = catalog.validate().unwrap_err();
        assert_eq!(error.key, key, "{error}");
    }
}

#[test]
fn contradiction_8_professional_has_a_size_that_is_sold() {
    let catalog = catalog();
    let plan = catalog.plan("professional").unwrap();
    let shape = catalog.shape(&plan.shape).unwrap();
    assert_eq!((shape.cpu_millicores, shape.memory_mb), (1000, 2048));
}

#[test]
fn the_catalogue_is_read_from_toml() {
    let text = toml::to_string(&catalog()).unwrap();
    assert_eq!(toml::from_str::<Catalog>(&text).unwrap(), catalog());
    let one: Catalog = toml::from_str("[thresholds]\nplace_limit = 0.7").unwrap();
    assert_eq!(one.thresholds.place_limit, Hundredths(70));
    assert_eq!(one.plans, catalog().plans);
    for text in ["colour = 1", "[thresholds]\ncolour = 1", "[thresholds]\nplace_limit = nan"] {
        assert!(toml::from_str::<Catalog>(text).is_err(), "{text}");
    }
}
