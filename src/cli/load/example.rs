//! `sotto load example`: a TOML file for a scenario, with every setting and its meaning.

use clap::{Args, Command};
use sotto_harness::load::settings::{
    Connect, Fanout, Idle, Message, Mix, Offline, Pairs, Rate, Soak, Span, Storm, Target,
};
use sotto_harness::load::{Long, Plan, Scenario};

use crate::cli::{CliError, out};

/// Print a TOML file for a scenario, with every setting and its meaning.
#[derive(Debug, Args)]
pub struct Example {
    /// Which one.
    #[arg(value_name = "SCENARIO", value_parser = ["pairs", "rate", "connect", "idle", "fanout", "offline", "storm", "mix", "soak"])]
    scenario: String,
}

impl Example {
    /// Prints it.
    ///
    /// # Errors
    /// When it cannot be printed.
    pub fn run(self) -> Result<(), CliError> {
        out::line(example(&self.scenario)?)
    }
}

/// The file: the scenario's defaults, each setting below the words of its flag.
fn example(name: &str) -> Result<String, CliError> {
    let scenario = match name {
        "rate" => Scenario::Rate(Rate::default()),
        "connect" => Scenario::Connect(Connect::default()),
        "idle" => Scenario::Idle(Idle::default()),
        "fanout" => Scenario::Fanout(Fanout::default()),
        "offline" => Scenario::Offline(Offline::default()),
        "storm" => Scenario::Storm(Storm::default()),
        "mix" => Scenario::Mix(Mix::default()),
        "soak" => Scenario::Soak(Long { soak: Soak::default(), mix: Mix::default() }),
        _ => Scenario::Pairs(Pairs::default()),
    };
    let target = Target {
        url: vec!["http://127.0.0.1:8080".to_owned()],
        users: Some("users.jsonl".into()),
        ..Target::default()
    };
    let plan = Plan { target, span: Span::default(), message: Message::default(), scenario };
    let text = plan.to_toml().map_err(CliError::failed)?;
    let mut lines = vec![format!("# sotto load run FILE: the scenario {name}. What is left out has the value shown.")];
    let mut words = Vec::new();
    for line in text.lines() {
        if let Some(table) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            words = flags(table);
        } else if let Some((key, _)) = line.split_once(" = ")
            && let Some((_, help)) = words.iter().find(|(name, _)| name == key)
        {
            lines.extend(help.lines().map(|line| format!("# {line}")));
        }
        lines.push(line.to_owned());
    }
    Ok(lines.join("\n"))
}

/// The settings of a table with the words of their flags.
fn flags(table: &str) -> Vec<(String, String)> {
    let command = Command::new("example");
    let command = match table {
        "target" => Target::augment_args(command),
        "span" => Span::augment_args(command),
        "message" => Message::augment_args(command),
        "pairs" => Pairs::augment_args(command),
        "rate" => Rate::augment_args(command),
        "connect" => Connect::augment_args(command),
        "idle" => Idle::augment_args(command),
        "fanout" => Fanout::augment_args(command),
        "offline" => Offline::augment_args(command),
        "storm" => Storm::augment_args(command),
        "mix" => Mix::augment_args(command),
        "soak" => Soak::augment_args(command),
        _ => command,
    };
    let help = |argument: &clap::Arg| argument.get_help().map(ToString::to_string).unwrap_or_default();
    command.get_arguments().map(|argument| (argument.get_id().to_string(), help(argument))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_read_again_and_every_setting_has_its_meaning() {
        for name in ["pairs", "rate", "connect", "idle", "fanout", "offline", "storm", "mix", "soak"] {
            let text = example(name).unwrap();
            let plan = Plan::from_toml(&text).unwrap();
            assert_eq!(plan.scenario.name(), name);
            let lines: Vec<_> = text.lines().collect();
            for (place, line) in lines.iter().enumerate().filter(|(_, line)| line.contains(" = ")) {
                assert!(lines[place - 1].starts_with("# "), "{name}: `{line}` has no meaning");
            }
        }
    }
}
