//! The configurations of the documents: each is whole, or says that it is a part.

use std::fs;
use std::path::Path;

use super::*;

/// How a part begins.
const PART: &str = "// A part of a configuration, which stands in its outer ( and ):\n";

#[test]
fn each_configuration_of_the_documents_is_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = fs::read_dir(root.join("docs")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "md"));
    let mut count = 0;
    for path in files.chain([root.join("README.md")]) {
        let text = fs::read_to_string(&path).unwrap();
        for block in text.split("```ron\n").skip(1) {
            let block = block.split("```").next().unwrap();
            let shown = path.display();
            assert!(
                block.starts_with('(') || block.starts_with(PART),
                "{shown}: this is neither whole nor begins with {PART}{block}"
            );
            let whole = completed(block);
            let error = read(&whole).err().map(|error| error.to_string());
            assert_eq!(error, None, "{shown}");
            count += 1;
        }
    }
    assert!(count > 40, "{count}");
}

/// A part, with what it lacks of a whole configuration.
fn completed(block: &str) -> String {
    let Some(part) = block.strip_prefix(PART) else {
        return block.to_owned();
    };
    let has = |setting: &str| part.lines().any(|line| line.starts_with(setting));
    let listeners = if has("listeners: ") {
        ""
    } else {
        "listeners: [(bind: \"127.0.0.1:8080\", pool: \"web\")],"
    };
    let pools = if has("pools: ") {
        ""
    } else {
        "pools: [(name: \"web\", backends: [\"127.0.0.1:9001\"])],"
    };
    format!("(\n{part}{listeners}\n{pools})")
}
