//! A whole run: scenario, target, span and message, as flags or a file tell them.

use serde::{Deserialize, Serialize};

use super::LoadError;
use super::scenario::{Drive, Long};
use super::settings::{Connect, Fanout, Idle, Message, Mix, Offline, Pairs, Rate, Soak, Span, Storm, Target};

/// What is done.
#[derive(Debug, Clone, PartialEq)]
pub enum Scenario {
    /// Closed loop.
    Pairs(Pairs),
    /// Open loop.
    Rate(Rate),
    /// Handshakes.
    Connect(Connect),
    /// Memory of connections.
    Idle(Idle),
    /// Groups.
    Fanout(Fanout),
    /// A backlog.
    Offline(Offline),
    /// All come back.
    Storm(Storm),
    /// A day of a messenger.
    Mix(Mix),
    /// The same for long.
    Soak(Long),
}

/// A whole run.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Whom.
    pub target: Target,
    /// What is measured; scenarios with an end of their own do not look at it.
    pub span: Span,
    /// What a message is; scenarios without messages do not look at it.
    pub message: Message,
    /// What is done.
    pub scenario: Scenario,
}

/// The TOML form: a table per group, and exactly one table of a scenario.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    target: Target,
    #[serde(skip_serializing_if = "Option::is_none")]
    span: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pairs: Option<Pairs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<Rate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect: Option<Connect>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle: Option<Idle>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fanout: Option<Fanout>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offline: Option<Offline>,
    #[serde(skip_serializing_if = "Option::is_none")]
    storm: Option<Storm>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mix: Option<Mix>,
    #[serde(skip_serializing_if = "Option::is_none")]
    soak: Option<Soak>,
}

impl Scenario {
    /// Its name on the command line, in TOML and in summaries.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pairs(_) => "pairs",
            Self::Rate(_) => "rate",
            Self::Connect(_) => "connect",
            Self::Idle(_) => "idle",
            Self::Fanout(_) => "fanout",
            Self::Offline(_) => "offline",
            Self::Storm(_) => "storm",
            Self::Mix(_) => "mix",
            Self::Soak(_) => "soak",
        }
    }

    /// How it is done.
    #[must_use]
    pub fn drive(&self) -> &dyn Drive {
        match self {
            Self::Pairs(pairs) => pairs,
            Self::Rate(rate) => rate,
            Self::Connect(connect) => connect,
            Self::Idle(idle) => idle,
            Self::Fanout(fanout) => fanout,
            Self::Offline(offline) => offline,
            Self::Storm(storm) => storm,
            Self::Mix(mix) => mix,
            Self::Soak(soak) => soak,
        }
    }
}

impl Plan {
    /// Reads the TOML form.
    ///
    /// # Errors
    /// When it is none, has unknown keys, not exactly one scenario, or a table that its scenario has no use for.
    pub fn from_toml(text: &str) -> Result<Self, LoadError> {
        let file: File = toml::from_str(text).map_err(|error| LoadError::Settings(error.to_string()))?;
        let File { target, span, message, pairs, rate, connect, idle, fanout, offline, storm, mix, soak } = file;
        let mut scenarios = pairs.map(Scenario::Pairs).into_iter().collect::<Vec<_>>();
        scenarios.extend(rate.map(Scenario::Rate));
        scenarios.extend(connect.map(Scenario::Connect));
        scenarios.extend(idle.map(Scenario::Idle));
        scenarios.extend(fanout.map(Scenario::Fanout));
        scenarios.extend(offline.map(Scenario::Offline));
        scenarios.extend(storm.map(Scenario::Storm));
        // A soak is a mix for long, and [mix] says of what.
        match (soak, mix) {
            (Some(soak), mix) => scenarios.push(Scenario::Soak(Long { soak, mix: mix.unwrap_or_default() })),
            (None, mix) => scenarios.extend(mix.map(Scenario::Mix)),
        }
        let (Some(scenario), true) = (scenarios.pop(), scenarios.is_empty()) else {
            let text = "exactly one table names the scenario, as [pairs] or [rate]";
            return Err(LoadError::Settings(text.to_owned()));
        };
        let drive = scenario.drive();
        for (is_there, is_used, table) in
            [(span.is_some(), drive.has_span(), "span"), (message.is_some(), drive.has_messages(), "message")]
        {
            if is_there && !is_used {
                return Err(LoadError::Settings(format!("[{table}] means nothing for [{}]", scenario.name())));
            }
        }
        Ok(Self { target, span: span.unwrap_or_default(), message: message.unwrap_or_default(), scenario })
    }

    fn file(&self) -> File {
        let drive = self.scenario.drive();
        let mut file = File {
            target: self.target.clone(),
            span: drive.has_span().then(|| self.span.clone()),
            message: drive.has_messages().then(|| self.message.clone()),
            ..File::default()
        };
        match self.scenario.clone() {
            Scenario::Pairs(pairs) => file.pairs = Some(pairs),
            Scenario::Rate(rate) => file.rate = Some(rate),
            Scenario::Connect(connect) => file.connect = Some(connect),
            Scenario::Idle(idle) => file.idle = Some(idle),
            Scenario::Fanout(fanout) => file.fanout = Some(fanout),
            Scenario::Offline(offline) => file.offline = Some(offline),
            Scenario::Storm(storm) => file.storm = Some(storm),
            Scenario::Mix(mix) => file.mix = Some(mix),
            Scenario::Soak(Long { soak, mix }) => (file.soak, file.mix) = (Some(soak), Some(mix)),
        }
        file
    }

    /// The TOML form, with every setting.
    ///
    /// # Errors
    /// Never for a plan that was read.
    pub fn to_toml(&self) -> Result<String, LoadError> {
        toml::to_string(&self.file()).map_err(|error| LoadError::Settings(error.to_string()))
    }

    /// The same as JSON, for a summary.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self.file()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_survives_its_toml_form() {
        let text =
            "[target]\nurl = [\"http://127.0.0.1:1\"]\nusers = \"u\"\n[span]\nseconds = 7\n[pairs]\nwindow = 3\n";
        let plan = Plan::from_toml(text).unwrap();
        assert_eq!(plan.span, Span { seconds: 7, ..Span::default() });
        assert_eq!(plan.scenario, Scenario::Pairs(Pairs { window: 3, ..Pairs::default() }));
        assert_eq!(Plan::from_toml(&plan.to_toml().unwrap()).unwrap(), plan);
    }

    #[test]
    fn what_means_nothing_is_refused_by_name() {
        let target = "[target]\nurl = [\"http://127.0.0.1:1\"]\n";
        for (text, word) in [
            ("[pairs]\nwindw = 3", "windw"),
            ("[pairs]\n[rate]", "exactly one"),
            ("", "exactly one"),
            ("[idle]\n[span]", "[span] means nothing for [idle]"),
            ("[pears]", "pears"),
        ] {
            let error = Plan::from_toml(&format!("{target}{text}")).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
