use super::Owned;
use crate::backend::Dump;
use crate::plan::tests::rules;
use crate::plan::{Family, Table};

const FOREIGN: &str = "*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:DOCKER_OUTPUT - [0:0]\n\
    -A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT\n-A DOCKER_OUTPUT -p udp -j DNAT --to-destination 127.0.0.11:4\nCOMMIT\n";

fn nat(text: &str) -> Owned {
    Owned::found(Dump::parse(text).table("nat"))
}

fn planned() -> Owned {
    Owned::planned(&rules(&[]), Family::V4, Table::Nat, false)
}

#[test]
fn a_fresh_install_names_nothing_foreign_and_then_is_done() {
    let text = nat(FOREIGN).transition(&planned(), Table::Nat).unwrap();
    assert!(!text.contains("DOCKER") && !text.contains("-D ") && !text.contains("-X ") && !text.contains("-F "));
    assert!(text.contains("-A OUTPUT -p tcp -j OUTRIGGER_OUTPUT\n") && text.ends_with("COMMIT\n"));
    // The text is in the language of iptables-save: read back, nothing is left to do.
    let saved = format!("*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n{}", text.trim_start_matches("*nat\n"));
    assert_eq!(nat(&saved).transition(&planned(), Table::Nat), None);
    assert_eq!(nat(&saved).differences(&planned()), Vec::<String>::new());
}

#[test]
fn other_spellings_of_the_same_rules_are_equal() {
    let text = nat("*nat\nCOMMIT\n").transition(&planned(), Table::Nat).unwrap();
    let old_version = format!("*nat\n:PREROUTING ACCEPT\n:OUTPUT ACCEPT\n{}", text.trim_start_matches("*nat\n"))
        .replace("-o lo -p tcp -m multiport", "-p tcp -o lo -m tcp -m multiport")
        .replace("127.0.0.6/32", "127.0.0.6");
    assert_ne!(old_version, text);
    assert_eq!(nat(&old_version).transition(&planned(), Table::Nat), None);
}

#[test]
fn a_damaged_rule_is_named_and_repaired_in_place() {
    let text = nat("*nat\nCOMMIT\n").transition(&planned(), Table::Nat).unwrap();
    let saved = format!("*nat\n:PREROUTING ACCEPT\n:OUTPUT ACCEPT\n{}", text.trim_start_matches("*nat\n"));
    let damaged = saved.replace("-A OUTRIGGER_OUTPUT -m owner --uid-owner 1337 -j RETURN\n", "");
    let found = nat(&damaged).differences(&planned());
    assert_eq!(found, ["missing: -A OUTRIGGER_OUTPUT -m owner --uid-owner 1337 -j RETURN"]);
    let repair = nat(&damaged).transition(&planned(), Table::Nat).unwrap();
    // The ways in stay where they are, so the order among foreign rules does not change.
    assert!(!repair.contains("-D ") && !repair.contains("-A OUTPUT "));
    let doubled = format!("{}-A OUTPUT -p tcp -j OUTRIGGER_OUTPUT\nCOMMIT\n", saved.trim_end_matches("COMMIT\n"));
    assert!(nat(&doubled).differences(&planned())[0].starts_with("2 times"));
    assert_eq!(nat(&doubled).transition(&planned(), Table::Nat).unwrap().matches("-D OUTPUT").count(), 2);
}

#[test]
fn removal_and_return_are_exact() {
    let before = "*nat\n:OUTPUT ACCEPT\n:OUTRIGGER_OUTPUT -\n:OUTRIGGER_TABLE -\n-A OUTPUT -p udp -j ACCEPT\n\
        -A OUTPUT -p tcp -j OUTRIGGER_OUTPUT\n-A OUTPUT -p icmp -j ACCEPT\n-A OUTRIGGER_OUTPUT -j RETURN\nCOMMIT\n";
    let removal = nat(before).transition(&Owned::default(), Table::Nat).unwrap();
    assert_eq!(
        removal,
        "*nat\n-D OUTPUT -p tcp -j OUTRIGGER_OUTPUT\n-F OUTRIGGER_OUTPUT\n-X OUTRIGGER_OUTPUT\n\
         -X OUTRIGGER_TABLE\nCOMMIT\n"
    );
    let back = Owned::default().transition(&nat(before), Table::Nat).unwrap();
    assert!(back.contains("-I OUTPUT 2 -p tcp -j OUTRIGGER_OUTPUT\n") && back.contains(":OUTRIGGER_TABLE"));
    assert_eq!(nat(FOREIGN).transition(&Owned::default(), Table::Nat), None);
}

#[test]
fn tables_without_rules_of_ours_are_left_alone() {
    let unused = Owned::planned(&rules(&[]), Family::V4, Table::Mangle, true);
    assert_eq!(Owned::default().transition(&unused, Table::Mangle), None);
    let used = Owned::planned(&rules(&["--drop-invalid"]), Family::V4, Table::Mangle, true);
    let text = Owned::default().transition(&used, Table::Mangle).unwrap();
    assert!(text.contains(":OUTRIGGER_TABLE") && text.contains("--ctstate INVALID -j DROP"));
}
