use super::*;

fn problems(text: &str) -> Vec<Problem> {
    Policy::parse(Path::new("p"), text).expect_err(text)
}

/// Each problem's line and a word of it.
#[track_caller]
fn check(text: &str, expected: &[(usize, &str)]) {
    let found = problems(text);
    let lines: Vec<_> = found.iter().filter_map(|problem| problem.line).collect();
    let wanted: Vec<_> = expected.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, wanted, "{found:#?}");
    for (problem, (_, word)) in found.iter().zip(expected) {
        assert!(problem.message.contains(word), "{word}: {problem}");
    }
}

#[test]
fn what_is_no_glob() {
    for glob in ["", "/", "a/", "A", "a**", "a b", "a//b", "?"] {
        assert!(RepositoryGlob::parse(glob).is_none(), "{glob}");
    }
    assert!(RepositoryGlob::parse("team-*/**").is_some());
}

#[test]
fn every_problem_with_its_line() {
    check(
        "[[rule]]\nca = \"x\"\npin = \"y\"\nrepositories = [\"A\"]\nallow = [\"pul\"]\n\n\
         [[rule]]\nrepositories = [\"**\"]\nallow = [\"pull\"]\nx = 1\n",
        &[(1, "two rules"), (4, "\"A\""), (5, "\"pul\""), (7, "whom"), (10, "unknown key")],
    );
}

#[test]
fn matchers_that_could_never_match() {
    let rule = |whom: &str| format!("[[rule]]\n{whom}\nrepositories = [\"**\"]\nallow = [\"pull\"]\n");
    for (whom, word) in [
        ("ca = \"\"", "`ca` is \"\"".replace('`', "")),
        ("pin = \"../x\"", "../x".to_owned()),
        ("fingerprint = \"sha256:00\"", "cert show".to_owned()),
        ("spiffe = \"spiffe://*/ci\"", "trust domain".to_owned()),
        ("dns = \"a b\"", "DNS name".to_owned()),
        ("email = \"nobody\"", "address".to_owned()),
        ("cn = \"\"", "text".to_owned()),
        ("cn = 5", "text in quotes".to_owned()),
        ("anonymous = 1", "true or false".to_owned()),
        ("anonymous = false", "leave it out".to_owned()),
        ("group = \"none\"", "there are none".to_owned()),
    ] {
        let found = problems(&rule(whom));
        assert_eq!(found.len(), 1, "{whom}: {found:#?}");
        assert_eq!(found[0].line, Some(2), "{whom}: {found:#?}");
        assert!(found[0].message.replace('`', "").contains(&word), "{whom}: {found:#?}");
    }
    check(&rule("anonymous = true\nca = \"x\""), &[(2, "stands alone")]);
    check(&rule("pin = \"x\"\ncn = \"y\""), &[(1, "gives no rights")]);
}

#[test]
fn groups() {
    let with =
        |groups: &str| format!("{groups}\n[[rule]]\ngroup = \"ci\"\nrepositories = [\"**\"]\nallow = [\"pull\"]\n");
    assert!(
        Policy::parse(Path::new("p"), &with("[groups]\nci = [{ ca = \"x\", cn = \"ci-*\" }, { pin = \"y\" }]")).is_ok()
    );
    assert!(Policy::parse(Path::new("p"), &with("[[groups.ci]]\nca = \"x\"")).is_ok());
    check(&with("[groups]\nops = [{ pin = \"y\" }]"), &[(4, "known: ops")]);
    check(&with("[groups]\nci = []"), &[(2, "empty")]);
    check(&with("[groups]\nci = [{}]"), &[(2, "who it is")]);
    check(&with("[groups]\nci = \"alice\""), &[(2, "list of tables")]);
    check(&with("[groups]\n\"c i\" = [{ pin = \"y\" }]\nci = [{ pin = \"y\" }]"), &[(2, "no name for a group")]);
    // A group of groups could name itself.
    check(
        &with("[groups]\nci = [\n  { pin = \"y\" },\n  { group = \"ci\" },\n]"),
        &[(4, "who it is"), (4, "unknown key")],
    );
}

#[test]
fn an_empty_policy_is_a_problem() {
    for text in ["", "rule = 5", "rule = []", "[groups]\nci = [{ pin = \"y\" }]"] {
        problems(text);
    }
}
