use super::*;

fn parse(text: &str) -> Result<RegistriesConf, NotTaken> {
    RegistriesConf::parse(text.as_bytes(), Path::new("/r.conf"))
}

/// What is asked for an image, as `host/repository`, with `!` for what is insecure and `#` for what is blocked.
fn sources(read: &RegistriesConf, name: &str, by: PullBy) -> Vec<String> {
    let (host, repository) = name.split_once('/').unwrap();
    let sources = read.sources(&host.parse().unwrap(), &repository.parse().unwrap(), by).unwrap();
    let mark = |fault: &Option<RegistryFault>, mark: &'static str| if fault.is_some() { mark } else { "" };
    let shown = sources.iter().map(|RegistrySource { host, repository, standing }| {
        let marks = [mark(&standing.insecure, "!"), mark(&standing.blocked, "#")].concat();
        format!("{host}/{repository}{marks}")
    });
    shown.collect()
}

#[test]
fn the_longest_prefix_wins() {
    let read = parse(
        "[[registry]]\nlocation = \"r.test\"\n[[registry]]\nprefix = \"r.test/a\"\nlocation = \"short.test\"\n\
         [[registry]]\nprefix = \"r.test/a/b/\"\nlocation = \"long.test/x\"\n\
         [[registry]]\nprefix = \"*.com\"\nlocation = \"wild.test/w\"\n[[registry]]\nprefix = \"*.r.test\"\n",
    )
    .unwrap();
    for (name, asked) in [
        ("r.test/c", "r.test/c"),
        ("r.test/a", ""),
        ("r.test/a/c", "short.test/c"),
        ("r.test/ab", "r.test/ab"),
        ("r.test/a/b/c", "long.test/x/c"),
        ("r.test/a/b", "long.test/x"),
        ("s.com/a", "wild.test/w/a"),
        ("s.com:5000/a", ""),
        ("deep.r.test/a", "deep.r.test/a"),
        ("s.com.evil/a", "s.com.evil/a"),
        ("r.test.evil/a", "r.test.evil/a"),
        ("evilr.test.x/a", "evilr.test.x/a"),
        ("elsewhere/x.com/a", "elsewhere/x.com/a"),
    ] {
        let (host, repository) = name.split_once('/').unwrap();
        let found = read.sources(&host.parse().unwrap(), &repository.parse().unwrap(), PullBy::Tag);
        let shown = found.map(|found| format!("{}/{}", found[0].host, found[0].repository)).unwrap_or_default();
        assert_eq!(shown, asked, "{name}");
    }
    // As Podman has it: a prefix without a port is for every port, and the port goes along.
    assert_eq!(sources(&read, "r.test:5000/c", PullBy::Tag), ["r.test:5000/c"]);
    let first =
        parse("[[registry]]\nlocation = \"a.test\"\n[[registry]]\nprefix = \"a.test\"\nlocation = \"b.test\"\n");
    assert_eq!(sources(&first.unwrap(), "a.test/x", PullBy::Tag), ["a.test/x"]);
    // Of two as long as each other the first in byte order.
    let even = parse("[[registry]]\nlocation = \"a.test\"\n[[registry]]\nprefix = \"*.test\"\nlocation = \"b.test\"\n");
    assert_eq!(sources(&even.unwrap(), "a.test/x", PullBy::Tag), ["b.test/x"]);
}

#[test]
fn mirrors_in_order_and_by_what_they_are_for() {
    let mirror = |name: &str, rest: &str| format!("[[registry.mirror]]\nlocation = \"{name}\"\n{rest}\n");
    let read = parse(
        &["[[registry]]\nprefix = \"r.test/team\"\nlocation = \"in.test:5000/x\"\ninsecure = true\n".to_owned()]
            .into_iter()
            .chain([mirror("z.test", ""), mirror("d.test/y", "pull-from-mirror = \"digest-only\"")])
            .chain([mirror("t.test", "pull-from-mirror = \"tag-only\"\ninsecure = true"), mirror("a.test", "")])
            .collect::<String>(),
    )
    .unwrap();
    let by_tag = sources(&read, "r.test/team/app", PullBy::Tag);
    assert_eq!(by_tag, ["z.test/app", "t.test/app!", "a.test/app", "in.test:5000/x/app!"]);
    let by_digest = sources(&read, "r.test/team/app", PullBy::Digest);
    assert_eq!(by_digest, ["z.test/app", "d.test/y/app", "a.test/app", "in.test:5000/x/app!"]);
    let text = format!("[[registry]]\nlocation = \"r.test\"\nmirror-by-digest-only = true\n{}", mirror("m.test", ""));
    let read = parse(&text).unwrap();
    assert_eq!(sources(&read, "r.test/a", PullBy::Tag), ["r.test/a"]);
    assert_eq!(sources(&read, "r.test/a", PullBy::Digest), ["m.test/a", "r.test/a"]);
}

