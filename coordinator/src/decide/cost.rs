//! What a tenant costs us a month, by plan: sums of the catalogue's amounts.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::amount::{BasisPoints, Cents};
use super::plans::{Catalog, Costs, Plan, PlanName};

/// One row of the cost table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanCost {
    /// The plan.
    pub plan: PlanName,
    /// What its customer pays, dollars a month.
    pub price: Cents,
    /// What its customer costs, dollars a month.
    pub cost: Cents,
    /// Price less cost.
    pub margin: Cents,
    /// Margin over price; 0 for a plan that is given away.
    pub margin_share: BasisPoints,
}

impl Costs {
    /// A shared server's month in dollars: the sum of its lines in euros at
    /// the configured rate, rounded half up to the cent.
    pub fn shared_server_month(&self) -> Cents {
        let euros: Cents = self.shared_server.iter().map(|item| item.euros).sum();
        Cents(divide(i128::from(euros.0) * i128::from(self.dollars_per_euro.0), 10_000))
    }
}

/// What one of `tenants` on a shared server costs a month, rounded half up to
/// the cent. An empty server's first tenant costs all of it.
pub fn shared(costs: &Costs, tenants: u32) -> Cents {
    Cents(divide(i128::from(costs.shared_server_month().0), i128::from(tenants.max(1))))
}

/// What a tenant of `plan` costs a month where a shared server carries
/// `tenants` (which only matters for shared plans).
pub fn of_plan(plan: &Plan, costs: &Costs, tenants: u32) -> Cents {
    plan.cost.unwrap_or_else(|| shared(costs, tenants))
}

/// How many tenants a shared server of `plan` has when it is full: the number
/// that costs are estimated with where the real one isn't known.
pub fn full_server(plan: &Plan, catalog: &Catalog) -> u32 {
    catalog.shape(&plan.shape).map_or(1, |shape| shape.max_tenants)
}

/// The cost table, plan by plan. `tenants_on_server` is how many tenants a
/// shared server carries; None: a full one.
pub fn table(catalog: &Catalog, tenants_on_server: Option<u32>) -> Vec<PlanCost> {
    let row = |plan: &Plan| {
        let tenants = tenants_on_server.unwrap_or_else(|| full_server(plan, catalog));
        let cost = of_plan(plan, &catalog.costs, tenants);
        let margin = plan.price - cost;
        let share = match plan.price.0 {
            0 => 0,
            price => divide(i128::from(margin.0) * 10_000, i128::from(price)),
        };
        PlanCost {
            plan: plan.name.clone(),
            price: plan.price,
            cost,
            margin,
            margin_share: BasisPoints(share),
        }
    };
    catalog.plans.iter().map(row).collect()
}

/// `a / b`, rounded half away from zero; `b` is positive.
fn divide(a: i128, b: i128) -> i64 {
    let half = if a < 0 { -b / 2 } else { b / 2 };
    i64::try_from((a + half) / b).unwrap_or(if a < 0 { i64::MIN } else { i64::MAX })
}
