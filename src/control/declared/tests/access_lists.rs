//! Edits of access lists after any reloads and changes.

use super::*;
use crate::config::AccessEdits;
use crate::guard::Access;

fn edit(allow: &[&str], deny: &[&str], remove: &[&str]) -> Change {
    let prefixes = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let change = AccessEdits {
        allow: prefixes(allow),
        deny: prefixes(deny),
        remove: prefixes(remove),
    };
    Change::EditAccessList {
        list: "office".to_owned(),
        edits: change.checked().unwrap(),
    }
}

fn with_list(list: &str) -> Config {
    let text = format!(
        "(access_lists: [{list}], listeners: [(name: \"l\", bind: \"127.0.0.1:80\", pool: \"a\")],
          pools: [(name: \"a\", backends: [\"127.0.0.1:1\"])])"
    );
    parse("f".to_owned(), text.into()).unwrap().0
}

#[test]
fn an_edit_never_changes_what_holds_for_all_others() {
    let only_allows = Declared::new(with_list(r#"(name: "office", allow: ["10.0.0.0/8"])"#));
    let others = |declared: &Declared| declared.config.access_lists[0].others;
    assert_eq!(others(&only_allows), Some(Access::Deny));
    let next = changed(&only_allows, &edit(&[], &["10.6.6.6"], &["10.0.0.0/8"]));
    assert_eq!(others(&next), Some(Access::Deny));
    let only_denies = Declared::new(with_list(r#"(name: "office", deny: ["10.0.0.0/8"])"#));
    let next = changed(&only_denies, &edit(&["10.6.6.6"], &[], &["10.0.0.0/8"]));
    assert_eq!(others(&next), Some(Access::Allow));
    // What is shown is read again with the same meaning.
    let (again, _) = parse("f".to_owned(), next.config.to_ron().into()).unwrap();
    assert_eq!(again.access_lists[0].others, Some(Access::Allow));
}

#[test]
fn edits_of_an_access_list_hold_until_the_file_changes_their_prefixes() {
    let first = Declared::new(with_list(r#"(name: "office", deny: ["10.6.0.0/16"])"#));
    let next = changed(&first, &edit(&["10.0.0.0/8"], &["192.0.2.7"], &[]));
    let next = changed(&next, &edit(&[], &["::1"], &["10.6.0.0/16"]));
    assert_eq!(next.orders.len(), 1);
    // Taken back, as it is in the file.
    let next = changed(&next, &edit(&[], &["10.6.0.0/16"], &["::1"]));
    assert_eq!(next.orders, [edit(&["10.0.0.0/8"], &["192.0.2.7"], &[])]);
    assert_eq!(
        next.holding().unwrap(),
        "1 change by command still holds: access list office: allow 10.0.0.0/8, deny 192.0.2.7"
    );
    // The file changes one of them, and others of the list.
    let file = with_list(
        r#"(name: "office", allow: ["192.0.2.7"], deny: ["10.7.0.0/16"], others: "deny")"#,
    );
    let (next, ended) = next.reload(file, false);
    assert_eq!(next.orders, [edit(&["10.0.0.0/8"], &[], &[])]);
    let list = &next.config.access_lists[0];
    assert_eq!((list.allow.len(), list.deny.len()), (2, 1));
    assert_eq!(
        ended[0].sentence,
        "access list office no longer has the change deny 192.0.2.7: the file has changed its \
         prefixes; run `mahoraga deny 192.0.2.7 --list office` to make it again"
    );
    let (next, ended) = next.reload(with_list(""), false);
    assert_eq!((next.orders.len(), ended.len()), (0, 1));
    assert!(ended[0].sentence.ends_with("the file no longer lists it"));
}
