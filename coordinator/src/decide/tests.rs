//! The decision table of the engine, boundary by boundary, and what the seeds
//! show and contradict.

use serde_json::json;

use super::amount::{Cents, Hundredths};
use super::needs::{HardRule, Need};
use super::scores::{Factor, points, totals};
use super::*;

fn catalog() -> Catalog {
    Catalog::default()
}

/// A profile from a signup's JSON, with nothing measured.
fn profile(plan: &str, stated: serde_json::Value) -> Profile {
    let stated = ProfileOverrides::from_json(&stated).unwrap();
    Profile::build(plan, &stated, &Usage::default(), &catalog()).unwrap()
}

fn decide(plan: &str, stated: serde_json::Value) -> Decision {
    recommend(&profile(plan, stated), &catalog())
}

/// What one factor adds, (multi, single), over a table of values.
fn check_factor(factor: Factor, field: &str, cases: &[(serde_json::Value, i16, i16)]) {
    let index = Factor::ALL.iter().position(|f| *f == factor).unwrap();
    for (value, multi, single) in cases {
        let points = points(&profile("hobby", json!({ field: value })))[index];
        assert_eq!((points.multi, points.single), (*multi, *single), "{field} = {value}");
    }
}

#[test]
fn budget_scores_at_every_boundary() {
    let cases = [
        (json!(0), 30, -20),
        (json!(49.99), 30, -20),
        (json!(50), 10, -20),
        (json!(50.01), 10, 10),
        (json!(99.99), 10, 10),
        (json!(100), -20, 10),
        (json!(100.01), -20, 30),
    ];
    check_factor(Factor::Budget, "budget", &cases);
}

#[test]
fn vehicles_score_at_every_boundary() {
    let cases = [
        (json!(0), 20, -10),
        (json!(5), 20, -10),
        (json!(6), 0, 10),
        (json!(10), 0, 10),
        (json!(11), -30, 30),
        (json!(4_000_000_000_u32), -30, 30),
    ];
    check_factor(Factor::VehicleCount, "vehicle_count", &cases);
}

#[test]
fn compliance_scores_by_regime() {
    let cases = [
        (json!([]), 10, 0),
        (json!(["gdpr"]), -40, 0),
        (json!(["iso27001", "pci"]), -40, 0),
        (json!(["soc2"]), -40, 40),
        (json!(["hipaa"]), -40, 50),
        // SOC 2 is asked first, and only once.
        (json!(["hipaa", "soc2", "soc2"]), -40, 40),
    ];
    check_factor(Factor::Compliance, "compliance_requirements", &cases);
}

#[test]
fn latency_scores_at_every_boundary() {
    let cases = [
        (json!(0), -30, 30),
        (json!(49), -30, 30),
        (json!(50), 0, 10),
        (json!(99), 0, 10),
        (json!(100), 0, 0),
        (json!(101), 10, 0),
    ];
    check_factor(Factor::Latency, "latency_requirement", &cases);
}

#[test]
fn regions_score_by_places_not_by_words() {
    let cases = [
        (json!(["US"]), 10, 0),
        (json!(["US", "iad", "us"]), 10, 0),
        (json!(["US", "EU"]), -20, 30),
    ];
    check_factor(Factor::Regions, "geographic_distribution", &cases);
}

#[test]
fn users_score_at_every_boundary_and_unknown_scores_nothing() {
    let cases = [
        (json!(null), 0, 0),
        (json!(0), 10, 0),
        (json!(19), 10, 0),
        (json!(20), 0, 0),
        (json!(100), 0, 0),
        (json!(101), -30, 0),
    ];
    check_factor(Factor::PeakConcurrentUsers, "peak_concurrent_users", &cases);
}

#[test]
fn contributions_add_up_to_the_scores_before_clamping() {
    let decision = decide("hobby", json!({"budget": 200, "vehicle_count": 15}));
    let scores = decision.scores;
    let multi: i64 = scores.contributions.iter().map(|c| c.multi_tenant.0).sum();
    let single: i64 = scores.contributions.iter().map(|c| c.single_tenant.0).sum();
    // 50 - 20 - 30 + 10 + 0 + 10 = 20 and 50 + 30 + 30 = 110, clamped.
    assert_eq!((50 + multi, scores.multi_tenant.0), (20, 20));
    assert_eq!((50 + single, scores.single_tenant.0), (110, 100));
    assert_eq!(scores.contributions[0].value, "200.00");
}

