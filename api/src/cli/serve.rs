//! `runcastd gateway`, `persister` and `worker`: one service until a signal.

use runcast_common::config::Env;

use super::output::print_line;
use crate::app::process::{App, Service};
use crate::app::signals::{self, Hangup};
use crate::settings::Settings;

/// Runs the service. Its first line on stdout says that it is ready, and where.
pub async fn run(env: &impl Env, service: Service) -> anyhow::Result<()> {
    let stop = signals::stop_token(Hangup::Continues)?;
    let settings = Settings::from_env(env)?;
    settings.refuse_plaintext(service == Service::Gateway)?;
    let app = App::prepare(settings, &[service]).await?;
    if let Some(address) = app.metrics_address()? {
        print_line(&format!("metrics at http://{address}/metrics"))?;
    }
    match service {
        Service::Gateway => {
            let url = app.public_url()?;
            let url = url.as_str().trim_end_matches('/');
            print_line(&format!("Runcast is ready at {url}"))?;
        }
        Service::Persister => print_line("Runcast persister is ready")?,
        Service::Worker => print_line("Runcast worker is ready")?,
    }
    app.run(stop).await
}
