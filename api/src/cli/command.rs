//! The command line of `runcastd`, and what each command does.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use runcast_common::config::{ConfigError, PostgresUrl, ProcessEnv};
use runcast_common::connect::Redis;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::app::process::{App, Service};
use crate::cli::dead_letter::DeadLetter;
use crate::cli::jobs::Jobs;
use crate::cli::token::Token;
use crate::cli::user::User;
use crate::cli::webhook::Webhook;
use crate::cli::{user, webhook};
use crate::config::{self, Settings};
use crate::dev;
use crate::preflight;
use runcast_access::oidc::Oidc;
use runcast_gateway::readiness::Health;
use runcast_store::Store;
use runcast_store::schema::SchemaError;

/// Exit code for a configuration or a schema that does not fit: EX_CONFIG of sysexits.
pub const EXIT_CONFIG: u8 = 78;

const SETTINGS: &str = "\
Settings (environment):
  DATABASE_URL               Postgres, such as postgres://user:password@host/runcast
  REDIS_URL                  Redis 7 or newer: redis://host:6379, or
                             redis+sentinel://host1:26379,host2:26379/service, or
                             redis+cluster://host1:6379,host2:6379; with TLS rediss...
  RUNCAST_REDIS_CA           file with the authorities that sign for Redis (PEM), handed on to
                             agents [those of the platform]
  RUNCAST_LISTEN             where the gateway listens [127.0.0.1:7070]
  RUNCAST_METRICS_LISTEN     where each service serves /metrics, /healthz and /readyz, such as
                             127.0.0.1:9464 [nowhere]
  RUNCAST_PUBLIC_URL         how browsers reach the gateway [http://<where it listens>]
  RUNCAST_PUBLISH_REDIS_URL  Redis as agents reach it, with a user that may only append
                             (`runcastd acl` prints its rules) [REDIS_URL; required in production]
  RUNCAST_REDIS_BUDGET       memory that Redis may use, such as 4GiB, or off: above it the biggest
                             runs have to wait until they are stored [75 % of its maxmemory, else
                             off]
  RUNCAST_KEY_PREFIX         in front of every Redis key []
  RUNCAST_DATA_DIR           where `dev` keeps its data [.local]
  RUNCAST_RETENTION          how long a worker keeps runs, such as 30d, 12h, or forever [90d]
  RUNCAST_RETENTION_RULES    the same for runs with a label: project=search:7d,team=ml:forever []
  RUNCAST_AUDIT_RETENTION    how long a worker keeps what /v1/audit tells [365d]
  RUNCAST_ARCHIVE            where old runs go, for gateway and worker: file:///folder, or
                             s3://bucket/prefix with the usual settings of AWS [nowhere]
  RUNCAST_ARCHIVE_AFTER      how long after it was sealed a run goes there [30d]
  RUNCAST_MEMORY_LIMIT       resident memory of a gateway, such as 512MiB, above which it sends
                             viewers away, who resume [none]
  RUNCAST_VIEWER_TIMEOUT     a viewer who takes nothing for so long is closed [30s]
  RUNCAST_DRAIN_DELAY        from the end of a gateway's readiness to that of its streams, at most
                             15s [none]
  RUNCAST_LIMITS             how much one may ask of a gateway, or off, as a list such as write=100/min,
                             read=600/min:50 (with a burst), search=30/min, sign-in=5/min,
                             ingest=3000/min, publish=16MiB/s:64MiB (to one run), failed=30/min (wrong
                             credentials), streams=256, streams-by-address=1024, connections=10000
                             (of one process), each or off [these; as many connections as files may
                             be open]
  RUNCAST_TRUSTED_PROXIES    addresses and networks of the proxies in front of a gateway, such as
                             10.0.0.0/8: their X-Forwarded-For tells who asks [none]
  RUNCAST_SESSION_LIFE       how long a session of a browser lives without a request, 30 days from
                             its sign-in at most [24h]
  RUNCAST_SESSION_IDLE       the same where it shall be shorter, such as 30m [RUNCAST_SESSION_LIFE]
  RUNCAST_OIDC_ISSUER        with RUNCAST_OIDC_CLIENT_ID, RUNCAST_OIDC_CLIENT_SECRET and
                             RUNCAST_PUBLIC_URL: an OpenID Connect issuer by which users sign in, such
                             as https://login.example.com; it sends them back to
                             <RUNCAST_PUBLIC_URL>/v1/session/oidc/callback [none]
  RUNCAST_OIDC_NAME          what the page calls it [its host]
  RUNCAST_OIDC_CREATE        on: whom the issuer knows and nobody has made becomes a user, with the
                             role RUNCAST_OIDC_ROLE [viewer]; off: only users that there are, by the
                             address that the issuer has verified [off]
  RUNCAST_CORS_ORIGINS       origins of other pages that may ask a gateway, with commas [none]
  RUNCAST_TLS_CERT           with RUNCAST_TLS_KEY, PEM files, where nothing in front of a gateway
                             ends TLS [none]
  RUNCAST_ENV                development | production [development]
  RUNCAST_LOG                what to log, such as debug or runcast_api=debug,warn [info]
  RUNCAST_LOG_FORMAT         text | json [text on a terminal, else json]

Exit codes: 0 stopped as asked, 78 wrong configuration or database schema, 1 anything else.";

const WORKER: &str = "\
One of all workers holds a lease in Postgres: it watches the agents, and every hour puts jobs into
a queue in Postgres, from which all workers take them. If it dies, another takes over within 15 s.

Agents
  An agent gives a sign of life every 5 s. After 15 s of silence it is `stale`, after 30 s `lost`,
  and so are its variation and its run, until it is heard again, by a sign of life or by what it
  publishes, or a final status is stored. While Redis is away nobody is called lost.
  `GET /v1/agents?health=lost` lists them.
  RUNCAST_STALE_AFTER  after what silence an agent is doubted, 7500ms at least [15s]
  RUNCAST_LOST_AFTER   after what silence it is lost [30s]

Jobs
  partitions    makes the daily partitions of events, a week ahead
  retention     removes runs that are too old, with all that the archive holds of them: by the first
                rule of RUNCAST_RETENTION_RULES (NAME=VALUE:AGE,...) that a label of the run fits,
                else by RUNCAST_RETENTION [90d]. Ages in days count whole days (UTC), so that a
                day goes at once; 12h, 30m and 45s count exactly. A run with a living agent is kept.
                `\\` takes a comma, colon or equals sign in a label for what it is. And what /v1/audit
                tells that is older than RUNCAST_AUDIT_RETENTION [365d]
  archive       where RUNCAST_ARCHIVE is set: finds runs that were sealed RUNCAST_ARCHIVE_AFTER [30d]
                ago and have no dead letters, and gives each a job of its own
  archive_run   writes a run's events as one object (zstd, NDJSON, an index at its end; `zstdcat`
                prints it), reads it back, compares it with the rows byte by byte, and then passes
                readers on to it
  archive_rows  drops the rows of a day's archived runs, 5 min after the last of them was archived:
                by emptying the partition where that is all of the day, else in small steps
  orphans       removes what Redis holds of runs that do not exist, after an hour unused
  sessions      forgets expired sessions
  webhooks      gives up deliveries that could not be tried, and forgets old ones

  A job that fails is tried again after 3 s, 7 s, 20 s, 1 min and 3 min. Then it is dead, until
  the next hour gives it a new start. `runcastd jobs` and `GET /v1/jobs` show all that waits, fails
  or is dead.

