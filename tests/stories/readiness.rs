//! Readiness of each service, while Redis or Postgres are unreachable.

use reqwest::Method;
use runcast_tests::api::{Api, send};
use runcast_tests::chaos::ChaosProxy;
use runcast_tests::eventually::{WAIT_DEADLINE, eventually};
use runcast_tests::process::Process;
use runcast_tests::stack::{Service, Stack};
use serde_json::Value;

/// A running service, and the URL of its health endpoints.
struct RunningService {
    process: Process,
    base: String,
}

impl RunningService {
    /// Starts a service that reaches Redis and Postgres through these proxies.
    async fn start(
        stack: &mut Stack,
        service: Service,
        redis: &ChaosProxy,
        postgres: &ChaosProxy,
    ) -> Self {
        stack.set(service, "RUNCAST_METRICS_LISTEN", "127.0.0.1:0");
        stack.set(service, "REDIS_URL", stack.redis.url(redis.port()));
        stack.set(service, "DATABASE_URL", stack.database_url(postgres.port()));
        let mut process = stack.service_spec(service).start(stack.folder());
        let metrics = process.wait_for_line("metrics at ", WAIT_DEADLINE).await;
        let base = metrics.strip_suffix("/metrics").expect("a URL");
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

    /// Waits for a response with this status, and returns it.
    async fn becomes(&self, status: u16) -> Value {
        let what = format!("{} answers {status}", self.process.name());
        eventually(&what, async || {
            let (now, body) = self.get("/readyz").await;
            let reply: Value = serde_json::from_str(&body).expect("JSON");
            assert_eq!(reply["ready"], now == 200, "{body}");
            if now == status { Ok(reply) } else { Err(body) }
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_names_unreachable_servers() {
    let mut stack = Stack::without_services().await;
    let (redis, postgres) = (stack.proxy_redis().await, stack.proxy_postgres().await);
    for service in [Service::Persister, Service::Worker] {
        let running = RunningService::start(&mut stack, service, &redis, &postgres).await;
        let succeeded = running.becomes(200).await;
        for what in ["redis", "postgres", "schema", "partitions"] {
            assert_eq!(succeeded[what], "ok", "{succeeded}");
        }
        let version = "SELECT max(version) FROM _sqlx_migrations";
        let version = stack.database.query_number(version).await;
        assert_eq!(succeeded["schema_version"], version, "{succeeded}");

        redis.refuse();
        let reply = running.becomes(503).await;
        assert_eq!(reply["redis"], "unreachable");
        assert_eq!(
            (running.get("/healthz").await).0,
            200,
            "the process is alive"
        );
        redis.forward();
        running.becomes(200).await;

        let (_, metrics) = running.get("/metrics").await;
        if service == Service::Worker {
            let none_dead = r#"runcast_jobs{kind="delivery",state="dead"} 0"#;
            assert!(metrics.contains(none_dead), "{metrics}");
        }

        postgres.half_open();
        let reply = running.becomes(503).await;
        assert_eq!(
            (&reply["postgres"], &reply["redis"]),
            (&"unreachable".into(), &"ok".into())
        );
        postgres.cut();
        postgres.forward();
        running.becomes(200).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_reports_missing_next_partition() {
    let mut stack = Stack::without_services().await;
    stack.start_service(Service::Gateway).await;
    let (redis, postgres) = (stack.proxy_redis().await, stack.proxy_postgres().await);
    let persister = RunningService::start(&mut stack, Service::Persister, &redis, &postgres).await;
    persister.becomes(200).await;
    let output = stack.check().await;
    assert!(
        output.contains("ok  partitions") && output.contains("no run waits to be stored"),
        "{output}"
    );
    let drop = "DO $$ BEGIN
         EXECUTE format('DROP TABLE events_%s', to_char((now() AT TIME ZONE 'UTC')::date + 1, 'YYYYMMDD'));
     END $$";
    stack.database.execute(drop).await;
    let reply = persister.becomes(503).await;
    let partitions = reply["partitions"].as_str().expect("words");
    assert!(partitions.contains("tomorrow"), "{partitions}");
    // It still serves viewers.
    let gateway = stack.api().get("/readyz").await;
    assert_eq!(gateway["partitions"], partitions, "{gateway}");
    let output = stack.check().await;
    assert!(output.contains("tomorrow"), "{output}");
    let mut migrate = stack.operator_spec(&["migrate"]).start(stack.folder());
    assert!(migrate.wait_exit(WAIT_DEADLINE).await.success());
    persister.becomes(200).await;
}
