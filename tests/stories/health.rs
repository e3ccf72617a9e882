//! Readiness of every service, while parts of the installation are away.

use reqwest::Method;
use runcast_tests::api::{Api, send};
use runcast_tests::chaos::Chaos;
use runcast_tests::eventually::{SOON, eventually};
use runcast_tests::process::Process;
use runcast_tests::stack::{Part, Stack};
use serde_json::Value;

/// A running service, and where it tells how it is.
struct Service {
    process: Process,
    base: String,
}

impl Service {
    /// Starts one that reaches Redis and Postgres through these proxies.
    async fn start(stack: &mut Stack, part: Part, redis: &Chaos, postgres: &Chaos) -> Self {
        stack.set(part, "RUNCAST_METRICS_LISTEN", "127.0.0.1:0");
        stack.set(part, "REDIS_URL", stack.redis.url(redis.port()));
        stack.set(part, "DATABASE_URL", stack.database_url(postgres.port()));
        let mut process = stack.recipe(part).start(stack.folder());
        let metrics = process.says("metrics at ", SOON).await;
        let base = metrics.strip_suffix("/metrics").expect("an address");
        Self {
            base: base.to_owned(),
            process,
        }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let api = Api::new(&self.base, "");
        let response = send(api.anonymous(Method::GET, path)).await;
        (
            response.status().as_u16(),
            response.text().await.expect("its body"),
        )
    }

    /// Waits until it answers so, and gives the answer.
    async fn becomes(&self, status: u16) -> Value {
        let what = format!("{} answers {status}", self.process.name());
        eventually(&what, async || {
            let (now, body) = self.get("/readyz").await;
            let answer: Value = serde_json::from_str(&body).expect("JSON");
            assert_eq!(answer["ready"], now == 200, "{body}");
            if now == status { Ok(answer) } else { Err(body) }
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_says_what_it_lacks() {
    let mut stack = Stack::without_services().await;
    let (redis, postgres) = (
        stack.chaos_before_redis().await,
        stack.chaos_before_postgres().await,
    );
    for part in [Part::Persister, Part::Worker] {
        let service = Service::start(&mut stack, part, &redis, &postgres).await;
        let well = service.becomes(200).await;
        for what in ["redis", "postgres", "schema", "partitions"] {
            assert_eq!(well[what], "ok", "{well}");
        }
        let version = "SELECT max(version) FROM _sqlx_migrations";
        let version = stack.database.number(version).await;
        assert_eq!(well["schema_version"], version, "{well}");

        redis.refuse();
        let answer = service.becomes(503).await;
        assert_eq!(answer["redis"], "unreachable");
        assert_eq!((service.get("/healthz").await).0, 200, "it lives");
        redis.forward();
        service.becomes(200).await;

        let (_, metrics) = service.get("/metrics").await;
        if part == Part::Worker {
            let none_dead = r#"runcast_jobs{kind="delivery",state="dead"} 0"#;
            assert!(metrics.contains(none_dead), "{metrics}");
        }

        postgres.half_open();
        let answer = service.becomes(503).await;
        assert_eq!(
            (&answer["postgres"], &answer["redis"]),
            (&"unreachable".into(), &"ok".into())
        );
        postgres.cut();
        postgres.forward();
        service.becomes(200).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_missing_tomorrow_is_told_today() {
    let mut stack = Stack::without_services().await;
    stack.launch(Part::Gateway).await;
    let (redis, postgres) = (
        stack.chaos_before_redis().await,
        stack.chaos_before_postgres().await,
    );
    let persister = Service::start(&mut stack, Part::Persister, &redis, &postgres).await;
    persister.becomes(200).await;
    let said = stack.check().await;
    assert!(
        said.contains("ok  partitions") && said.contains("nobody waits"),
        "{said}"
    );
    let drop = "DO $$ BEGIN
         EXECUTE format('DROP TABLE events_%s', to_char((now() AT TIME ZONE 'UTC')::date + 1, 'YYYYMMDD'));
     END $$";
    stack.database.tamper(drop).await;
    let answer = persister.becomes(503).await;
    let partitions = answer["partitions"].as_str().expect("words");
    assert!(partitions.contains("tomorrow"), "{partitions}");
    // Viewers are served all the same.
    let gateway = stack.api().get("/readyz").await;
    assert_eq!(gateway["partitions"], partitions, "{gateway}");
    let said = stack.check().await;
    assert!(said.contains("tomorrow"), "{said}");
    let mut migrate = stack.operator(&["migrate"]).start(stack.folder());
    assert!(migrate.ended(SOON).await.success());
    persister.becomes(200).await;
}
