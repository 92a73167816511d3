use super::*;

fn recorded(layout: &str) -> Hierarchies {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/collect/testdata/cgroup/");
    Hierarchies::new(format!("{dir}{layout}"))
}

#[test]
fn every_layout_gives_what_it_has() {
    let mut buffer = Vec::new();
    let nothing = Detail::default();
    for (layout, paths, expected) in [
        (
            "v2",
            Paths::everywhere("/system.slice/docker-c0ffee.scope"),
            Detail {
                throttled_us: Some(1_500_000),
                oom_kills: Some(2),
                read_bytes: Some(5_242_880),
                written_bytes: Some(12_288),
                tasks: Some(17),
            },
        ),
        (
            "v1",
            Paths::everywhere("/docker/c0ffee"),
            Detail {
                throttled_us: Some(250_000),
                oom_kills: Some(1),
                read_bytes: Some(8_192),
                written_bytes: Some(20_480),
                tasks: Some(4),
            },
        ),
        (
            "hybrid",
            Paths::parse(
                "12:pids:/docker/c0ffee\n4:cpu,cpuacct:/docker/c0ffee\n0::/docker/c0ffee\n",
            ),
            Detail { oom_kills: Some(3), tasks: Some(9), ..nothing },
        ),
        ("no-memory", Paths::everywhere("/a"), nothing),
        ("v2", Paths::everywhere("/gone"), nothing),
        ("v2/system.slice/docker-c0ffee.scope", Paths::everywhere("/"), nothing),
    ] {
        let files = recorded(layout).open_detail(&paths);
        assert_eq!(files.read(&mut buffer).expect(layout), expected, "{layout}");
    }
}

#[test]
fn the_first_process_of_a_group() {
    let v2 = recorded("v2");
    assert_eq!(
        v2.first_process(&Paths::everywhere("/system.slice/docker-c0ffee.scope")),
        Some(812)
    );
    let v1 = recorded("v1");
    assert_eq!(v1.first_process(&Paths::everywhere("/docker/c0ffee")), Some(4_711));
    assert_eq!(v1.first_process(&Paths::everywhere("/gone")), None);
    let whole = recorded("v2/system.slice/docker-c0ffee.scope");
    assert_eq!(whole.first_process(&Paths::everywhere("/")), None, "the machine is no container");
}

#[test]
fn an_unknown_form_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut buffer = Vec::new();
    for (file, content, word) in [
        ("io.stat", "8:0 rbytes=many wbytes=0\n", "many"),
        ("pids.current", "none\n", "none"),
        ("memory.events", "oom_kill -1\n", "-1"),
    ] {
        let name = file.replace('.', "-");
        std::fs::create_dir(dir.path().join(&name)).expect("a group");
        std::fs::write(dir.path().join(&name).join(file), content).expect("writes");
        let files = Hierarchies::new(dir.path()).open_detail(&Paths::everywhere(&name));
        let error = files.read(&mut buffer).expect_err(file);
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{file}");
        assert!(error.to_string().contains(word), "{file}: {error}");
    }
}

#[test]
fn a_machine_of_many_disks_is_read_to_the_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let lines: String = (0..500)
        .map(|n| format!("8:{n} rbytes=10 wbytes=1 rios=1 wios=1 dbytes=0 dios=0\n"))
        .collect();
    assert!(lines.len() > 16 * 1024);
    std::fs::create_dir(dir.path().join("a")).expect("a group");
    std::fs::write(dir.path().join("a/io.stat"), lines).expect("writes");
    let files = Hierarchies::new(dir.path()).open_detail(&Paths::everywhere("/a"));
    let detail = files.read(&mut Vec::new()).expect("reads");
    assert_eq!((detail.read_bytes, detail.written_bytes), (Some(5_000), Some(500)));
}
