use super::*;

fn hop(column: &str, parent: &str, number: usize) -> Hop {
    Hop {
        columns: vec![sql::ident(column)],
        parent: parent.into(),
        parent_columns: vec![sql::ident("id")],
        parent_key: vec![sql::ident("id")],
        parent_number: number,
        parent_time: None,
        deferrable: false,
    }
}

fn through() -> Membership {
    Membership::Through {
        hops: vec![hop("leg_id", "public.legs", 1), hop("route_id", "public.routes", 0)],
        tenant: sql::ident("customer_id"),
    }
}

#[test]
fn a_row_is_found_through_its_parents() {
    assert_eq!(
        through().is_tenants(&of("x"), "T"),
        "EXISTS (SELECT 1 FROM public.legs AS webhost_fleet_0, public.routes AS webhost_fleet_1 \
         WHERE webhost_fleet_0.\"id\" = x.\"leg_id\" \
         AND webhost_fleet_1.\"id\" = webhost_fleet_0.\"route_id\" \
         AND webhost_fleet_1.\"customer_id\" = T)"
    );
    assert_eq!(
        through().look_up("NEW", "T", true),
        "SELECT x.\"route_id\" AS c0 INTO r0 FROM public.legs AS x WHERE x.\"id\" = NEW.\"leg_id\" FOR KEY SHARE; \
         SELECT x.\"customer_id\" AS c0 INTO r1 FROM public.routes AS x WHERE x.\"id\" = r0.c0 FOR KEY SHARE; \
         IF r1.c0 = T THEN mine := true; END IF;"
    );
    assert_eq!(through().variables(), "r0 record; r1 record; ");
}

#[test]
fn rows_below_a_row_are_found_over_every_hop() {
    let dependent = Dependent {
        number: 2,
        name: "public.points".into(),
        key: vec![sql::ident("id")],
        path: through().hops().to_vec(),
    };
    let (from, wanted) = dependent.below(&of("OLD"));
    assert_eq!(from, "public.points AS d, public.legs AS webhost_fleet_0");
    assert_eq!(
        wanted,
        "webhost_fleet_0.\"id\" = d.\"leg_id\" AND webhost_fleet_0.\"route_id\" = OLD.\"id\""
    );
}

#[test]
fn a_scope_is_a_literal_of_the_columns_type() {
    let from = 1_700_000_000_000_001;
    for (cast, not_null, want) in [
        (TIMES[0], true, "x.t >= '2023-11-14T22:13:20.000001Z'::pg_catalog.timestamptz"),
        (
            TIMES[1],
            false,
            "(x.t >= '2023-11-14T22:13:20.000001'::pg_catalog.timestamp OR x.t IS NULL)",
        ),
        (TIMES[2], true, "x.t >= '2023-11-14'::pg_catalog.date"),
    ] {
        let time = Time { column: "t".into(), cast: cast.into(), not_null };
        assert_eq!(within(Some(&time), &of("x"), from).as_deref(), Some(want));
    }
}

/// What a parent's other server calls number 3 may be number 5 here.
#[test]
fn numbers_do_not_tell_two_sides_apart() {
    let mut other = through();
    if let Membership::Through { hops, .. } = &mut other {
        hops[0].parent_number = 9;
    }
    assert!(through().same_as(&other));
    assert!(!through().same_as(&Membership::Column("\"customer_id\"".into())));
}
