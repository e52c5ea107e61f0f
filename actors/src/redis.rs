//! Connections to Redis: one server, or the one that Sentinels name.
//!
//! Redis only hastens, so nothing waits long for it: a command that fails closes the way for a moment, in which
//! everybody is refused at once and goes on without.

use bb8::ManageConnection;
use bb8_redis::{RedisConnectionManager, bb8};
use redis::aio::{MultiplexedConnection, PubSub};
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{Client, ErrorKind, IntoConnectionInfo, RedisConnectionInfo, RedisError, RedisResult};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Connections for commands; each carries many at once.
const CONNECTIONS: u32 = 4;
/// Longest wait for a connection and an answer together.
const PATIENCE: Duration = Duration::from_millis(800);
/// After a failure nobody tries again for so long.
const REST: Duration = Duration::from_millis(500);

/// Why a setting of Redis cannot be used. No text repeats the URL: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisSetting {
    /// Not one of the two forms.
    #[error(
        "cluster.redis_url is none of redis://[USER:PASSWORD@]HOST:PORT/DB and redis+sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT/NAME/DB: {0}"
    )]
    Form(String),
    /// A server in cluster mode answers there.
    #[error("cluster.redis_url names a Redis Cluster, which is not supported yet: use one server, or Sentinels")]
    Cluster,
}

/// Redis did not do it; whoever asked goes on without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Redis does not answer")]
pub struct Away;

enum Source {
    One { client: Client, manager: RedisConnectionManager },
    Sentinels(tokio::sync::Mutex<SentinelClient>),
}

impl Source {
    async fn client(&self) -> RedisResult<Client> {
        match self {
            Self::One { client, .. } => Ok(client.clone()),
            Self::Sentinels(sentinels) => sentinels.lock().await.async_get_client().await,
        }
    }
}

/// Makes connections for the pool.
struct Manager(Arc<Source>);

/// A pooled connection, and whether it may be used again.
struct Link {
    connection: MultiplexedConnection,
    is_broken: bool,
}

impl ManageConnection for Manager {
    type Connection = Link;
    type Error = RedisError;

    async fn connect(&self) -> Result<Link, RedisError> {
        let mut connection = match &*self.0 {
            Source::One { manager, .. } => manager.connect().await?,
            Source::Sentinels(_) => self.0.client().await?.get_multiplexed_async_connection().await?,
        };
        if is_cluster(&mut connection).await? {
            return Err(RedisError::from((ErrorKind::InvalidClientConfig, "the server is part of a Redis Cluster")));
        }
        Ok(Link { connection, is_broken: false })
    }

    async fn is_valid(&self, _: &mut Link) -> Result<(), RedisError> {
        Ok(())
    }

    fn has_broken(&self, link: &mut Link) -> bool {
        link.is_broken
    }
}

async fn is_cluster(connection: &mut MultiplexedConnection) -> RedisResult<bool> {
    let info: String = redis::cmd("INFO").arg("cluster").query_async(connection).await?;
    Ok(info.lines().any(|line| line.trim() == "cluster_enabled:1"))
}

/// The way to Redis. Cheap to clone.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    source: Arc<Source>,
    pool: bb8::Pool<Manager>,
    /// Until when nobody tries.
    resting: Mutex<Option<Instant>>,
    answers: AtomicBool,
}

impl fmt::Debug for Redis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Redis(answers: {})", self.answers())
    }
}

impl Redis {
    /// Reads `redis://…` or `redis+sentinel://…`; connects when it is first needed.
    ///
    /// # Errors
    /// The URL is of another form.
    pub fn open(url: &str) -> Result<Self, RedisSetting> {
        let source = Arc::new(source(url)?);
        let pool = bb8::Pool::builder()
            .max_size(CONNECTIONS)
            .connection_timeout(PATIENCE)
            .test_on_check_out(false)
            .build_unchecked(Manager(Arc::clone(&source)));
        Ok(Self(Arc::new(Inner { source, pool, resting: Mutex::new(None), answers: AtomicBool::new(false) })))
    }

    /// Whether a URL could be opened; nothing is connected.
    ///
    /// # Errors
    /// The URL is of another form.
    pub fn is_readable(url: &str) -> Result<(), RedisSetting> {
        source(url).map(drop)
    }

