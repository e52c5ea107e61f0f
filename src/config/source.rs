//! Where settings come from: a file, the environment, flags. Each later one wins.

use std::{fs, path::PathBuf};

use super::{Config, error::Problem, section::variable_of, value::Raw};

/// What is read over the defaults.
///
/// The environment is a plain list, so that tests bring their own.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The TOML file of `--config`.
    pub file: Option<PathBuf>,
    /// Environment variables by name and value; see [`super::environment`].
    pub environment: Vec<(String, String)>,
    /// Keys and values of the command line.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// Reads every source into `config`, in order, and returns what could not be read.
    pub(super) fn read_into(&self, config: &mut Config) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.read_file(config, &mut problems);
        self.read_environment(config, &mut problems);
        for (key, value) in &self.flags {
            assign(config, key, &Raw::Text(value), "the command line", &mut problems);
        }
        problems
    }

    fn read_file(&self, config: &mut Config, problems: &mut Vec<Problem>) {
        let Some(path) = &self.file else { return };
        let place = path.display().to_string();
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let problem = Problem::new(format!("cannot read the configuration file {place}: {error}"));
                problems.push(problem.hint("`sotto config default > sotto.toml` writes one to begin with"));
                return;
            }
        };
        match text.parse::<toml::Table>() {
            Ok(table) => read_table(config, "", &table, &place, problems),
            // The message alone: the parser's full report quotes the line, and that may hold a password.
            Err(error) => {
                let line = error.span().map(|span| text.bytes().take(span.start).filter(|byte| *byte == b'\n').count());
                let at = line.map_or_else(String::new, |line| format!(" line {}", line.saturating_add(1)));
                problems.push(Problem::new(format!("{place}{at} is not TOML: {}", error.message())));
            }
        }
    }

    fn read_environment(&self, config: &mut Config, problems: &mut Vec<Problem>) {
        for (variable, value) in &self.environment {
            let Some(name) = variable.strip_prefix("SOTTO_").filter(|name| name.contains("__")) else { continue };
            let key = name.replace("__", ".").to_ascii_lowercase();
            // `auth.secret_key_file` is a key of its own, so the exact name goes first.
            let key_of_file = key.strip_suffix("_file").filter(|stem| !config.has(&key) && config.has(stem));
            match key_of_file {
                None => assign(config, &key, &Raw::Text(value), variable, problems),
                Some(stem) if self.environment.iter().any(|(other, _)| *other == variable_of(stem)) => {
                    let text = format!("{stem} is set twice, by {} and by {variable}", variable_of(stem));
                    problems.push(Problem::new(text).hint("keep one of them"));
                }
                Some(stem) => match fs::read_to_string(value) {
                    Ok(text) => assign(config, stem, &Raw::Text(text.trim_end()), variable, problems),
                    Err(error) => {
                        problems.push(Problem::new(format!("cannot read {value}, which {variable} names: {error}")));
                    }
                },
            }
        }
    }
}

fn read_table(config: &mut Config, prefix: &str, table: &toml::Table, place: &str, problems: &mut Vec<Problem>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(inner) if config.has_section(&key) => read_table(config, &key, inner, place, problems),
            toml::Value::Table(_) if !config.has(&key) => {
                problems.push(unknown(config, &key, &format!("unknown section [{key}] in {place}")));
            }
            _ if config.has_section(&key) => {
                let text = format!("{key} in {place} is a section, not a setting");
                problems.push(Problem::new(text).hint(format!("begin it with [{key}]")));
            }
            value => assign(config, &key, &Raw::Toml(value), place, problems),
        }
    }
}

fn assign(config: &mut Config, key: &str, raw: &Raw<'_>, place: &str, problems: &mut Vec<Problem>) {
    if !config.has(key) {
        problems.push(unknown(config, key, &format!("unknown setting {key} in {place}")));
        return;
    }
    let outcome = match key.rsplit_once('.').and_then(|(section, name)| Some((config.section_mut(section)?, name))) {
        Some((section, name)) => section.set(name, raw),
        None => Err(String::from("is not a setting")),
    };
    if let Err(reason) = outcome {
        problems.push(Problem::new(format!("{key} in {place} {reason}")));
    }
}

fn unknown(config: &Config, key: &str, text: &str) -> Problem {
    let problem = Problem::new(text);
    match nearest(config, key) {
        Some(near) => problem.hint(format!("did you mean {near} ({})?", variable_of(&near))),
        None => problem.hint("`sotto config default` lists every setting"),
    }
}

/// The setting that a mistyped key most likely meant: nearly the same key, or the same name in another section.
fn nearest(config: &Config, key: &str) -> Option<String> {
    let name = key.rsplit('.').next().unwrap_or(key);
    let likeness = |known: &str| {
        let whole = strsim::jaro_winkler(key, known);
        let same_name = known.rsplit('.').next() == Some(name);
        if same_name { whole.max(0.95) } else { whole }
    };
    config
        .keys()
        .into_iter()
        .map(|known| (likeness(&known), known))
        .filter(|(likeness, _)| *likeness > 0.82)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, known)| known)
}