#[test]
fn the_choice_follows_the_order_of_the_seeds() {
    use Mode::{MultiTenant as M, SingleTenant as S};
    let cases = [
        (81, 100, M, 81),
        (80, 100, S, 100),
        (80, 81, S, 81),
        (80, 80, S, 80),
        (80, 79, M, 80),
        (70, 70, S, 70),
        (0, 0, S, 0),
    ];
    for (multi, single, mode, confidence) in cases {
        let totals =
            scores::Totals { multi_tenant: Hundredths(multi), single_tenant: Hundredths(single) };
        let want = (mode, Hundredths(confidence));
        assert_eq!(totals.choose(Hundredths(80)), want, "{multi} against {single}");
    }
}

#[test]
fn a_tie_at_070_is_a_tie() {
    // 50 - 20 + 20 + 10 + 0 + 10 against 50 + 30 - 10: in floating point the
    // first is 0.7000000000000001.
    let profile = profile("hobby", json!({"budget": 200, "vehicle_count": 5}));
    let totals = totals(&profile);
    assert_eq!((totals.multi_tenant, totals.single_tenant), (Hundredths(70), Hundredths(70)));
    let decision = recommend(&profile, &catalog());
    assert_eq!((decision.mode, decision.confidence), (Mode::SingleTenant, Hundredths(70)));
    assert_eq!(decision.reason, "Recommended single-tenant deployment (confidence: 0.70)");
    let verdict = evaluate_migration(Mode::MultiTenant, &decision, &catalog());
    assert!(matches!(verdict, Migration::Stay { .. }), "0.70 is not above 0.70: {verdict:?}");
}

#[test]
fn the_seeds_first_example_is_shared() {
    let decision = decide(
        "hobby",
        json!({
            "budget": 30, "vehicle_count": 3, "compliance_requirements": [],
            "performance_needs": {"latency_requirement": 150},
            "geographic_distribution": ["US"],
            "usage_patterns": {"peak_concurrent_users": 5}
        }),
    );
    assert_eq!(decision.mode, Mode::MultiTenant);
    assert_eq!(decision.infrastructure, Infrastructure::Hetzner);
    assert_eq!(decision.plan.as_str(), "hobby");
    assert!(decision.confidence > Hundredths(80));
    assert_eq!(
        decision.reason,
        "Recommended multi-tenant deployment: No special compliance needs, Small fleet size, \
         Budget-conscious customer (confidence: 1.00)"
    );
    assert!(decision.alternatives.is_empty() && decision.hard_rules.is_empty());
}

#[test]
fn the_seeds_second_example_is_dedicated() {
    let decision = decide(
        "starter",
        json!({
            "budget": 200, "vehicle_count": 15, "compliance_requirements": ["soc2"],
            "performance_needs": {"latency_requirement": 50},
            "geographic_distribution": ["US", "EU"],
            "usage_patterns": {"peak_concurrent_users": 50}
        }),
    );
    assert_eq!(decision.mode, Mode::SingleTenant);
    assert_eq!(decision.infrastructure, Infrastructure::Flyio);
    // The smallest plan whose p95 is 50 ms or less.
    assert_eq!(decision.plan.as_str(), "business");
    assert!(decision.confidence > Hundredths(80));
    let reason = &decision.reason;
    let fragments = "SOC 2 compliance required, Large fleet requires dedicated resources";
    assert!(reason.contains(fragments), "{reason}");
    assert!(reason.contains("hard rule: soc2 forbids a shared server"), "{reason}");
}

#[test]
fn contradiction_1_a_small_cheap_soc2_customer_is_never_shared() {
    for regime in ["soc2", "hipaa"] {
        let decision = decide("hobby", json!({"compliance_requirements": [regime]}));
        assert_eq!(decision.mode, Mode::SingleTenant);
        assert_eq!(decision.confidence, Hundredths::ONE);
        // The scores stand beside it and would have said otherwise.
        assert!(decision.scores.multi_tenant >= Hundredths(60));
        assert!(decision.compliance_issue.is_some() && decision.fit_issue.is_none());
        let granted = decision.granted.unwrap();
        assert_eq!((granted.mode, granted.plan.as_str()), (Mode::SingleTenant, "starter"));
    }
}

