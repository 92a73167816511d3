//! A stand-in for the application's page of metrics: eight series a tenant
//! that move as those of a small fleet of vehicles do, second by second.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use uuid::Uuid;

/// A tenant's totals and gauges.
struct Tenant {
    id: Uuid,
    /// Vehicles on the road: each sends about a point a second.
    vehicles: u64,
    points: u64,
    calls: u64,
    errors: u64,
    batches: u64,
    realtime: u64,
    duration_us: u64,
    clients: u64,
}

/// The page; served until this value is dropped.
pub struct Page {
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Page {
    /// Serves a page about `tenants`; each scrape finds a second's more work.
    ///
    /// # Errors
    /// When no port is to be had.
    pub async fn start(tenants: &[Uuid]) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mut random = StdRng::seed_from_u64(4);
        let tenants: Vec<Tenant> = tenants
            .iter()
            .map(|id| Tenant {
                id: *id,
                vehicles: random.random_range(5..60),
                points: 0,
                calls: 0,
                errors: 0,
                batches: 0,
                realtime: 0,
                duration_us: 0,
                clients: random.random_range(1..12),
            })
            .collect();
        let town = Arc::new(Mutex::new((random, tenants)));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let town = Arc::clone(&town);
                open.spawn(async move {
                    // A reader that went away is none of our business.
                    let _gone = serve(stream, || {
                        let mut town = town.lock().unwrap_or_else(PoisonError::into_inner);
                        let (random, tenants) = &mut *town;
                        tenants.iter_mut().for_each(|tenant| tenant.second(random));
                        render(tenants)
                    })
                    .await;
                });
                while open.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, _tasks: tasks })
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}/metrics", self.address)
    }
}

/// Answers one request after another on a connection.
async fn serve(mut stream: TcpStream, mut page: impl FnMut() -> String) -> std::io::Result<()> {
    let mut heard = Vec::new();
    loop {
        while !heard.windows(4).any(|end| end == b"\r\n\r\n") {
            if stream.read_buf(&mut heard).await? == 0 {
                return Ok(());
            }
        }
        heard.clear();
        let body = page();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
    }
}

impl Tenant {
    fn second(&mut self, random: &mut StdRng) {
        let points = random.random_range(0..=self.vehicles);
        let calls = random.random_range(0..6_u64);
        self.points += points;
        self.realtime += points;
        self.calls += calls;
        self.errors += u64::from(random.random_ratio(1, 200));
        self.batches += u64::from(random.random_ratio(1, 60));
        self.duration_us += calls * random.random_range(2_000..40_000);
        if random.random_ratio(1, 10) {
            self.clients = (self.clients + random.random_range(0..=2)).saturating_sub(1);
        }
    }
}

type Column = (&'static str, fn(&Tenant) -> u64);

const COLUMNS: [Column; 8] = [
    ("webhost_gps_points_total", |tenant| tenant.points),
    ("webhost_api_calls_total", |tenant| tenant.calls),
    ("webhost_api_errors_total", |tenant| tenant.errors),
    ("webhost_batch_operations_total", |tenant| tenant.batches),
    ("webhost_realtime_operations_total", |tenant| tenant.realtime),
    ("webhost_connected_clients", |tenant| tenant.clients),
    ("webhost_vehicles", |tenant| tenant.vehicles),
    ("webhost_request_duration_seconds_sum", |tenant| tenant.duration_us),
];

fn render(tenants: &[Tenant]) -> String {
    let mut page = String::new();
    for (name, value) in COLUMNS {
        for tenant in tenants {
            let value = value(tenant);
            let value = if name.ends_with("_sum") {
                format!("{}.{:06}", value / 1_000_000, value % 1_000_000)
            } else {
                value.to_string()
            };
            // Writing to a String can't fail.
            let _infallible = writeln!(page, "{name}{{customer_id=\"{}\"}} {value}", tenant.id);
        }
    }
    page
}