Webhooks (`runcastd webhook --help`)
  All workers send deliveries, 4 at a time for each webhook. What fails is tried again with waits
  that double up to 4 h, and is dead after a day; a webhook that keeps failing is tried ever more
  rarely.
  RUNCAST_WEBHOOK_ALLOW        hosts and networks within the cluster that webhooks may lead to, by
                               http as well, such as 10.1.0.0/16,hooks.internal [only public ones]
  RUNCAST_WEBHOOK_TIMEOUT      how long a receiver may take to answer [10s]
  RUNCAST_WEBHOOK_FIRST_RETRY  wait after the first failure [10s]
  RUNCAST_WEBHOOK_GIVE_UP      how long a delivery is tried [1d]
  RUNCAST_WEBHOOK_LOG          how long ended deliveries are kept [14d]

The archive
  file:///folder       a folder that every gateway and worker sees under this name
  s3://bucket/prefix   S3, or what speaks its protocol: AWS_ENDPOINT_URL, AWS_REGION,
                       AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, or a role as AWS hands it to a
                       pod. Let the bucket end unfinished uploads after a day: those of a killed
                       worker are taken back, but for one that it had no time to write down
  Gateways need the same settings to show archived runs. What may lie there stands in the table
  `archives` from before it is written until after it is deleted; nothing else is ever deleted.