#[test]
fn each_need_beyond_hobby_is_a_hard_rule() {
    let cases = [
        (json!({"vehicle_count": 6}), Need::Vehicles),
        (json!({"geographic_distribution": ["EU", "APAC"]}), Need::Regions),
        (json!({"latency_requirement": 49}), Need::LatencyMs),
        (json!({"gps_points_per_day": 50_001}), Need::GpsPointsPerDay),
        (json!({"gps_points_per_second": 501}), Need::GpsPointsPerSecond),
        (json!({"peak_concurrent_users": 51}), Need::Users),
        (json!({"retention_days": 31}), Need::RetentionDays),
        (json!({"storage_mb": 6001}), Need::StorageMb),
    ];
    for (stated, need) in cases {
        let decision = decide("hobby", stated.clone());
        assert_eq!(decision.mode, Mode::SingleTenant, "{stated}");
        assert_eq!(decision.confidence, Hundredths::ONE, "{stated}");
        let [HardRule::Fit { unmet }] = decision.hard_rules.as_slice() else {
            panic!("{stated}: {:?}", decision.hard_rules)
        };
        assert_eq!(unmet.need, need, "{stated}");
        assert!(decision.compliance_issue.is_none() && decision.fit_issue.is_some());
        assert!(decision.reason.contains(need.as_str()), "{}", decision.reason);
    }
    let at_the_limit = json!({
        "vehicle_count": 5, "geographic_distribution": ["EU"], "latency_requirement": 50,
        "gps_points_per_day": 50_000, "gps_points_per_second": 500,
        "peak_concurrent_users": 50, "retention_days": 30, "storage_mb": 6000
    });
    assert!(decide("hobby", at_the_limit).hard_rules.is_empty());
}

#[test]
fn contradictions_2_and_4_the_smallest_satisfying_plan_holds() {
    let cases = [
        (json!({"vehicle_count": 15}), "starter"),
        (json!({"vehicle_count": 25}), "starter"),
        (json!({"vehicle_count": 26}), "professional"),
        (json!({"vehicle_count": 100}), "professional"),
        (json!({"vehicle_count": 101}), "business"),
        (json!({"vehicle_count": 500}), "business"),
        (json!({"geographic_distribution": ["US", "EU"]}), "professional"),
        (json!({"geographic_distribution": ["US", "EU", "APAC"]}), "business"),
        (json!({"vehicle_count": 6, "latency_requirement": 80}), "starter"),
        (json!({"vehicle_count": 6, "latency_requirement": 79}), "professional"),
        (json!({"vehicle_count": 6, "latency_requirement": 60}), "professional"),
        (json!({"vehicle_count": 6, "latency_requirement": 59}), "business"),
        (json!({"vehicle_count": 6, "latency_requirement": 40}), "business"),
        (json!({"retention_days": 91}), "professional"),
        (json!({"gps_points_per_day": 2_000_001}), "business"),
    ];
    for (stated, plan) in cases {
        let decision = decide("hobby", stated.clone());
        assert_eq!(decision.plan.as_str(), plan, "{stated}");
        assert!(decision.unmet_needs.is_empty(), "{stated}");
        assert_eq!(decision.granted.map(|target| target.plan), Some(decision.plan), "{stated}");
    }
}

#[test]
fn needs_that_no_plan_satisfies_go_to_an_administrator() {
    let cases = [
        (json!({"latency_requirement": 39}), Need::LatencyMs),
        (json!({"vehicle_count": 501}), Need::Vehicles),
        (json!({"geographic_distribution": ["iad", "fra", "sin", "syd"]}), Need::Regions),
    ];
    for (stated, need) in cases {
        let decision = decide("business", stated.clone());
        assert_eq!(decision.plan.as_str(), "business", "{stated}");
        assert_eq!(decision.unmet_needs.iter().map(|u| u.need).collect::<Vec<_>>(), [need]);
        assert_eq!(decision.granted, None, "{stated}");
        assert!(!decision.needs_admin.is_empty(), "{stated}");
    }
}

#[test]
fn contradiction_4_a_latency_on_a_shared_server_is_best_effort_and_says_so() {
    let decision = decide("hobby", json!({"latency_requirement": 50}));
    assert_eq!((decision.mode, decision.plan.as_str()), (Mode::MultiTenant, "hobby"));
    assert!(decision.notes[0].contains("50 ms is best effort"), "{:?}", decision.notes);
    assert!(decide("hobby", json!({})).notes.is_empty());
}

