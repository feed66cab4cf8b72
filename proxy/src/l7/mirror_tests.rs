use super::*;

#[test]
fn the_suffix_goes_before_the_port() {
    assert_eq!(suffixed("a.b"), "a.b-shadow");
    assert_eq!(suffixed("a.b:81"), "a.b-shadow:81");
    assert_eq!(suffixed("[::1]:81"), "[::1]-shadow:81");
}
