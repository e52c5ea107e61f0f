//! What makes a configuration as a whole right or wrong, after each value was right by itself.

use sotto_actors::redis::Redis;

use super::{Config, challenge::Kind, error::Problem, sms::Sender, url::Url};

/// Most characters of `auth.totp_issuer`: more would not fit into a QR code that is easy to read.
const MOST_ISSUER: usize = 50;

const HOW_TO_GO_ON: &str = "use a real sender or setting, or listen on 127.0.0.1 without trusted proxies, or set dev.insecure = true if nobody else can reach this server";

/// Every rule in turn; none stops the others, so that one start tells everything.
pub(super) fn check(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    store(config, &mut problems);
    cluster(config, &mut problems);
    sms(config, &mut problems);
    auth(config, &mut problems);
    challenge(config, &mut problems);
    only_for_development(config, &mut problems);
    listeners(config, &mut problems);
    log(config, &mut problems);
    problems
}

fn store(config: &Config, problems: &mut Vec<Problem>) {
    let Some(url) = &config.store.url else { return };
    match url.scheme() {
        Some("sqlite") => {
            let path = url.expose().trim_start_matches("sqlite:");
            if path.starts_with("//") && !path.starts_with("///") {
                // Others read it as a relative path, the file system as an absolute one.
                let text = "store.url has two slashes after `sqlite:`, which could mean two different files";
                problems.push(Problem::new(text).hint("write sqlite:data/sotto.db or sqlite:/var/lib/sotto/sotto.db"));
            } else if path.is_empty() || path.starts_with(":memory:") {
                let text = "store.url must name a file: in memory each connection would have a database of its own";
                problems.push(Problem::new(text).hint("write sqlite:data/sotto.db"));
            }
        }
        Some("postgres" | "postgresql") if url.expose().contains("://") => {}
        Some("postgres" | "postgresql") => {
            problems.push(Problem::new("store.url lacks `//`").hint("write postgres://USER:PASSWORD@HOST/NAME"));
        }
        Some("mysql" | "mariadb" | "mssql" | "mongodb") => {
            let text = format!("store.url names a database that Sotto does not speak: {url}");
            problems.push(Problem::new(text).hint("PostgreSQL (postgres://…) and SQLite (sqlite:…) work"));
        }
        _ => {
            let text = "store.url must begin with `sqlite:` or `postgres://`";
            problems.push(Problem::new(text).hint("for a file write sqlite:PATH, as sqlite:data/sotto.db"));
        }
    }
}

fn auth(config: &Config, problems: &mut Vec<Problem>) {
    let issuer = &config.auth.totp_issuer;
    if issuer.chars().count() > MOST_ISSUER || issuer.chars().any(char::is_control) {
        let text =
            format!("auth.totp_issuer must have at most {MOST_ISSUER} characters, none of them a control character");
        problems.push(Problem::new(text).hint("apps show it beside the code: the name of the service is enough"));
    }
}

fn cluster(config: &Config, problems: &mut Vec<Problem>) {
    if let Some(url) = &config.cluster.redis_url {
        if let Err(error) = Redis::is_readable(url.expose()) {
            problems.push(Problem::new(error.to_string()).hint("for one server write redis://127.0.0.1:6379"));
        }
        if !matches!(config.store_url().scheme(), Some("postgres" | "postgresql")) {
            let text = "cluster.redis_url is set, but several nodes cannot share a SQLite file";
            problems.push(Problem::new(text).hint("set store.url to a PostgreSQL database, or leave Redis out"));
        }
    }
    if let Some(name) = &config.cluster.node_id {
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if !plain || name.len() > 64 {
            problems.push(Problem::new("cluster.node_id takes letters, digits, `-`, `_` and `.`, at most 64"));
        }
    }
}