#[test]
fn the_bought_plan_is_a_floor() {
    for bought in ["starter", "professional", "business"] {
        let decision = decide(bought, json!({"budget": 30}));
        assert_eq!((decision.mode, decision.plan.as_str()), (Mode::MultiTenant, "hobby"));
        assert_eq!(decision.confidence, Hundredths::ONE);
        assert!(decision.less_than_bought && !decision.needs_admin.is_empty());
        let granted = decision.granted.unwrap();
        assert_eq!((granted.mode, granted.plan.as_str()), (Mode::SingleTenant, bought));
    }
}

#[test]
fn contradiction_6_statements_that_make_no_sense_are_refused_by_field() {
    let cases = [
        (json!({"geographic_distribution": []}), "geographic_distribution"),
        (json!({"geographic_distribution": ["Mars"]}), "geographic_distribution"),
        (json!({"geographic_distribution": "US"}), "geographic_distribution"),
        (json!({"geographic_distribution": [1]}), "geographic_distribution"),
        (json!({"budget": -1}), "budget"),
        (json!({"budget": -0.01}), "budget"),
        (json!({"budget": "NaN"}), "budget"),
        (json!({"budget": 10.001}), "budget"),
        (json!({"budget": 1e300}), "budget"),
        (json!({"vehicle_count": -1}), "vehicle_count"),
        (json!({"vehicle_count": 1.5}), "vehicle_count"),
        (json!({"vehicle_count": 5_000_000_000_u64}), "vehicle_count"),
        (json!({"latency_requirement": "fast"}), "latency_requirement"),
        (json!({"compliance_requirements": ["soc3"]}), "compliance_requirements"),
        (json!({"compliance_requirements": "soc2"}), "compliance_requirements"),
        (json!({"colour": "red"}), "colour"),
        (json!({"performance_needs": {"speed": 1}}), "performance_needs.speed"),
        (json!({"performance_needs": 5}), "performance_needs"),
        (
            json!({"latency_requirement": 9, "performance_needs": {"latency_requirement": 9}}),
            "performance_needs.latency_requirement",
        ),
        (json!([]), "profile_overrides"),
    ];
    for (stated, field) in cases {
        let read = ProfileOverrides::from_json(&stated)
            .and_then(|o| Profile::build("hobby", &o, &Usage::default(), &catalog()));
        match read {
            Err(error) => assert_eq!(error.field, field, "{stated}: {error}"),
            Ok(profile) => panic!("{stated} was taken as {profile:?}"),
        }
    }
    let unknown = Profile::build("gold", &Default::default(), &Usage::default(), &catalog());
    assert_eq!(unknown.unwrap_err().field, "plan");
}

#[test]
fn a_silent_profile_takes_the_defaults() {
    let silent = profile("professional", json!({"budget": null, "performance_needs": null}));
    assert_eq!(silent.budget, Cents::dollars(149));
    assert_eq!((silent.vehicle_count, silent.latency_requirement), (1, 100));
    assert_eq!(silent.regions, [Region::from("iad")]);
    assert_eq!(silent.peak_concurrent_users, None);
    assert!(silent.compliance_requirements.is_empty());
    for (word, place) in [("US", "iad"), ("EU", "fra"), ("APAC", "sin"), ("ord", "ord")] {
        let named = profile("hobby", json!({"geographic_distribution": [word]}));
        assert_eq!(named.regions, [Region::from(place)], "{word}");
    }
}

#[test]
fn measured_usage_counts_where_it_is_more() {
    let stated = ProfileOverrides { vehicle_count: Some(4), ..Default::default() };
    let build = |vehicles| {
        let usage = Usage { vehicle_count: vehicles, ..Default::default() };
        Profile::build("hobby", &stated, &usage, &catalog()).unwrap().vehicle_count
    };
    assert_eq!((build(None), build(Some(2)), build(Some(9))), (4, 4, 9));
}

#[test]
fn overrides_and_decisions_survive_the_audit_table() {
    let stated = json!({"budget": 29.99, "compliance_requirements": ["gdpr"],
        "geographic_distribution": ["EU"], "latency_requirement": 70});
    let overrides = ProfileOverrides::from_json(&stated).unwrap();
    assert_eq!(serde_json::to_value(&overrides).unwrap(), stated);
    for stated in [stated, json!({"vehicle_count": 600, "compliance_requirements": ["soc2"]})] {
        let decision = decide("hobby", stated);
        let text = serde_json::to_string(&decision).unwrap();
        assert_eq!(serde_json::from_str::<Decision>(&text).unwrap(), decision, "{text}");
    }
}
