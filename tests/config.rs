//! The configuration's behaviour: its sources and their order, what it refuses and in which words.

use std::{fs, path::Path};

use sotto::config::{self, Config, ConfigError, Secret, Section, Sources, Url, sms::Sender, value::Seconds};

fn from(file: Option<&str>, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let file = file.map(|text| {
        let path = folder.path().join("sotto.toml");
        fs::write(&path, text).unwrap();
        path
    });
    let owned = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, value)| (String::from(*name), String::from(*value))).collect::<Vec<_>>()
    };
    Config::load(&Sources { file, environment: owned(environment), flags: owned(flags) })
}

/// The only problem of a configuration that must be refused, with its hint.
fn refused(outcome: Result<Config, ConfigError>) -> (String, String) {
    let problems = outcome.unwrap_err().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    let problem = problems.into_iter().next().unwrap();
    (problem.text, problem.hint.unwrap_or_default())
}

#[test]
fn it_starts_with_no_setting() {
    let config = from(None, &[], &[]).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.store_url().expose(), "sqlite:data/sotto.db");
    assert_eq!(config.secret_key_file(), Path::new("data/secret.key"));
    assert_eq!(config.sms.sender, Sender::Log);
    assert_eq!(config.drain.timeout, Seconds(10));
    assert!(config.limits.enabled && !config.dev.insecure && config.http.worker_count() >= 1);
}

#[test]
fn each_source_wins_over_the_one_before() {
    let file = Some("[limits]\nmessages_per_minute = 1\nrequests_per_minute = 1\nconversations_per_hour = 1");
    let environment = [("SOTTO_LIMITS__REQUESTS_PER_MINUTE", "2"), ("SOTTO_LIMITS__CONVERSATIONS_PER_HOUR", "2")];
    let limits = from(file, &environment, &[("limits.conversations_per_hour", "3")]).unwrap().limits;
    let read = (limits.messages_per_minute, limits.requests_per_minute, limits.conversations_per_hour);
    assert_eq!(read, (1, 2, 3));
    assert_eq!(limits.key_claims, Config::default().limits.key_claims);
}

#[test]
fn files_of_the_node_follow_the_data_folder_until_they_are_named() {
    let moved = from(None, &[("SOTTO_DATA__DIR", "/var/lib/sotto")], &[]).unwrap();
    assert_eq!(moved.store_url().expose(), "sqlite:/var/lib/sotto/sotto.db");
    assert_eq!(moved.secret_key_file(), Path::new("/var/lib/sotto/secret.key"));
    assert_eq!(moved.outbox(), Path::new("/var/lib/sotto/outbox.jsonl"));
    let named = from(None, &[("SOTTO_DATA__DIR", "/x"), ("SOTTO_STORE__URL", "postgres://db/sotto")], &[]).unwrap();
    assert_eq!(named.store_url().expose(), "postgres://db/sotto");
}

#[test]
fn nested_sections_lists_and_empty_values_come_from_the_environment() {
    let config = from(
        None,
        &[
            ("SOTTO_SMS__TWILIO__ACCOUNT_SID", "AC1"),
            ("SOTTO_HTTP__ALLOWED_ORIGINS", "https://a.example, https://b.example"),
            ("SOTTO_HTTP__TRUSTED_PROXIES", "10.0.0.0/8"),
            ("SOTTO_DEV__INSECURE", "true"),
            ("SOTTO_CLUSTER__REDIS_URL", ""),
        ],
        &[],
    )
    .unwrap();
    assert_eq!(config.sms.twilio.account_sid.as_deref(), Some("AC1"));
    assert_eq!(config.http.allowed_origins.len(), 2);
    assert!(config.http.trusted_proxies[0].contains("10.1.2.3".parse().unwrap()));
    assert_eq!(config.cluster.redis_url, None);
}

#[test]
fn a_variable_is_a_setting_only_with_two_underscores() {
    let strangers = [("SOTTO_TEST_POSTGRES", "postgres://x"), ("SOTTO_HOME", "/"), ("OTHER__KEY", "1"), ("HOME", "/")];
    assert_eq!(from(None, &strangers, &[]).unwrap(), Config::default());
}