fn sms(config: &Config, problems: &mut Vec<Problem>) {
    let twilio = &config.sms.twilio;
    if config.sms.sender == Sender::Twilio {
        let missing: Vec<&str> = [
            ("sms.twilio.account_sid", twilio.account_sid.is_none()),
            ("sms.twilio.auth_token", twilio.auth_token.is_none()),
            ("sms.twilio.from", twilio.from.is_none()),
        ]
        .into_iter()
        .filter_map(|(key, is_missing)| is_missing.then_some(key))
        .collect();
        if !missing.is_empty() {
            let text = format!("sms.sender is twilio, which also needs {}", missing.join(", "));
            let hint = "the token best comes from a file, by SOTTO_SMS__TWILIO__AUTH_TOKEN_FILE";
            problems.push(Problem::new(text).hint(hint));
        }
    }
    let is_web = |url: &Url| url.expose().starts_with("https://") || url.expose().starts_with("http://");
    if !is_web(&twilio.base_url) {
        problems.push(Problem::new("sms.twilio.base_url must begin with https:// (or http://, for a test)"));
    }
}

fn challenge(config: &Config, problems: &mut Vec<Problem>) {
    let challenge = &config.challenge;
    if challenge.kind == Kind::Captcha {
        let missing: Vec<&str> = [
            ("challenge.captcha_url", challenge.captcha_url.is_none()),
            ("challenge.captcha_secret", challenge.captcha_secret.is_none()),
            ("challenge.captcha_site_key", challenge.captcha_site_key.is_none()),
        ]
        .into_iter()
        .filter_map(|(key, is_missing)| is_missing.then_some(key))
        .collect();
        if !missing.is_empty() {
            let text = format!("challenge.kind is captcha, which also needs {}", missing.join(", "));
            let hint = "the secret best comes from a file, by SOTTO_CHALLENGE__CAPTCHA_SECRET_FILE";
            problems.push(Problem::new(text).hint(hint));
        }
    }
    if let Some(url) = &challenge.captcha_url {
        let text = url.expose();
        let may_be_plain = config.allows_development() && text.starts_with("http://");
        if !text.starts_with("https://") && !may_be_plain {
            problems.push(Problem::new("challenge.captcha_url must begin with https://: the secret is sent there"));
        }
    }
}

fn only_for_development(config: &Config, problems: &mut Vec<Problem>) {
    if config.allows_development() {
        return;
    }
    let through = if config.http.trusted_proxies.is_empty() { "" } else { " through http.trusted_proxies" };
    let mut refuse = |what: &str| {
        let text = format!("{what} while others can reach http.listen = {}{through}", config.http.listen);
        problems.push(Problem::new(text).hint(HOW_TO_GO_ON));
    };
    match config.sms.sender {
        Sender::Log => refuse("sms.sender = \"log\" would write sign-in codes to the log"),
        Sender::Outbox => refuse("sms.sender = \"outbox\" would write sign-in codes to a file"),
        Sender::Twilio => {}
    }
    if !config.limits.enabled {
        refuse("limits.enabled = false would let anybody try without end");
    }
    if config.dev.echo {
        refuse("dev.echo would answer anybody");
    }
}

fn listeners(config: &Config, problems: &mut Vec<Problem>) {
    let listen = config.http.listen;
    if cfg!(feature = "planted-bugs") && !config.http.is_private() {
        problems.push(Problem::new("this program has planted bugs and listens on loopback only"));
    }
    if listen.port() != 0 && config.http.admin_listen == Some(listen) {
        let text = format!("http.listen and http.admin_listen are both {listen}");
        problems.push(Problem::new(text).hint("give the operator's pages a port of their own, as 127.0.0.1:9090"));
    }
}

fn log(config: &Config, problems: &mut Vec<Problem>) {
    if let Err(error) = crate::telemetry::filter(&config.log.level) {
        let text = format!("log.level is not a level or filter: {error}");
        problems.push(Problem::new(text).hint("use error, warn, info, debug or trace, or info,sotto_actors=debug"));
    }
}