Other settings: see `runcastd --help`. Without a worker runs are still published, stored and shown, for
as long as there are partitions: a week.";

/// Stores what runs print and shows it to browsers, live and for good.
#[derive(Debug, Parser)]
#[command(name = "runcastd", version, after_help = SETTINGS, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything in one process, with a Redis and a Postgres of its own where none is given
    Dev,
    /// Serve browsers and agents over HTTP
    Gateway,
    /// Store what stands in Redis in Postgres; any number may run
    Persister,
    /// Do what has to be done now and then; any number may run
    #[command(after_help = WORKER)]
    Worker,
    /// Bring the database to this program's version
    Migrate,
    /// Say whether the configuration, Redis and Postgres are fit for the work
    Check,
    /// Tokens of programs and people
    #[command(subcommand)]
    Token(Token),
    /// Who may sign in, and what they may do: create, list, disable, roles, passwords
    #[command(subcommand, after_help = user::HELP)]
    User(User),
    /// What stood in a run's stream and was no event: list it, look at it, read it again, drop it
    #[command(subcommand)]
    DeadLetter(DeadLetter),
    /// How background work stands: counts, last and next runs, leases; retry or drop what is dead
    Jobs {
        #[command(subcommand)]
        command: Option<Jobs>,
    },
    /// Signed notifications when runs change: add, list, test, disable, remove, and what was delivered
    #[command(subcommand, after_help = webhook::HELP)]
    Webhook(Webhook),
    /// Print the Redis ACL rules of the user whose credentials agents get
    ///
    /// They are for every server that holds data: one, master and replicas, or all nodes of a cluster.
    /// Where sentinels ask for credentials, too, agents need a user there with
    /// `-@all +sentinel|get-master-addr-by-name`, named in the address as
    /// `?sentinel_user=...&sentinel_password=...`.
    Acl,
}

impl Cli {
    /// Does what was asked for.
    ///
    /// # Errors
    /// In words for a person; [`exit_code`] tells the code.
    pub async fn run(self) -> anyhow::Result<()> {
        let env = ProcessEnv;
        match self.command {
            Command::Dev => dev::start::run(&env, until_told()?).await,
            Command::Gateway => serve(Service::Gateway).await,
            Command::Persister => serve(Service::Persister).await,
            Command::Worker => serve(Service::Worker).await,
            Command::Migrate => migrate(&config::database(&env)?).await,
            Command::Check => examine(&Settings::from_env(&env)?).await,
            Command::Token(command) => {
                let store = open(&config::database(&env)?).await?;
                let mut out = Vec::new();
                let outcome = command.run(&store, &mut out).await;
                print(&out)?;
                outcome
            }
            Command::User(command) => {
                let store = open(&config::database(&env)?).await?;
                let mut out = Vec::new();
                let outcome = command.run(&store, &mut out).await;
                print(&out)?;
                outcome
            }
            Command::DeadLetter(command) => {
                let store = open(&config::database(&env)?).await?;
                let mut out = Vec::new();
                let outcome = command.run(&store, &mut out).await;
                print(&out)?;
                outcome
            }
            Command::Jobs { command } => {
                let store = open(&config::database(&env)?).await?;
                let mut out = Vec::new();
                let outcome = command.unwrap_or(Jobs::List).run(&store, &mut out).await;
                print(&out)?;
                outcome
            }
            Command::Webhook(command) => {
                let policy = config::webhook_policy(&env)?;
                let store = open(&config::database(&env)?).await?;
                let mut out = Vec::new();
                let outcome = command.run(&store, &policy, &mut out).await;
                print(&out)?;
                outcome
            }
            Command::Acl => say(&config::key_prefix(&env)?.publisher_acl().join(" ")),
        }
    }
}

/// The exit code for an error of [`Cli::run`].
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    let mismatch = error.chain().any(|cause| {
        matches!(cause.downcast_ref(), Some(SchemaError::Mismatch { .. }))
            || cause.downcast_ref::<ConfigError>().is_some()
    });
    if mismatch { EXIT_CONFIG } else { 1 }
}