#[test]
fn a_secret_may_stand_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, "hunter2\n").unwrap();
    let path = path.to_str().unwrap();

    let config = from(None, &[("SOTTO_SMS__TWILIO__AUTH_TOKEN_FILE", path)], &[]).unwrap();
    assert_eq!(config.sms.twilio.auth_token, Some(Secret::new("hunter2")));

    let both = [("SOTTO_SMS__TWILIO__AUTH_TOKEN_FILE", path), ("SOTTO_SMS__TWILIO__AUTH_TOKEN", "x")];
    assert!(refused(from(None, &both, &[])).0.contains("set twice"));

    let absent = [("SOTTO_SMS__TWILIO__AUTH_TOKEN_FILE", "/does/not/exist")];
    let (text, _) = refused(from(None, &absent, &[]));
    assert!(text.contains("/does/not/exist") && text.contains("SOTTO_SMS__TWILIO__AUTH_TOKEN_FILE"), "{text}");

    // A key whose own name ends like this is itself and no file to read the value from.
    let key = from(None, &[("SOTTO_AUTH__SECRET_KEY_FILE", "/keys/sotto")], &[]).unwrap();
    assert_eq!(key.secret_key_file(), Path::new("/keys/sotto"));
}

#[test]
fn unknown_keys_are_named_wherever_they_stand() {
    let (text, hint) = refused(from(Some("[http]\nlissten = \"127.0.0.1:1\""), &[], &[]));
    assert!(text.contains("http.lissten") && text.contains("sotto.toml"), "{text}");
    assert!(hint.contains("http.listen"), "{hint}");

    let (text, hint) = refused(from(None, &[("SOTTO_STORE__URI", "sqlite:x")], &[]));
    assert!(text.contains("store.uri") && text.contains("SOTTO_STORE__URI"), "{text}");
    assert!(hint.contains("store.url"), "{hint}");

    let (text, hint) = refused(from(None, &[], &[("listen", "127.0.0.1:1")]));
    assert!(text.contains("unknown setting listen") && hint.contains("http.listen"), "{text} {hint}");

    let (text, _) = refused(from(Some("[htttp]\n"), &[], &[]));
    assert!(text.contains("[htttp]"), "{text}");

    let (text, _) = refused(from(Some("http = 3"), &[], &[]));
    assert!(text.contains("is a section"), "{text}");
}

