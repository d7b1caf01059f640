//! What the documentation shows has to work.

use std::fs;

use carillon::config::{Sources, load};

fn check(page: &str) {
    let example = page
        .split("```toml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .expect("the page has a configuration");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("carillon.toml");
    fs::write(&file, example).expect("the example is written");

    let sources = Sources { file: Some(file), ..Sources::default() };
    match load(&sources) {
        Ok(loaded) => assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_configuration_of_the_readme_is_accepted() {
    check(include_str!("../../README.md"));
}

#[test]
fn the_configuration_of_the_rules_page_is_accepted() {
    check(include_str!("../../docs/rules.md"));
}
