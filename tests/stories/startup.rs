//! A service that cannot start says in one line which setting or schema is to blame.

use runcast_tests::eventually::WAIT_DEADLINE;
use runcast_tests::process::{Process, ProcessSpec};
use runcast_tests::programs::{self, free_port};
use runcast_tests::redis_server::RedisServer;
use runcast_tests::stack::{Service, Stack};

/// Runs a service that must refuse to start; returns its exit code and stderr.
async fn refusal(
    stack: &Stack,
    service: Service,
    setting: Option<(&str, &str)>,
) -> (Option<i32>, String) {
    let spec = stack.service_spec(service).with_env(setting);
    let mut process: Process = spec.start(stack.folder());
    let status = process.wait_exit(WAIT_DEADLINE).await;
    let output = String::from_utf8_lossy(&process.stderr()).into_owned();
    (status.code(), output)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mismatched_schema_is_refused() {
    let stack = Stack::without_services().await;
    let cases = [
        // Changed after it was applied; older than the program; newer than the program.
        "UPDATE _sqlx_migrations SET checksum = '\\xdecaf000' WHERE version = 1",
        "DELETE FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations)",
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', true, '\\x00', 0)",
    ];
    for (tampering, displayed) in cases.into_iter().zip(["decaf000", "", "9999"]) {
        stack.database.execute(tampering).await;
        for service in Service::ALL {
            let (code, output) = refusal(&stack, service, None).await;
            assert_eq!(code, Some(78), "{}: {output}", service.name());
            for word in ["expected", "actual", displayed] {
                assert!(
                    output.contains(word),
                    "{} does not say {word:?}: {output}",
                    service.name()
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newer_schema_is_accepted_if_it_says_so() {
    let mut stack = Stack::without_services().await;
    let newer = "WITH newer AS (
             INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9999, 'from the future', true, '\\x00', 0))
         INSERT INTO schema_versions (version, oldest_program)
         SELECT 9999, max(version) FROM _sqlx_migrations";
    stack.database.execute(newer).await;
    stack.start_all().await;
    // A later migration drops what this program needs.
    let breaking = "UPDATE schema_versions SET oldest_program = 9999 WHERE version = 9999";
    stack.database.execute(breaking).await;
    let (code, output) = refusal(&stack, Service::Worker, None).await;
    assert_eq!(code, Some(78), "{output}");
    assert!(output.contains("The database is newer"), "{output}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreachable_server_is_named_by_its_setting() {
    let stack = Stack::without_services().await;
    let port = free_port();
    let (redis, postgres) = (stack.redis.url(port), stack.database_url(port));
    for (name, address) in [("REDIS_URL", redis), ("DATABASE_URL", postgres)] {
        for service in Service::ALL {
            let (code, output) = refusal(&stack, service, Some((name, &address))).await;
            assert!(
                code.is_some_and(|code| code != 0),
                "{} ended with {code:?}",
                service.name()
            );
            let naming: Vec<_> = output.lines().filter(|line| line.contains(name)).collect();
            let [line] = naming[..] else {
                panic!(
                    "{} should name {name} in one line: {output}",
                    service.name()
                );
            };
            assert!(
                line.contains(&port.to_string()),
                "the inspected place: {line}"
            );
            assert!(!output.contains("panicked"), "{output}");
            assert_no_secrets(&output, &address);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_setting_is_named() {
    let stack = Stack::without_services().await;
    for (name, value) in [
        ("REDIS_URL", "localhost"),
        ("DATABASE_URL", "mysql://somewhere/else"),
        ("RUNCAST_LISTEN", "everywhere"),
        ("RUNCAST_ENV", "staging"),
    ] {
        let (code, output) = refusal(&stack, Service::Gateway, Some((name, value))).await;
        assert_eq!(code, Some(78), "{name}={value}: {output}");
        assert!(output.contains(name), "{name}={value}: {output}");
    }
    let (code, output) = refusal(&stack, Service::Persister, Some(("DATABASE_URL", ""))).await;
    assert_eq!(code, Some(78), "{output}");
    assert!(output.contains("DATABASE_URL is not set"), "{output}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrate_needs_only_the_database() {
    let stack = Stack::without_services().await;
    let address = stack.database_url(stack.database_port());
    let spec = ProcessSpec::new(
        "migrate",
        programs::runcastd(),
        &["migrate"],
        stack.folder(),
    );
    let mut migrate = spec
        .with_env([("DATABASE_URL", address)])
        .start(stack.folder());
    let status = migrate.wait_exit(WAIT_DEADLINE).await;
    assert!(
        status.success(),
        "a second time, without Redis ({status})\n{}",
        migrate.logs()
    );
}

/// Checks that the password of a URL was not printed.
fn assert_no_secrets(output: &str, address: &str) {
    let password = address
        .split_once('@')
        .and_then(|(start, _)| start.rsplit_once(':'));
    let (_, password) = password.expect("an address with a password");
    assert!(
        !output.contains(password),
        "a password was printed: {output}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_signs_in_as_a_user_that_agents_get() {
    let mut stack = Stack::without_services().await;
    let output = stack.check().await;
    assert!(output.contains("ok  RUNCAST_PUBLISH_REDIS_URL"), "{output}");
    // It leaves no user behind.
    let mut redis = stack.redis.connection().await;
    let mut acl = redis::cmd("ACL");
    let users: Vec<String> = acl
        .arg("USERS")
        .query_async(&mut redis)
        .await
        .expect("users");
    assert_eq!(users, ["default"]);

    // Another server, which does not know the user.
    let other = RedisServer::start(&stack.folder().join("other")).await;
    let url = other.publisher_url(other.port());
    stack.set(Service::Gateway, "RUNCAST_PUBLISH_REDIS_URL", url);
    let output = stack.check().await;
    assert!(
        output.contains("RUNCAST_PUBLISH_REDIS_URL") && output.contains("WRONGPASS"),
        "{output}"
    );
    stack.unset(Service::Gateway, "RUNCAST_PUBLISH_REDIS_URL");

    // The services may not manage users.
    let port = stack.redis.port();
    for rule in ["-acl|setuser", "-acl|deluser"] {
        let mut acl = redis::cmd("ACL");
        acl.arg(&["SETUSER", "service", "reset", "on", ">secret"])
            .arg(&["~*", "&*", "+@all", rule]);
        let () = acl.query_async(&mut redis).await.expect("a user");
        let url = format!("redis://service:secret@127.0.0.1:{port}/0");
        stack.set(Service::Gateway, "REDIS_URL", url);
        let output = stack.check().await;
        assert!(
            output.contains("may not manage users: give it `+acl|setuser +acl|deluser +acl|users`"),
            "{output}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn production_refuses_clear_text_unless_it_is_told() {
    let mut stack = Stack::without_services().await;
    stack.redis.enable_append_only_file().await;
    stack.set(Service::Gateway, "RUNCAST_ENV", "production");
    let start = async |stack: &Stack| {
        let mut gateway = stack.service_spec(Service::Gateway).start(stack.folder());
        let status = gateway.wait_exit(WAIT_DEADLINE).await;
        assert_eq!(status.code(), Some(78), "{}", gateway.logs());
        gateway.logs()
    };
    let logs = start(&stack).await;
    assert!(logs.contains("sslmode=verify-full"), "{logs}");
    stack.set(Service::Gateway, "RUNCAST_ALLOW_PLAINTEXT", "postgres");
    let logs = start(&stack).await;
    assert!(logs.contains("RUNCAST_PUBLIC_URL is not set"), "{logs}");
    stack.set(
        Service::Gateway,
        "RUNCAST_PUBLIC_URL",
        "https://runcast.example.com",
    );
    let logs = start(&stack).await;
    assert!(logs.contains("RUNCAST_ALLOW_PLAINTEXT=agents"), "{logs}");
    stack.set(
        Service::Gateway,
        "RUNCAST_ALLOW_PLAINTEXT",
        "postgres,agents",
    );
    stack.start_service(Service::Gateway).await;
}
