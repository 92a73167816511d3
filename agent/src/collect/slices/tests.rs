use tokio::sync::watch;
use uuid::Uuid;

use super::*;
use crate::collect::postgres::{DbTenant, PostgresReading};
use crate::collect::source::Published;

/// A tree as cgroup v2 shows it.
struct Tree(tempfile::TempDir);

impl Tree {
    fn group(&self, name: &str, cpu_us: u64, memory: u64) {
        let dir = self.0.path().join("webhost.slice").join(name);
        std::fs::create_dir_all(&dir).expect("creates");
        std::fs::write(dir.join("cpu.stat"), format!("usage_usec {cpu_us}\n")).expect("writes");
        std::fs::write(dir.join("memory.current"), format!("{memory}\n")).expect("writes");
        std::fs::write(dir.join("memory.stat"), "inactive_file 100\n").expect("writes");
    }
}

fn plain(cpu_us: u64, memory_bytes: u64, running: u32) -> ContainerTenant {
    ContainerTenant { cpu_us, memory_bytes, running, ..ContainerTenant::default() }
}

fn source(tree: &Tree) -> SlicesSource {
    let row = DbTenant { slug: "acme-inc".into(), ..DbTenant::default() };
    let tenants = [(TenantId(Uuid::from_u128(1)), row)].into();
    let reading = PostgresReading { tenants, ..PostgresReading::default() };
    let published = Published { value: Some(reading), ..Published::waiting() };
    let config = Slices { parent: "/webhost.slice".into(), name: "webhost-{slug}.slice".into() };
    let database = Some(watch::channel(published).1);
    SlicesSource::new(&config, tree.0.path(), database).expect("a pattern")
}

#[tokio::test(start_paused = true)]
async fn groups_come_grow_and_go() {
    let tree = Tree(tempfile::tempdir().expect("a directory"));
    let mut source = source(&tree);
    let Outcome::Failed(why) = source.sample() else { panic!("no such directory") };
    assert!(why.contains("webhost.slice"), "{why}");

    tree.group(r"webhost-acme\x2dinc.slice", 5_000, 1_100);
    let one = TenantId(Uuid::from_u128(1));
    let Outcome::Good(reading) = source.sample() else { panic!("good") };
    assert_eq!(reading[&one], plain(0, 1_000, 1));
    tree.group(r"webhost-acme\x2dinc.slice", 9_000, 2_100);
    let Outcome::Good(reading) = source.sample() else { panic!("good") };
    assert_eq!((reading[&one].cpu_us, reading[&one].memory_bytes), (4_000, 2_000));

    // A stranger is named, and the rest is read.
    tree.group("webhost-nobody.slice", 1, 1);
    tokio::time::advance(RELIST).await;
    let Outcome::Partial(reading, why) = source.sample() else { panic!("partial") };
    assert_eq!(reading.len(), 1);
    assert!(why.contains("1 groups of no known tenant, as webhost-nobody.slice"), "{why}");

    // Gone: its total stays, its gauge does not.
    std::fs::remove_dir_all(tree.0.path().join("webhost.slice")).expect("removes");
    std::fs::create_dir(tree.0.path().join("webhost.slice")).expect("creates");
    tokio::time::advance(RELIST).await;
    let Outcome::Good(reading) = source.sample() else { panic!("good") };
    assert_eq!(reading[&one], plain(4_000, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_a_group_does_besides_is_looked_at_now_and_then() {
    let tree = Tree(tempfile::tempdir().expect("a directory"));
    let mut source = source(&tree);
    let name = r"webhost-acme\x2dinc.slice";
    let kills = |count: u64| {
        tree.group(name, 5_000, 1_100);
        let events = tree.0.path().join("webhost.slice").join(name).join("memory.events");
        std::fs::write(events, format!("oom_kill {count}\n")).expect("writes");
    };
    let one = TenantId(Uuid::from_u128(1));
    let mut told = Vec::new();
    for (count, waits) in [(4, false), (6, false), (6, true), (9, true)] {
        kills(count);
        if waits {
            tokio::time::advance(detail::EVERY).await;
        }
        let Outcome::Good(reading) = source.sample() else { panic!("good") };
        told.push(reading[&one].detail.counts[detail::OOM_KILLS]);
    }
    assert_eq!(told, [Some(0), Some(0), Some(2), Some(5)]);
}