    /// Looks whether a server of a kind that cannot be used answers. One that does not answer at all is no error:
    /// the node works without.
    ///
    /// # Errors
    /// [`RedisSetting::Cluster`].
    pub async fn check(&self) -> Result<(), RedisSetting> {
        let look = async {
            let client = self.0.source.client().await?;
            let mut connection = client.get_multiplexed_async_connection().await?;
            is_cluster(&mut connection).await
        };
        match tokio::time::timeout(Duration::from_secs(2), look).await {
            Ok(Ok(true)) => Err(RedisSetting::Cluster),
            Ok(Ok(false)) => {
                self.0.answers.store(true, Ordering::Relaxed);
                Ok(())
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "Redis does not answer; the node works without and goes on trying");
                Ok(())
            }
            Err(_) => {
                tracing::warn!("Redis does not answer in time; the node works without and goes on trying");
                Ok(())
            }
        }
    }

    /// Whether the last command was answered.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.0.answers.load(Ordering::Relaxed)
    }

    /// Runs commands on one connection, at most for 0.8 s.
    ///
    /// # Errors
    /// Redis failed, or has failed just now. What was asked may have been done all the same.
    pub(crate) async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, Away> {
        if self.lock().is_some_and(|until| Instant::now() < until) {
            return Err(Away);
        }
        let all = async {
            let mut link = self.0.pool.get().await.map_err(|error| error.to_string())?;
            // Whatever is left half-way must not be used again.
            link.is_broken = true;
            let result = work(&mut link.connection).await;
            link.is_broken = result.is_err();
            result.map_err(|error| error.to_string())
        };
        let reason = match tokio::time::timeout(PATIENCE, all).await {
            Ok(Ok(done)) => {
                if !self.0.answers.swap(true, Ordering::Relaxed) {
                    tracing::info!("Redis answers");
                }
                metrics::gauge!("sotto_redis_up").set(1.0);
                return Ok(done);
            }
            Ok(Err(reason)) => reason,
            Err(_) => "no answer in time".to_owned(),
        };
        *self.lock() = Some(Instant::now() + REST);
        if self.0.answers.swap(false, Ordering::Relaxed) {
            tracing::warn!(%reason, "Redis does not answer; the sweep goes on delivering");
        }
        metrics::gauge!("sotto_redis_up").set(0.0);
        Err(Away)
    }

    /// A connection of its own that listens on a channel; the subscription is confirmed.
    ///
    /// # Errors
    /// Redis failed, or did not answer within 2 s.
    pub(crate) async fn listen(&self, channel: &str) -> Result<PubSub, Away> {
        let work = async {
            let mut listener = self.0.source.client().await?.get_async_pubsub().await?;
            listener.subscribe(channel).await?;
            Ok::<_, RedisError>(listener)
        };
        match tokio::time::timeout(Duration::from_secs(2), work).await {
            Ok(Ok(listener)) => Ok(listener),
            Ok(Err(error)) => {
                tracing::debug!(%error, "no subscription");
                Err(Away)
            }
            Err(_) => Err(Away),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.0.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn source(url: &str) -> Result<Source, RedisSetting> {
    let form = |what: &str| RedisSetting::Form(what.to_owned());
    let Some(rest) = url.strip_prefix("redis+sentinel://") else {
        if !url.starts_with("redis://") {
            return Err(form("another scheme"));
        }
        let unreadable = |_| form("it cannot be read");
        let client = Client::open(url).map_err(unreadable)?;
        let manager = RedisConnectionManager::new(url).map_err(unreadable)?;
        return Ok(Source::One { client, manager });
    };
    let (login, rest) = rest.rsplit_once('@').map_or((None, rest), |(login, rest)| (Some(login), rest));
    let mut parts = rest.split('/');
    let hosts = parts.next().unwrap_or_default();
    let name =
        parts.next().filter(|name| !name.is_empty()).ok_or_else(|| form("the name of the primary is missing"))?;
    let database = parts.next().filter(|database| !database.is_empty()).unwrap_or("0");
    // The library reads one server's URL; it decodes name and password as such a URL has them.
    let prefix = login.map_or_else(String::new, |login| format!("{login}@"));
    let like_one = format!("redis://{prefix}localhost/{database}").into_connection_info();
    let settings: RedisConnectionInfo =
        like_one.map_err(|_| form("user, password or database"))?.redis_settings().clone();
    let sentinels: Vec<String> = hosts.split(',').map(|host| format!("redis://{host}")).collect();
    let server = SentinelNodeConnectionInfo::default().set_redis_connection_info(settings);
    let client = SentinelClient::build(sentinels, name.to_owned(), Some(server), SentinelServerType::Master);
    Ok(Source::Sentinels(tokio::sync::Mutex::new(client.map_err(|_| form("the Sentinels' addresses"))?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_forms_are_read_and_others_are_refused_without_repeating_them() {
        for good in [
            "redis://127.0.0.1:6379",
            "redis://user:pass@host:6379/3",
            "redis+sentinel://a:26379,b:26379/primary",
            "redis+sentinel://user:p%40ss@a:26379/primary/2",
        ] {
            assert!(source(good).is_ok(), "{good}");
        }
        for bad in [
            "http://x",
            "redis+sentinel://a:1",
            "redis+sentinel://a:1/",
            "redis+sentinel://u:hunter2@a:1/n/x",
            "rediss://x",
        ] {
            let error = source(bad).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(!error.is_empty() && !error.contains("hunter2"), "{bad}: {error}");
        }
    }
}
