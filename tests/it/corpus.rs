//! Every input that the fuzzer found worth keeping.

#[path = "../../fuzz/exposition_properties.rs"]
mod exposition_properties;

#[test]
fn the_fuzz_corpus_holds() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/exposition");
    let mut replayed = 0;
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let body = std::fs::read(entry.path()).unwrap();
        let held = std::panic::catch_unwind(|| exposition_properties::check(&body));
        assert!(held.is_ok(), "{}", entry.path().display());
        replayed += 1;
    }
    assert!(replayed > 0, "the corpus is missing");
}
