//! The case files of this package, `tests/cases/*.md`: sessions in Markdown, each run in a machine of its own.

#[test]
fn cases() {
    for case in quicksand::__private::case_files(env!("CARGO_MANIFEST_DIR")).unwrap() {
        case.run();
    }
}
