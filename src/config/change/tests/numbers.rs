//! Numbers of members while backends come and go.

use super::*;

#[test]
fn a_member_that_leaves_changes_the_number_of_no_other() {
    let text = r#"(
        listeners: [(bind: "127.0.0.1:8080", pool: "kafka")],
        pools: [(name: "kafka", sni_member: "b-{n}.k", backends: [
            "unix:/0", "unix:/1", (address: "unix:/9", member: 9), "unix:/3"])],
    )"#;
    let config = parse(String::new(), text.into()).unwrap().0;
    let numbers = |config: &Config| config.pools[0].numbers().collect::<Vec<_>>();
    let leave = [remove("kafka", "unix:/1"), remove("kafka", "unix:/0")];
    let one = leave[0].apply(&config).unwrap();
    assert_eq!(numbers(&one), [0, 9, 3]);
    let both = leave[1].apply(&one).unwrap();
    assert_eq!(numbers(&both), [9, 3]);
    let mut all = leave.to_vec();
    all.push(add("kafka", backend("unix:/2")));
    let (joined, errors) = Change::apply_all(&all, &config);
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(numbers(&joined), [9, 3, 2]);
    // As a reload of the same file makes them again.
    let (again, errors) = Change::apply_all(&all, &config);
    assert!(errors.is_empty() && again == joined);
    // One that was removed before leaves no number behind.
    let unknown = remove("kafka", "unix:/x").apply(&config);
    assert!(unknown.is_err());
    let error = add("kafka", backend("unix:/1")).apply(&one).unwrap_err();
    assert_eq!(
        error.to_string(),
        "pool `kafka`: two backends of the pool have the number 3: give each a `member` of its own"
    );
}
