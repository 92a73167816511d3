//! The configuration files of a fleet's processes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A node's capacity is the smaller of its shape and what its agent offers,
/// and all nodes of a fleet here share one small machine: tenants that aren't
/// measured yet are charged with less than a server's averages, and a node is
/// filled further, because each of them measures what all of them use.
const SMALL_TENANTS: &str = "[catalog.thresholds]\nplace_limit = 0.98\nact_limit = 0.99\n\
     [catalog.averages]\ncpu_millicores = 5\nmemory_mb = 50\n\
     disk_mb = 50\ndb_connections_milli = 200\ngps_points_per_kilosecond = 2000\n";

/// What each agent offers: all of them measure the CPU of the one machine, and
/// what else keeps that busy is no reason to take no tenant.
const OFFERED_MILLICORES: u32 = 16_000;

/// The tenants' host names end with it.
pub const DOMAIN: &str = "fleet.example";

/// How the coordinator of a fleet runs.
#[derive(Clone, Debug)]
pub struct CoordinatorSettings {
    pub api: SocketAddr,
    pub link: SocketAddr,
    pub enrolment: SocketAddr,
    /// How often agents report.
    pub report_interval_ms: u32,
    /// Over which time rates and response times are taken.
    pub usage_window_s: u64,
    /// How often usage is looked through for crossed limits.
    pub scan_interval_s: u64,
    /// The least time between two evaluations for one cause.
    pub min_gap_s: u64,
    /// How long a way back is open; 0 opens none.
    pub way_back_s: u64,
    /// How long an old copy is kept.
    pub keep_old_copy_s: u64,
}

impl CoordinatorSettings {
    /// The file's text.
    pub fn toml(&self, state_dir: &Path) -> String {
        format!(
            "state_dir = {state:?}\n\
             [api]\nlisten = \"{api}\"\n\
             [link]\nlisten = \"{link}\"\nenrolment_listen = \"{enrolment}\"\n\
             names = [\"127.0.0.1\"]\nreport_interval_ms = {interval}\n\
             [usage]\nwindow_s = {window}\n\
             [signup]\nretry_interval_s = 1\n\
             [evaluation]\nscan_interval_s = {scan}\nmin_gap_s = {gap}\n\
             [moves]\nway_back_s = {way_back}\nkeep_old_copy_s = {keep}\n\
             [routing]\ndomain = \"{domain}\"\n\
             {SMALL_TENANTS}",
            domain = DOMAIN,
            state = state_dir,
            api = self.api,
            link = self.link,
            enrolment = self.enrolment,
            interval = self.report_interval_ms,
            window = self.usage_window_s,
            scan = self.scan_interval_s,
            gap = self.min_gap_s,
            way_back = self.way_back_s,
            keep = self.keep_old_copy_s,
        )
    }
}

/// How the agent of a node runs.
#[derive(Clone, Debug)]
pub struct AgentSettings {
    pub link: SocketAddr,
    pub enrolment: SocketAddr,
    pub tunnel: SocketAddr,
    pub app: SocketAddr,
    pub interval_ms: u32,
    /// The directory of the node's PostgreSQL socket.
    pub postgres: PathBuf,
    pub postgres_pid_file: PathBuf,
    pub app_pid_file: PathBuf,
    /// The engine whose containers are looked at.
    pub containers: Option<PathBuf>,
    /// 0 is unlimited.
    pub max_rows_per_second: u64,
    /// The hold point, and what else stands before the application.
    pub front: Front,
}

/// What stands before a node's application.
#[derive(Clone, Debug, Default)]
pub struct Front {
    /// Where the hold point listens; none where there is none.
    pub hold: Option<SocketAddr>,
    /// The nginx that is told which host names to send there; without one all
    /// of them come.
    pub nginx: Option<super::nginx::Places>,
}

impl Front {
    fn toml(&self, app: SocketAddr) -> String {
        let Some(hold) = self.hold else { return String::new() };
        let always = self.nginx.is_none();
        let mut text =
            format!("[hold]\nlisten = \"{hold}\"\napplication = \"{app}\"\nalways = {always}\n");
        if let Some(nginx) = &self.nginx {
            text.push_str(&format!(
                "[nginx]\ndir = {:?}\nverdict = {:?}\nworker_shutdown_s = {}\n",
                nginx.routes,
                nginx.verdict,
                super::nginx::WORKER_SHUTDOWN_S
            ));
        }
        text
    }
}

impl AgentSettings {
    /// The file's text.
    pub fn toml(&self, state_dir: &Path, status_socket: &Path) -> String {
        let containers = match &self.containers {
            Some(socket) => format!("enabled = true\nsocket = {socket:?}\n"),
            None => "enabled = false\n".to_owned(),
        };
        format!(
            "state_dir = {state_dir:?}\nstatus_socket = {status_socket:?}\n\
             interval_ms = {interval}\n\
             [coordinator]\naddress = \"{link}\"\nenrolment_address = \"{enrolment}\"\n\
             [containers]\n{containers}\
             [host]\ncpu_millicores = {OFFERED_MILLICORES}\n\
             [postgres]\nurl = \"host={postgres} user={user} dbname={database}\"\n\
             survey_interval_s = 2\n\
             [app]\nmetrics_url = \"http://{app}/metrics\"\n\
             [[attribution.shared]]\nname = \"webhost\"\nsplit_by = \"app\"\n\
             pid_file = {app_pid_file:?}\n\
             [[attribution.shared]]\nname = \"postgres\"\nsplit_by = \"database\"\n\
             pid_file = {postgres_pid_file:?}\n\
             [tunnel]\nlisten = \"{tunnel}\"\n\
             [moves]\nmax_rows_per_second = {rate}\n\
             ignore_tables = [\"schema_migrations\"]\n{front}",
            front = self.front.toml(self.app),
            interval = self.interval_ms,
            link = self.link,
            enrolment = self.enrolment,
            postgres = self.postgres.display(),
            user = crate::schema::AGENT,
            database = crate::schema::DATABASE,
            app = self.app,
            app_pid_file = self.app_pid_file,
            postgres_pid_file = self.postgres_pid_file,
            tunnel = self.tunnel,
            rate = self.max_rows_per_second,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn the_programs_take_the_files() {
        let agent = AgentSettings {
            link: address(1),
            enrolment: address(2),
            tunnel: address(3),
            app: address(4),
            interval_ms: 1000,
            postgres: "/tmp/x/socket".into(),
            postgres_pid_file: "/tmp/x/data/postmaster.pid".into(),
            app_pid_file: "/tmp/x/app.pid".into(),
            containers: Some("/tmp/x/docker.sock".into()),
            max_rows_per_second: 500,
            front: Front { hold: Some(address(5)), nginx: None },
        };
        let text = agent.toml(Path::new("/tmp/x/agent"), Path::new("/tmp/x/status.sock"));
        let config: webhost_agent::config::Config = toml::from_str(&text).expect("parses");
        assert_eq!(config.moves.max_rows_per_second, 500);
        assert_eq!(config.attribution.shared.len(), 2);
    }
}
