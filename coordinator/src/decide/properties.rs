//! What holds for every profile, not only for those of the tables.

use proptest::prelude::*;

use super::needs::satisfies;
use super::*;

fn catalog() -> Catalog {
    Catalog::default()
}

fn regimes() -> impl Strategy<Value = std::collections::BTreeSet<Compliance>> {
    proptest::collection::btree_set(proptest::sample::select(Compliance::ALL.to_vec()), 0..3)
}

prop_compose! {
    /// Profiles of all sizes, many of them near a limit.
    fn profiles()(
        plan in proptest::sample::select(vec!["hobby", "starter", "professional", "business"]),
        budget in prop_oneof![0..20_000_i64, 0..200_000_000_i64],
        vehicle_count in prop_oneof![0..12_u32, 0..600_u32, any::<u32>()],
        compliance_requirements in regimes(),
        latency_requirement in prop_oneof![30..110_u32, any::<u32>()],
        regions in proptest::sample::subsequence(vec!["iad", "fra", "sin", "syd"], 1..=4),
        peak_concurrent_users in proptest::option::of(0..600_u32),
        gps_points_per_day in prop_oneof![Just(0), 0..100_000_u64, any::<u64>()],
        gps_points_per_second in prop_oneof![Just(0), 0..12_000_u32],
        retention_days in prop_oneof![Just(0), 0..800_u32],
        storage_mb in prop_oneof![Just(0), 0..300_000_u64],
    ) -> Profile {
        Profile {
            plan: plan.into(),
            budget: Cents(budget),
            vehicle_count,
            compliance_requirements,
            latency_requirement,
            regions: regions.into_iter().map(Region::from).collect(),
            peak_concurrent_users,
            gps_points_per_day,
            gps_points_per_second,
            retention_days,
            storage_mb,
        }
    }
}

proptest! {
    #[test]
    fn the_same_profile_gives_the_same_bytes(profile in profiles()) {
        let text = || serde_json::to_string(&recommend(&profile, &catalog())).unwrap();
        prop_assert_eq!(text(), text());
        let back: Decision = serde_json::from_str(&text()).unwrap();
        prop_assert_eq!(back, recommend(&profile, &catalog()));
    }

    #[test]
    fn the_plan_satisfies_every_need_or_says_which_it_does_not(profile in profiles()) {
        let catalog = catalog();
        let decision = recommend(&profile, &catalog);
        let plan = catalog.plan(decision.plan.as_str()).unwrap();
        prop_assert_eq!(plan.mode, decision.mode);
        prop_assert_eq!(satisfies(&profile, plan), decision.unmet_needs.is_empty());
        let smaller = catalog.plans_of(plan.mode).take_while(|p| p.name != plan.name);
        for smaller in smaller {
            prop_assert!(!satisfies(&profile, smaller), "{} would do", smaller.name);
        }
        prop_assert!(decision.unmet_needs.is_empty() || !decision.needs_admin.is_empty());
    }

    #[test]
    fn confidence_is_a_score_and_fits_its_mode(profile in profiles()) {
        let decision = recommend(&profile, &catalog());
        let (multi, single) = (decision.scores.multi_tenant, decision.scores.single_tenant);
        for score in [decision.confidence, multi, single] {
            prop_assert!((0..=100).contains(&score.0));
        }
        if !decision.hard_rules.is_empty() {
            prop_assert_eq!(decision.mode, Mode::SingleTenant);
            prop_assert_eq!(decision.confidence, Hundredths::ONE);
        } else if decision.mode == Mode::MultiTenant {
            prop_assert_eq!(decision.confidence, multi);
            prop_assert!(multi > Hundredths(80) || multi > single);
        } else {
            prop_assert_eq!(decision.confidence, single);
            prop_assert!(multi <= Hundredths(80) && (single > Hundredths(80) || single >= multi));
        }
    }

    #[test]
    fn more_compliance_never_leads_to_a_shared_server(
        profile in profiles(),
        regime in proptest::sample::select(Compliance::ALL.to_vec()),
    ) {
        let before = recommend(&profile, &catalog()).mode;
        let mut stricter = profile.clone();
        stricter.compliance_requirements.insert(regime);
        let after = recommend(&stricter, &catalog());
        prop_assert!(!(before == Mode::SingleTenant && after.mode == Mode::MultiTenant));
        if regime.forbids_shared() {
            prop_assert_eq!(after.mode, Mode::SingleTenant);
            prop_assert!(forced(Mode::MultiTenant, &stricter, &catalog()).is_err());
        }
    }

    #[test]
    fn what_is_granted_is_never_less_than_bought_and_satisfies(profile in profiles()) {
        let catalog = catalog();
        let decision = recommend(&profile, &catalog);
        if let Some(granted) = &decision.granted {
            prop_assert!(catalog.rank(&granted.plan) >= catalog.rank(&profile.plan));
            let plan = catalog.plan(granted.plan.as_str()).unwrap();
            prop_assert_eq!(plan.mode, granted.mode);
            let forbidden = granted.mode == Mode::MultiTenant && !decision.hard_rules.is_empty();
            prop_assert!(!forbidden);
        } else {
            prop_assert!(!decision.unmet_needs.is_empty());
        }
    }

    #[test]
    fn nothing_smaller_is_approved_without_an_administrator(
        profile in profiles(),
        served in proptest::sample::select(vec!["hobby", "starter", "professional", "business"]),
        days in 0..100_u32,
    ) {
        let catalog = catalog();
        let decision = recommend(&profile, &catalog);
        let before = catalog.plan(served).unwrap();
        let residence = Residence { mode: before.mode, plan: served.into(), days_in_mode: days };
        let slow = Usage { average_response_time_ms: Some(900), ..Default::default() };
        if let Approval::Auto { .. } = auto_approve(&decision, &residence, &slow, &catalog) {
            let after = catalog.plan(decision.plan.as_str()).unwrap();
            prop_assert!(after.retention_days >= before.retention_days);
            prop_assert!(catalog.rank(&after.name) >= catalog.rank(&profile.plan));
            prop_assert!(decision.unmet_needs.is_empty());
        }
    }
}