#[test]
fn what_is_blocked_is_said_with_its_line() {
    let read = parse(
        "[[registry]]\nlocation = \"r.test\"\nblocked = true\n\n[[registry]]\nprefix = \"s.test\"\nlocation = \"r.test/s\"\n\
         [[registry.mirror]]\nlocation = \"r.test/m\"\n",
    )
    .unwrap();
    let host: RegistryHost = "r.test".parse().unwrap();
    let fault = read.sources(&host, &"a".parse().unwrap(), PullBy::Tag).unwrap_err();
    assert!(fault.to_string().starts_with("/r.conf:1 blocks r.test: "), "{fault}");
    assert_eq!(read.standing(&host, None).blocked, Some(fault));
    assert_eq!(sources(&read, "s.test/a", PullBy::Tag), ["r.test/m/a#", "r.test/s/a#"]);
    assert_eq!(read.standing(&"s.test".parse().unwrap(), None), Standing::default());
    // Go's decoder takes keys in any case.
    let read = parse("[[Registry]]\nLocation = \"r.test\"\nBLOCKED = true\nInsecure = true\n").unwrap();
    let standing = read.standing(&host, Some(&"a/b".parse().unwrap()));
    assert!(
        standing.blocked.is_some() && standing.insecure.unwrap().to_string().contains("/r.conf:1 calls it insecure")
    );
}

#[test]
fn the_old_form() {
    let text = "[registries.search]\nregistries = ['s.test']\n[registries.insecure]\nregistries = ['i.test', 'b.test/']\n\
                [registries.block]\nregistries = [\"b.test\"]\n";
    let read = parse(text).unwrap();
    assert_eq!(sources(&read, "i.test/a", PullBy::Tag), ["i.test/a!"]);
    let standing = read.standing(&"b.test".parse().unwrap(), None);
    assert!(standing.blocked.is_some() && standing.insecure.is_some());
    assert!(read.find("s.test/a").is_none());
    assert_eq!(parse(&format!("{text}[[registry]]\nlocation = \"x\"\n")).unwrap_err().line, 1);
    assert!(parse("[registries.search]\nregistries = []\n[[registry]]\nlocation = \"x\"\n").is_ok());
    assert!(RegistriesConf::parse_drop_in(text.as_bytes(), Path::new("/x")).is_err());
}

#[test]
fn what_podman_stops_at() {
    let registry = "[[registry]]\nlocation = \"r.test\"\n";
    for (text, line) in [
        ("[registry]\nlocation = \"r.test\"\n".to_owned(), 1),
        ("registry = [1]\n".to_owned(), 1),
        ("[[registry]]\n".to_owned(), 1),
        ("\n[[registry]]\nprefix = \"r.test\"\n".to_owned(), 2),
        ("[[registry]]\nlocation = \"https://r.test\"\n".to_owned(), 2),
        ("[[registry]]\nprefix = \"*.r.test/x\"\n".to_owned(), 1),
        ("[[registry]]\nprefix = \"*.r.test:5000\"\n".to_owned(), 1),
        ("[[registry]]\nlocation = 5\n".to_owned(), 2),
        (format!("{registry}insecure = \"yes\"\n"), 3),
        (format!("{registry}blocked = 1\n"), 3),
        (format!("{registry}pull-from-mirror = \"all\"\n"), 3),
        (format!("{registry}mirror = \"m.test\"\n"), 3),
        (format!("{registry}[[registry.mirror]]\ninsecure = true\n"), 3),
        (format!("{registry}[[registry.mirror]]\nlocation = \"http://m.test\"\n"), 4),
        (format!("{registry}[[registry.mirror]]\nlocation = \"m.test\"\npull-from-mirror = \"some\"\n"), 3),
        (
            format!(
                "{registry}mirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"m.test\"\npull-from-mirror = \"all\"\n"
            ),
            4,
        ),
        (format!("{registry}[[registry]]\nprefix = \"x\"\nlocation = \"r.test\"\nblocked = true\n"), 3),
        (format!("{registry}[[registry]]\nprefix = \"x\"\nlocation = \"r.test\"\ninsecure = true\n"), 3),
        ("unqualified-search-registries = \"docker.io\"\n".to_owned(), 1),
        ("registries = 1\n".to_owned(), 1),
        ("[[registry]\n".to_owned(), 1),
    ] {
        let refused = parse(&text).unwrap_err();
        assert_eq!(refused.line, line, "{text}: {refused}");
    }
    assert!(RegistriesConf::parse(b"\xff", Path::new("/x")).is_err());
    for empty in ["", "# nothing\n", "unknown = 1\n", "registry = []\n", "unqualified-search-registries = []\n"] {
        assert_eq!(parse(empty).unwrap().tables, RegistriesConf::default().tables, "{empty:?}");
    }
}

#[test]
fn a_registry_has_so_many_mirrors_and_not_one_more() {
    let mirrors = |count| "[[registry.mirror]]\nlocation = \"m.test\"\n".repeat(count);
    let with = |count| parse(&format!("[[registry]]\nlocation = \"r.test\"\n{}", mirrors(count)));
    assert_eq!(sources(&with(MAX_MIRRORS).unwrap(), "r.test/a", PullBy::Tag).len(), MAX_MIRRORS + 1);
    assert!(with(MAX_MIRRORS + 1).unwrap_err().reason.contains("64 mirrors"));
}

#[test]
fn a_location_that_makes_no_repository_is_said_with_its_line() {
    for location in ["in.test/x:1", "in.test:5000x", "short", "in.test/UPPER", "in.test/x@sha256:00"] {
        let text = format!("[[registry]]\nprefix = \"r.test\"\nlocation = \"{location}\"\n");
        let fault = parse(&text).unwrap().sources(&"r.test".parse().unwrap(), &"a".parse().unwrap(), PullBy::Tag);
        let fault = fault.unwrap_err().to_string();
        assert!(fault.starts_with(&format!("/r.conf:1 leads to {location}/a, ")), "{fault}");
    }
}