#[test]
fn wrong_values_are_told_with_their_place_and_never_repeated() {
    let (text, _) = refused(from(None, &[("SOTTO_HTTP__LISTEN", "hunter2")], &[]));
    assert!(text.contains("SOTTO_HTTP__LISTEN") && text.contains("127.0.0.1:8080"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");

    for (file, word) in [
        ("[http]\nlisten = 8080", "as a string"),
        ("[http]\nworkers = 0", "between 1 and 512"),
        ("[http]\nworkers = -1", "negative"),
        ("[http]\nallowed_origins = \"https://a\"", "list"),
        ("[limits]\nenabled = \"no\"", "without quotes"),
        ("[drain]\ntimeout = 1.5", "seconds"),
        ("[log]\nformat = \"xml\"", "`json`"),
        ("[log]\nlevel = \"sotto=loudly\"", "log.level"),
        ("[http]\nlisten = ", "line 2"),
    ] {
        let (text, _) = refused(from(Some(file), &[], &[]));
        assert!(text.contains(word), "{file}: {text}");
    }
}

#[test]
fn everything_wrong_is_told_at_once() {
    let error = from(Some("[http]\nworkers = 0\n[nope]"), &[("SOTTO_A__B", "1")], &[("store.url", "x")]).unwrap_err();
    assert_eq!(error.problems.len(), 4, "{error}");
}

#[test]
fn a_configuration_file_must_exist() {
    let sources = Sources { file: Some("/does/not/exist.toml".into()), ..Sources::default() };
    let (text, hint) = refused(Config::load(&sources));
    assert!(text.contains("/does/not/exist.toml") && hint.contains("config default"), "{text} {hint}");
}

#[test]
fn the_database_must_be_one_that_is_spoken_here() {
    for (url, word) in [
        ("data/sotto.db", "sqlite:PATH"),
        ("sqlite::memory:", "sqlite:data"),
        ("sqlite:", "sqlite:data"),
        ("sqlite://data/sotto.db", "sqlite:data"),
        ("mysql://u:hunter2@db/x", "PostgreSQL"),
        ("postgres:db/x", "postgres://USER"),
    ] {
        let (text, hint) = refused(from(None, &[("SOTTO_STORE__URL", url)], &[]));
        assert!(hint.contains(word), "{url}: {text} {hint}");
        assert!(!text.contains("hunter2") && !hint.contains("hunter2"), "{text} {hint}");
    }
    for url in ["sqlite:x.db", "sqlite:///var/x.db", "postgres://db/x", "postgresql://u:p@db:5433/x"] {
        assert!(from(None, &[("SOTTO_STORE__URL", url)], &[]).is_ok(), "{url}");
    }
}

#[test]
fn a_cluster_needs_postgresql_and_a_redis_that_can_be_read() {
    let postgres = ("SOTTO_STORE__URL", "postgres://db/sotto");
    let redis = |url| ("SOTTO_CLUSTER__REDIS_URL", url);
    for good in ["redis://:hunter2@cache", "redis+sentinel://:hunter2@one:26379,two:26379/primary/0"] {
        assert!(from(None, &[postgres, redis(good)], &[]).is_ok(), "{good}");
    }
    let (text, _) = refused(from(None, &[redis("redis://:hunter2@cache")], &[]));
    assert!(text.contains("cannot share a SQLite file") && !text.contains("hunter2"), "{text}");
    for bad in ["rediss://:hunter2@cache", "redis+sentinel://:hunter2@one:26379", "cache:6379"] {
        let (text, _) = refused(from(None, &[postgres, redis(bad)], &[]));
        assert!(text.contains("cluster.redis_url is none of") && !text.contains("hunter2"), "{bad}: {text}");
    }
    assert!(from(None, &[("SOTTO_CLUSTER__NODE_ID", "node-1.eu_west")], &[]).is_ok());
    assert!(from(None, &[("SOTTO_CLUSTER__NODE_ID", "two words")], &[]).is_err());
}

#[test]
fn twilio_needs_its_credentials() {
    let (text, _) = refused(from(None, &[("SOTTO_SMS__SENDER", "twilio"), ("SOTTO_SMS__TWILIO__FROM", "MG1")], &[]));
    assert!(text.contains("sms.twilio.account_sid, sms.twilio.auth_token"), "{text}");
    assert!(!text.contains("sms.twilio.from"), "{text}");
}

#[test]
fn a_captcha_needs_its_service_over_tls() {
    let kind = ("SOTTO_CHALLENGE__KIND", "captcha");
    let (text, _) = refused(from(None, &[kind, ("SOTTO_CHALLENGE__CAPTCHA_SITE_KEY", "x")], &[]));
    assert!(text.contains("needs challenge.captcha_url, challenge.captcha_secret"), "{text}");
    assert!(!text.contains("challenge.captcha_site_key"), "{text}");
    let reachable = |url| {
        let variables = [
            ("SOTTO_HTTP__LISTEN", "0.0.0.0:8080"),
            ("SOTTO_SMS__SENDER", "twilio"),
            ("SOTTO_SMS__TWILIO__ACCOUNT_SID", "AC1"),
            ("SOTTO_SMS__TWILIO__AUTH_TOKEN", "hunter2"),
            ("SOTTO_SMS__TWILIO__FROM", "MG1"),
            ("SOTTO_CHALLENGE__CAPTCHA_URL", url),
        ];
        from(None, &variables, &[])
    };
    let (text, _) = refused(reachable("http://captcha.example/verify"));
    assert!(text.contains("challenge.captcha_url must begin with https://"), "{text}");
    reachable("https://captcha.example/verify").unwrap();
}

#[test]
fn what_is_for_development_stays_on_loopback() {
    let reachable = "0.0.0.0:8080";
    let twilio = |config: &mut Config| {
        config.sms.sender = Sender::Twilio;
        config.sms.twilio.account_sid = Some(String::from("AC1"));
        config.sms.twilio.auth_token = Some(Secret::new("hunter2"));
        config.sms.twilio.from = Some(String::from("MG1"));
    };
    type Change = fn(&mut Config);
    let cases: [(&str, Change); 4] = [
        ("sms.sender = \"log\"", |config| config.sms.sender = Sender::Log),
        ("sms.sender = \"outbox\"", |config| config.sms.sender = Sender::Outbox),
        ("limits.enabled = false", |config| config.limits.enabled = false),
        ("dev.echo", |config| config.dev.echo = true),
    ];
    for (word, change) in cases {
        for (listen, insecure, allowed) in
            [(reachable, false, false), (reachable, true, true), ("127.0.0.1:0", false, true), ("[::1]:0", false, true)]
        {
            let mut config = Config::default();
            twilio(&mut config);
            change(&mut config);
            config.http.listen = listen.parse().unwrap();
            config.dev.insecure = insecure;
            assert_eq!(config.allows_development(), allowed);
            match config.validate() {
                Ok(()) => assert!(allowed, "{word} on {listen}"),
                Err(error) => {
                    assert!(!allowed, "{error}");
                    let problem = &error.problems[0];
                    assert!(problem.text.contains(word) && problem.text.contains(reachable), "{}", problem.text);
                    assert!(problem.hint.as_ref().unwrap().contains("dev.insecure"));
                }
            }
        }
    }
    let mut real = Config::default();
    twilio(&mut real);
    real.http.listen = reachable.parse().unwrap();
    assert!(real.validate().is_ok() && real.banner().is_none());
}

#[test]
fn secrets_are_not_in_anything_that_is_printed() {
    let mut config = Config::default();
    config.sms.twilio.auth_token = Some(Secret::new("hunter2"));
    config.store.url = Some(Url::new("postgres://sotto:hunter2@db/sotto"));
    let printed = format!("{config:?} {config:#?} {}", config::changed(&config));
    assert!(!printed.contains("hunter2"), "{printed}");
    assert!(printed.contains("postgres://sotto:***@db/sotto"), "{printed}");
}

#[test]
fn only_what_was_changed_is_shown() {
    assert_eq!(config::changed(&Config::default()), "");
    let config = from(None, &[], &[("log.level", "debug"), ("http.workers", "2")]).unwrap();
    assert_eq!(config::changed(&config), "http.workers = 2\nlog.level = \"debug\"\n");
}

#[test]
fn the_default_file_says_the_defaults() {
    let file = config::default_file();
    assert_eq!(from(Some(&file), &[], &[]).unwrap(), Config::default());
    let is_setting = |line: &&str| line.starts_with('#') && line.contains(" = ") && !line.starts_with("# ");
    let settings = file.lines().filter(is_setting).count();
    assert_eq!(settings, Config::default().sections().into_iter().flat_map(Section::settings).count());

    let uncommented: String = file
        .lines()
        .map(|line| if is_setting(&line) { line.trim_start_matches('#') } else { line })
        .flat_map(|line| [line, "\n"])
        .collect();
    let config = from(Some(&uncommented), &[], &[]).unwrap();
    assert_eq!(config.store_url(), Config::default().store_url());
    assert_eq!(config.secret_key_file(), Config::default().secret_key_file());
    assert_eq!(config.limits, Config::default().limits);
}

#[test]
fn every_setting_documents_the_variable_that_sets_it() {
    for section in Config::default().sections() {
        for setting in section.settings() {
            assert_eq!(setting.documented_variable, Some(setting.variable()), "{}", setting.key());
            assert!(setting.about.ends_with('.'), "{}: a meaning is a sentence", setting.key());
        }
    }
}

#[test]
fn the_documentation_says_what_the_code_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let page = fs::read_to_string(path).unwrap_or_default();
    assert!(page.trim_end() == config::reference().trim_end(), "docs/configuration.md is out of date; run `just docs`");
}
