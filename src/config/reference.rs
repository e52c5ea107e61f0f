//! The configuration told to people: the page `docs/configuration.md` and the default file.

use std::fmt::Write;

use super::{Config, section::Setting};

const PAGE_HEAD: &str = "\
# Configuration

*Written by `sotto config reference` from the code; a test compares the two. Change the doc comments in `src/config/`, then run `just docs`.*

Sotto starts with no setting at all. Settings come from, each later one winning:

1. the defaults below,
2. the TOML file of `--config FILE` (`sotto config default` prints one to begin with),
3. the environment: `SOTTO_SECTION__KEY`, with two underscores wherever the key has a dot,
4. flags: `--listen`, `--data-dir`, and `--set KEY=VALUE` for everything else.

A variable is a setting only if its name contains `__`. `…__KEY_FILE` reads the value from the file it names, which is the way for secrets. \
Lists are arrays in the file and separated by commas in the environment. An empty value of a setting that has no default means unset. \
An unknown key, in the file or in the environment, is an error that names it. `sotto config check` tells what is wrong without starting anything.
";

/// The text of `docs/configuration.md`.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(PAGE_HEAD);
    for section in Config::default().sections() {
        let mut rows = String::new();
        for setting in section.settings() {
            let default = default_cell(&setting);
            let meaning = cell(&format!("{}{}", setting.about, takes(&setting)));
            rows.push_str(&format!("| `{}` | {default} | `{}` | {meaning} |\n", setting.key(), setting.variable()));
        }
        page.push_str(&format!("\n## `{}`\n\n{}\n\n", section.name(), section.about()));
        page.push_str("| key | default | variable | meaning |\n|---|---|---|---|\n");
        page.push_str(&rows);
    }
    page
}

/// A configuration file with every setting in it, each commented out and at its default.
#[must_use]
pub fn default_file() -> String {
    let mut file = String::from(
        "# Sotto's configuration. Every line that is commented out shows the default.\n\
         # Use it with `sotto serve --config FILE`; `sotto config check --config FILE` tells what is wrong.\n",
    );
    for section in Config::default().sections() {
        file.push('\n');
        wrap(&mut file, &section.about());
        file.push_str(&format!("[{}]\n", section.name()));
        for setting in section.settings() {
            wrap(&mut file, &format!("{}{}", setting.about, takes(&setting)));
            let value = setting.value.as_ref().or(setting.unset_value.as_ref());
            let line = match (value, setting.unset_means) {
                (Some(value), _) => format!("#{} = {value}\n", setting.name),
                (None, Some(words)) => format!("#{} = \"\"  # {words}\n", setting.name),
                (None, None) => format!("#{} = \"\"  # unset\n", setting.name),
            };
            file.push_str(&line);
        }
    }
    file
}

/// The settings that differ from the defaults, one `key = value` a line, secrets hidden.
#[must_use]
pub fn changed(config: &Config) -> String {
    let defaults = Config::default();
    let mut lines = String::new();
    for (section, default) in config.sections().into_iter().zip(defaults.sections()) {
        for (setting, untouched) in section.settings().into_iter().zip(default.settings()) {
            if setting.value != untouched.value {
                let value = setting.value.clone().unwrap_or_else(|| String::from("\"\""));
                lines.push_str(&format!("{} = {value}\n", setting.key()));
            }
        }
    }
    lines
}

fn default_cell(setting: &Setting) -> String {
    match (&setting.value, setting.unset_means) {
        (Some(value), _) => format!("`{}`", value.trim_matches('"')),
        (None, Some(words)) if setting.unset_value.is_some() => format!("`{words}`"),
        (None, Some(words)) => cell(words),
        (None, None) => String::from("none"),
    }
}

fn takes(setting: &Setting) -> String {
    match (setting.bounds, setting.kind) {
        (Some((low, high)), kind @ ("seconds" | "milliseconds")) => format!(" In {kind}, {low} to {high}."),
        (Some((low, high)), _) => format!(" From {low} to {high}."),
        (None, _) => String::new(),
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// Writes a comment in lines of at most about a hundred characters.
fn wrap(file: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.chars().count() + word.chars().count() > 100 {
            let _infallible = writeln!(file, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _infallible = writeln!(file, "{line}");
}