async fn serve(service: Service) -> anyhow::Result<()> {
    let stop = until_told()?;
    let settings = Settings::from_env(&ProcessEnv)?;
    if service == Service::Gateway {
        settings.publish_redis()?;
    }
    let app = App::prepare(settings, &[service]).await?;
    if let Some(address) = app.metrics_address()? {
        say(&format!("metrics at http://{address}/metrics"))?;
    }
    match service {
        Service::Gateway => {
            let url = app.public_url()?;
            say(&format!(
                "Runcast is ready at {}",
                url.as_str().trim_end_matches('/')
            ))?;
        }
        Service::Persister => say("Runcast persister is ready")?,
        Service::Worker => say("Runcast worker is ready")?,
    }
    app.run(stop).await
}

async fn open(database: &PostgresUrl) -> anyhow::Result<Store> {
    let store = Store::new(database, "runcastd").context("DATABASE_URL")?;
    preflight::postgres(&store, database).await?;
    Ok(store)
}

async fn migrate(database: &PostgresUrl) -> anyhow::Result<()> {
    let store = Store::new(database, "runcastd migrate").context("DATABASE_URL")?;
    let unreachable = || format!("DATABASE_URL: Postgres at {database} cannot be reached");
    store.ping().await.with_context(unreachable)?;
    store.migrate().await.context("DATABASE_URL")?;
    let made = store.make_partitions().await?;
    say(&format!(
        "the database is up to date; {made} partitions made"
    ))
}

async fn examine(settings: &Settings) -> anyhow::Result<()> {
    settings.publish_redis()?;
    let redis = Redis::new(&settings.redis).context("REDIS_URL")?;
    let servers = preflight::redis(&redis, settings.environment).await?;
    say(&format!("ok  REDIS_URL     {} ({servers})", settings.redis))?;
    let store = open(&settings.postgres).await?;
    say(&format!("ok  DATABASE_URL  {}", settings.postgres))?;
    let findings = Health::new(redis, store.clone(), settings.keys.clone())
        .look()
        .await;
    say(&format!(
        "ok  schema        version {}",
        findings.schema_version
    ))?;
    if !findings.partitions.is_ok() {
        anyhow::bail!("partitions: {}", findings.partitions.text());
    }
    say("ok  partitions for the events of today and tomorrow")?;
    if let Some(oidc) = settings.oidc.clone() {
        oidc.check_role(&store).await?;
        let issuer = oidc.issuer.to_string();
        let public_url = settings.public_url.clone();
        let public_url = public_url.context("RUNCAST_PUBLIC_URL is not set")?;
        let asked = Oidc::new(oidc, public_url).context("RUNCAST_OIDC_ISSUER")?;
        let asked = asked.ping().await.map_err(anyhow::Error::msg);
        asked.context("RUNCAST_OIDC_ISSUER")?;
        say(&format!("ok  RUNCAST_OIDC_ISSUER  {issuer}"))?;
    }
    match &settings.archive {
        Some(place) => {
            place.ping().await.context("RUNCAST_ARCHIVE")?;
            say(&format!("ok  RUNCAST_ARCHIVE  {place}"))?;
        }
        None if store.has_archives().await? => anyhow::bail!(
            "there are archived runs, and RUNCAST_ARCHIVE, which says where they lie, is not set"
        ),
        None => {}
    }
    let line = findings.line;
    if !line.group.is_ok() {
        // Before the first start of a persister that is as it should be.
        return say(&format!("--  line of unstored runs: {}", line.group.text()));
    }
    let lag = Duration::from_millis(line.lag_ms);
    let waits = match line.waiting {
        0 => "nobody waits".to_owned(),
        waiting => format!("{waiting} wait, the first for {lag:?}"),
    };
    say(&format!("ok  line of unstored runs: {waits}"))
}

/// Cancelled by SIGTERM or SIGINT; a second one ends the process at once.
fn until_told() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let told = stop.clone();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // It lives as long as the process and cannot fail.
    drop(tokio::spawn(async move {
        for round in 0.. {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if round > 0 {
                info!("{name} again: ending at once");
                std::process::exit(130);
            }
            info!("{name}: stopping; a second signal ends at once");
            told.cancel();
        }
    }));
    Ok(stop)
}

/// Prints one line for people and scripts.
fn say(line: &str) -> anyhow::Result<()> {
    print(format!("{line}\n").as_bytes())
}

fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .context("cannot write to stdout")
}
