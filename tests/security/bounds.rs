//! The table of bounds in `docs/security.md` against the settings: each bound that can be set has a row with its default.

use std::path::Path;

/// Settings beside those of `limits` that bound what a stranger can cause.
const OTHERS: [&str; 7] = [
    "http.max_connections_per_network",
    "http.max_sockets",
    "http.max_sockets_per_user",
    "http.open_bodies",
    "http.write_timeout",
    "auth.second_factor_undo_hours",
    "sms.budget_per_hour",
];
/// Settings of `limits` that bound nothing by themselves.
const NO_BOUNDS: [&str; 3] = ["limits.enabled", "limits.failed_sign_in_window", "limits.key_claim_interval"];

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// A number as people write it: `1000` is `1,000`, and whole MiB or KiB are told as those.
fn spellings(default: &str) -> Vec<String> {
    let Ok(number) = default.parse::<u64>() else { return vec![default.to_owned()] };
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    let mut all = vec![groups.join(",")];
    for (unit, bytes) in [("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if number > 0 && number % bytes == 0 {
            all.push(format!("{} {unit}", number / bytes));
        }
    }
    all
}

#[test]
fn each_bound_that_can_be_set_stands_in_the_table_with_its_default() {
    let security = read("docs/security.md");
    let (_, rest) = security.split_once("## Bounds\n").expect("the section on bounds");
    let (section, _) = rest.split_once("\n## ").expect("a section behind it");
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ")).collect();
    let mut missing = Vec::new();
    let configuration = read("docs/configuration.md");
    let mut bounds = 0;
    for line in configuration.lines() {
        let cells: Vec<&str> = line.split(" | ").map(|cell| cell.trim_matches([' ', '|', '`'])).collect();
        let [name, default, ..] = cells.as_slice() else { continue };
        let counts = (name.starts_with("limits.") && !NO_BOUNDS.contains(name)) || OTHERS.contains(name);
        if !counts {
            continue;
        }
        bounds += 1;
        let row = rows.iter().find(|row| row.contains(&format!("`{name}`")));
        let is_told = row.is_some_and(|row| {
            let words: Vec<&str> = row.split([' ', ';', '(']).map(|word| word.trim_end_matches([',', '.'])).collect();
            spellings(default).iter().any(|number| {
                let number: Vec<&str> = number.split(' ').collect();
                words.windows(number.len()).any(|window| window == number)
            })
        });
        if !is_told {
            missing.push(format!("{name} = {default}"));
        }
    }
    assert!(bounds > 20, "the reference of settings could not be read");
    assert!(missing.is_empty(), "no row with this default in docs/security.md, ## Bounds:\n  {}", missing.join("\n  "));
}
