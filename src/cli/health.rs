//! `sotto health`: asks a running server, for containers and scripts.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use clap::Args;

use super::{CliError, Settings, out, runtime};

const PATIENCE: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "\
Examples:
  sotto health                                 asks the server that this configuration describes
  sotto health --url https://chat.example.org  asks that one

Exit code 0: the server takes requests (`ok` or `degraded`). 1: it does not, or nobody answers within 5 seconds.";

/// Ask a running server how it is.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Health {
    /// The server's address; without it, `http.listen` of the configuration.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    #[command(flatten)]
    settings: Settings,
}

impl Health {
    /// Asks, prints the answer, and fails unless it is good.
    ///
    /// # Errors
    /// When the server says it is down or does not answer.
    pub fn run(self) -> Result<(), CliError> {
        let base = match self.url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("http://{}", here(self.settings.load()?.http.listen)),
        };
        runtime::block_on(ask(&format!("{base}/health")))
    }
}

/// The address under which this machine reaches a listener: nobody can connect to `0.0.0.0`.
fn here(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn ask(url: &str) -> Result<(), CliError> {
    // Installed already is as good as installed now.
    let _already = rustls::crypto::ring::default_provider().install_default();
    let unreachable = |error: reqwest::Error| {
        CliError::failed(format!("no answer from {url}: {}", reason(&error))).hint("is the server running there?")
    };
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().map_err(unreachable)?;
    let answer = client.get(url).send().await.map_err(unreachable)?;
    let status = answer.status();
    let body = answer.text().await.map_err(unreachable)?;
    out::line(&body)?;
    if status.is_success() { Ok(()) } else { Err(CliError::failed(format!("{url} answered {status}"))) }
}

/// The innermost cause, which is the one that says something ("connection refused").
fn reason(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_asked_on_loopback() {
        let asked = |listen: &str| here(listen.parse().unwrap()).to_string();
        assert_eq!(asked("0.0.0.0:8080"), "127.0.0.1:8080");
        assert_eq!(asked("[::]:8080"), "[::1]:8080");
        assert_eq!(asked("10.0.0.7:80"), "10.0.0.7:80");
    }
}
