//! The seeds' figures, as the catalogue that holds where nothing is configured.

use super::amount::{BasisPoints, Cents, Hundredths};
use super::plans::{
    Averages, Catalog, CostItem, Costs, Mode, NodeKind, NodeShape, Plan, PostgresKind, Region,
    Thresholds,
};

/// The places Fly.io sells machines in.
const FLY_REGIONS: &[&str] = &[
    "ams", "arn", "atl", "bog", "bom", "bos", "cdg", "den", "dfw", "ewr", "eze", "fra", "gdl",
    "gig", "gru", "hkg", "iad", "jnb", "lax", "lhr", "mad", "mia", "nrt", "ord", "otp", "phx",
    "qro", "scl", "sea", "sin", "sjc", "syd", "waw", "yul", "yyz",
];

fn places(codes: &[&str]) -> Vec<Region> {
    codes.iter().map(|code| Region::from(*code)).collect()
}

impl Default for Averages {
    /// 0.1 core, 850 MB, 6 GB, 0.6 connection; for GPS the hobby plan's whole
    /// day of points, spread evenly (50,000 / 86,400 s).
    fn default() -> Self {
        Self {
            cpu_millicores: 100,
            memory_mb: 850,
            disk_mb: 6000,
            db_connections_milli: 600,
            gps_points_per_kilosecond: 579,
        }
    }
}

impl Default for Costs {
    /// The seeds' amounts are in euros and their totals in dollars ($89 for
    /// €83.81), which is a rate of 1.0620.
    fn default() -> Self {
        let item = |name: &str, cents| CostItem { name: name.to_owned(), euros: Cents(cents) };
        Self {
            dollars_per_euro: BasisPoints(10_620),
            shared_server: vec![
                item("server", 6500),
                item("storage box", 381),
                item("domain and tls", 1000),
                item("monitoring", 500),
            ],
        }
    }
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            place_limit: Hundredths(75),
            act_limit: Hundredths(80),
            relieve_to: Hundredths(72),
            choose_score: Hundredths(80),
            migrate_confidence: Hundredths(70),
            approve_confidence_with_issue: Hundredths(90),
            approve_confidence_settled: Hundredths(95),
            settled_days: 30,
            slow_response_ms: 200,
            error_rate: BasisPoints(500),
            node_cpu: BasisPoints(8000),
            auto_upgrade_threshold: Hundredths(80),
            downgrade_threshold: Hundredths(20),
            retention_grace_days: 8,
        }
    }
}

fn plans() -> Vec<Plan> {
    vec![
        Plan {
            name: "hobby".into(),
            price: Cents::dollars(15),
            mode: Mode::MultiTenant,
            vehicles: 5,
            gps_points_per_day: 50_000,
            retention_days: 30,
            regions: places(&["iad"]),
            shape: "ax52".to_owned(),
            volume_gb: 6,
            postgres: PostgresKind::Shared,
            p95_ms: 50,
            gps_points_per_second: 500,
            users: 50,
            queries_per_second: 1000,
            cost: None,
        },
        Plan {
            name: "starter".into(),
            price: Cents::dollars(49),
            mode: Mode::SingleTenant,
            vehicles: 25,
            gps_points_per_day: 500_000,
            retention_days: 90,
            regions: places(&["iad"]),
            shape: "shared-cpu-512".to_owned(),
            volume_gb: 10,
            postgres: PostgresKind::Single,
            p95_ms: 80,
            gps_points_per_second: 2000,
            users: 100,
            queries_per_second: 5000,
            cost: Some(Cents::dollars(8)),
        },
        Plan {
            name: "professional".into(),
            price: Cents::dollars(149),
            mode: Mode::SingleTenant,
            vehicles: 100,
            gps_points_per_day: 2_000_000,
            retention_days: 365,
            regions: places(&["iad", "fra"]),
            shape: "performance-1x".to_owned(),
            volume_gb: 50,
            postgres: PostgresKind::PrimaryAndReplica,
            p95_ms: 60,
            gps_points_per_second: 5000,
            users: 250,
            queries_per_second: 10_000,
            cost: Some(Cents::dollars(8)),
        },
        Plan {
            name: "business".into(),
            price: Cents::dollars(399),
            mode: Mode::SingleTenant,
            vehicles: 500,
            gps_points_per_day: 10_000_000,
            retention_days: 730,
            regions: places(&["iad", "fra", "sin"]),
            shape: "performance-1x-business".to_owned(),
            volume_gb: 200,
            postgres: PostgresKind::MultiRegionCluster,
            p95_ms: 40,
            gps_points_per_second: 10_000,
            users: 500,
            queries_per_second: 20_000,
            cost: Some(Cents::dollars(60)),
        },
    ]
}

/// Professional is sold with 2,048 MB, because there is no performance CPU
/// with less; it differs from business by its volume and database alone.
fn shapes() -> Vec<NodeShape> {
    let dedicated =
        |name: &str, cpu_millicores, memory_mb, disk_gb, db_connections, gps| NodeShape {
            name: name.to_owned(),
            kind: NodeKind::Dedicated,
            cpu_millicores,
            memory_mb,
            disk_gb,
            db_connections,
            gps_points_per_second: gps,
            max_tenants: 1,
        };
    vec![
        NodeShape {
            name: "ax52".to_owned(),
            kind: NodeKind::Shared,
            cpu_millicores: 16_000,
            memory_mb: 128_000,
            disk_gb: 1000,
            db_connections: 100,
            gps_points_per_second: 500,
            max_tenants: 150,
        },
        dedicated("shared-cpu-512", 1000, 512, 10, 20, 2000),
        dedicated("performance-1x", 1000, 2048, 50, 50, 5000),
        dedicated("performance-1x-business", 1000, 2048, 200, 100, 10_000),
    ]
}

impl Default for Catalog {
    fn default() -> Self {
        let regions = [("US", "iad"), ("EU", "fra"), ("APAC", "sin")];
        Self {
            plans: plans(),
            shapes: shapes(),
            averages: Averages::default(),
            costs: Costs::default(),
            thresholds: Thresholds::default(),
            regions: regions.iter().map(|(w, p)| ((*w).to_owned(), Region::from(*p))).collect(),
            places: places(FLY_REGIONS),
        }
    }
}
