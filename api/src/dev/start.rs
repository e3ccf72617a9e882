//! Starts everything of `runcastd dev` and stops it again.
//!
//! A private Redis and Postgres listen on ports of 127.0.0.1 that are chosen anew at each start,
//! and end with this process, however it ends. A second start goes on with the data of the first.
//! It first prints a link that signs a browser in once, within ten minutes: its code is in the
//! fragment, which browsers send to no server.

use std::io::Write as _;

use anyhow::{Context as _, bail};
use runcast_access::secret::Secret;
use runcast_common::config::{Env, redis_url};
use runcast_store::Store;
use tokio_util::sync::CancellationToken;

use super::child::{self, Child};
use super::data_dir::DataDir;
use super::{postgres, redis};
use crate::app::process::{App, Service};
use crate::settings::table::servers;
use crate::settings::{self, Settings};

/// Runs everything until `stop`.
pub async fn run(env: &impl Env, stop: CancellationToken) -> anyhow::Result<()> {
    let data = DataDir::open(&settings::data_dir(env)?)?;
    let given_redis = redis_url(env, servers::REDIS_URL.entry.name)?;
    let given_postgres = servers::DATABASE_URL.given(env)?;

    // The servers that are not given.
    let mut children = Vec::new();
    let redis = match given_redis {
        Some(url) => url,
        None => {
            let server = redis::start(&data.path).await?;
            children.push(server.child);
            server.url
        }
    };
    let postgres = match given_postgres {
        Some(url) => url,
        None => {
            let server = postgres::start(&data.path).await?;
            children.push(server.child);
            server.url
        }
    };

    // The services, until they or a server end.
    let settings = Settings::with_servers(env, redis, postgres)?;
    let outcome = run_services(settings, &data, &mut children, &stop).await;

    // Redis first, Postgres last, so that nothing is cut off.
    for child in children {
        child.stop().await;
    }
    outcome
}

async fn run_services(
    settings: Settings,
    data: &DataDir,
    children: &mut [Child],
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let store = Store::new(&settings.postgres, "runcastd dev").context("DATABASE_URL")?;
    store.migrate().await.context("DATABASE_URL")?;
    store.make_partitions().await?;
    let token = data.token(&store).await?;
    store.close().await;

    let has_public_url = settings.public_url.is_some();
    let services = [Service::Gateway, Service::Persister, Service::Worker];
    let mut app = App::prepare(settings, &services).await?;
    let (url, local_url) = (app.public_url()?, app.local_url()?);
    let _url_file = data.publish_url(local_url.as_str().trim_end_matches('/'))?;
    let code = Secret::generate("")?;
    // A browser on this machine opens the link, unless it is told how it reaches the gateway.
    let sign_in_url = if has_public_url { &url } else { &local_url };
    let sign_in_link = format!("{sign_in_url}#/sign-in/{}", code.expose());
    greet(url.as_str().trim_end_matches('/'), &sign_in_link, data)?;
    app.offer_sign_in(code, token);

    let running = app.run(stop.clone());
    tokio::pin!(running);
    tokio::select! {
        outcome = &mut running => outcome,
        name = child::first_to_end(children) => {
            stop.cancel();
            running.await?;
            bail!("{name} ended by itself; its log is in {}", data.path.display())
        }
    }
}

fn greet(url: &str, sign_in_link: &str, data: &DataDir) -> anyhow::Result<()> {
    let token = data.token_path();
    // `runcast` finds the gateway by the data folder in or above its current folder.
    let is_here = std::env::current_dir().is_ok_and(|here| here.join(".local") == data.path);
    let finder = if is_here {
        String::new()
    } else {
        format!("RUNCAST_DATA_DIR={} ", data.path.display())
    };
    let beside = std::env::current_exe().map(|program| program.with_file_name("runcast"));
    let runcast = beside.ok().filter(|program| program.exists());
    let runcast = runcast.unwrap_or_else(|| "runcast".into());
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "\nOpen this link to sign in; it works once, within ten minutes:\n\n  \
         {sign_in_link}\n\n\
         Runcast is ready at {url}\n\n  \
         Later sign in with the token in {}. To watch a command:\n\n  \
         {finder}{} wrap -- ping -c 20 localhost\n",
        token.display(),
        runcast.display(),
    )
    .and_then(|()| out.flush())
    .context("cannot write to stdout")
}
