//! Redaction as viewers see it: nothing of a secret is in Redis or in requests to the gateway, and
//! what passes through `runcast wrap` is unchanged.

mod support;

use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use runcast_common::protocol::keys::Slot;
use runcast_common::redis;
use support::gateway::{Gateway, json};
use support::wrapped::stored_output;
use support::{Run, Server};

const SECRET: &str = "s3cret/val\"ue-1234";
const TOKEN: &str = "rct_the-token-of-this-test";
const RUN_TOKEN: &str = "rct_the-token-of-the-run";

/// Runs a script under `runcast wrap`. Returns what it left in Redis, what the gateway received,
/// and the text of the run's output.
async fn wrapped(arguments: &[&str], script: &str) -> (Output, Vec<u8>, String, String) {
    wrapped_with(arguments, &[], &["sh", "-c", script, "sh", SECRET]).await
}

/// The same with more variables and another command.
async fn wrapped_with(
    arguments: &[&str],
    variables: &[(&str, &str)],
    words: &[&str],
) -> (Output, Vec<u8>, String, String) {
    let server = Server::start().await;
    let target = server.target();
    let reply = serde_json::json!({
        "run": {"id": target.run}, "token": RUN_TOKEN, "url": "http://page/#/runs/1",
        "redis": {"url": "redis://127.0.0.1:1", "prefix": target.prefix},
    });
    let gateway = Gateway::answering(vec![json("201 Created", &reply.to_string())]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_runcast"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("RUNCAST_URL", &gateway.url)
        .env("RUNCAST_TOKEN", TOKEN)
        .env("REDIS_URL", server.url())
        .env("DB_PASSWORD", SECRET)
        .env("ACME_PIN", "acme-pin-value")
        .env("SHORT_TOKEN", "abc")
        .envs(variables.iter().copied())
        .arg("wrap")
        .args(arguments)
        .arg("--")
        .args(words);
    let run = Run::of(&target, &server);
    let output = stored_output(&run, command).await;
    let stored = everything(&server).await;
    let mut shown = String::new();
    for event in run.events().await {
        let line: serde_json::Value = serde_json::from_slice(&event.line).expect("JSON");
        if let (Some("output"), Some(text)) = (line["kind"].as_str(), line["text"].as_str()) {
            shown.push_str(text);
        }
    }
    (output, stored, gateway.asked().concat(), shown)
}

/// The raw values of all keys of a server.
async fn everything(server: &Server) -> Vec<u8> {
    let (redis, anywhere) = (server.redis(), Slot::of(""));
    let keys: Vec<String> = redis
        .query(anywhere, redis::cmd("KEYS").arg("*"))
        .await
        .expect("keys");
    assert!(!keys.is_empty());
    let mut all = Vec::new();
    for key in keys {
        let kind: String = redis
            .query(anywhere, redis::cmd("TYPE").arg(&key))
            .await
            .expect("a type");
        let read = match kind.as_str() {
            "stream" => redis::cmd("XRANGE").arg(&key).arg("-").arg("+").to_owned(),
            "hash" => redis::cmd("HGETALL").arg(&key).to_owned(),
            "string" => redis::cmd("GET").arg(&key).to_owned(),
            "zset" => redis::cmd("ZRANGE").arg(&key).arg("0").arg("-1").to_owned(),
            other => panic!("a key of type {other}"),
        };
        flatten(
            redis.query(anywhere, &read).await.expect("a value"),
            &mut all,
        );
    }
    all
}

fn flatten(value: redis::Value, all: &mut Vec<u8>) {
    match value {
        redis::Value::BulkString(bytes) => all.extend(bytes),
        redis::Value::SimpleString(text) => all.extend(text.into_bytes()),
        redis::Value::Array(values) | redis::Value::Set(values) => {
            values.into_iter().for_each(|value| flatten(value, all));
        }
        redis::Value::Map(pairs) => pairs.into_iter().for_each(|(key, value)| {
            flatten(key, all);
            flatten(value, all);
        }),
        _ => {}
    }
}

fn assert_absent(secret: &str, from: &[u8]) {
    let escaped = serde_json::to_string(secret).expect("JSON");
    for form in [
        secret,
        &secret[..9],
        &secret[9..],
        &escaped[1..escaped.len() - 1],
    ] {
        assert!(
            memchr::memmem::find(from, form.as_bytes()).is_none(),
            "{form} in {}",
            String::from_utf8_lossy(from)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_published_and_the_passthrough_is_unchanged() {
    let encoded = BASE64.encode(format!("me:{SECRET}"));
    // The halves are joined at run time, since the command line is published too.
    let script = format!(
        "one=${{1%l*}} two=l${{1##*l}} part=${{1%u*}}; \
         printf 'begin %s\\n' \"$DB_PASSWORD\"; \
         printf %s \"$one\"; sleep 0.3; printf '%s in two\\n' \"$two\"; \
         printf '%s\\r\\n%s in lines\\n' \"$one\" \"$two\"; \
         echo {encoded} $ACME_PIN; echo $RUNCAST_TOKEN >&2; \
         printf %s \"$part\"; sleep 1.5; echo; echo end $SHORT_TOKEN; exit 3"
    );
    let (output, stored, asked, shown) = wrapped(&["--redact-env", "acme_*"], &script).await;
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!(
            "begin {SECRET}\n{SECRET} in two\ns3cret/va\r\nl\"ue-1234 in lines\n\
             {encoded} acme-pin-value\ns3cret/val\"\nend abc\n"
        )
    );
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains(&format!("{RUN_TOKEN}\n")), "{stderr}");
    assert!(!stderr.contains(TOKEN), "{stderr}");
    let warning = "runcast: not redacted: SHORT_TOKEN (shorter than 6 bytes)\n";
    assert!(stderr.contains(warning), "{stderr}");

    let kept = &encoded[..encoded.find("czNj").expect("aligned")];
    assert_eq!(
        shown,
        format!(
            "begin [redacted]\n[redacted] in two\n[redacted] in lines\n{kept}[redacted] [redacted]\n\
             [redacted]\nend abc\n"
        )
    );
    for secret in [SECRET, "acme-pin-value", TOKEN, RUN_TOKEN] {
        assert_absent(secret, &stored);
    }
    assert!(memchr::memmem::find(&stored, &encoded.as_bytes()[4..20]).is_none());
    let (_, body) = asked.split_once("\r\n\r\n").expect("a body");
    assert_absent(SECRET, body.as_bytes());
}

/// Variables with secrets, and with words that are none.
const FIELD_VARIABLES: [(&str, &str); 10] = [
    (
        "APP_SECRET",
        r#"{"user": "svc", "password": "correct-horse-9"}"#,
    ),
    ("WEB_PASSWORD", "p&ss<w0rd>\"9"),
    ("CACHE_URL", "redis://:pa/ss#w0rd?x@host:6379/0"),
    ("SECRET_TOKEN", "tok-abc123def456"),
    ("DB_CREDENTIALS", "admin\nS3cr3tPw9\n"),
    ("MYSQL_PASSWORD", "docker"),
    ("PARTITION_KEY", "customer_id"),
    ("SORT_KEY", "created_at"),
    ("CACHE_KEY", "node-modules-v3"),
    ("API_TOKEN", "undefined"),
];

/// Small inputs with which other tools leaked secrets or blanked ordinary text.
#[tokio::test(flavor = "multi_thread")]
async fn inputs_from_the_field_are_redacted_and_ordinary_words_are_not() {
    let script = r#"
        printf '%s\n' "$APP_SECRET" | tr -d ' '
        printf '%s\n' "$APP_SECRET" | sed 's/[{,]/&\n  /g'
        printf '%s\n' "$APP_SECRET" | sed 's/.*: "//; s/".*//'
        printf '%s\n' "$WEB_PASSWORD" | sed 's/&/\&amp;/; s/</\&lt;/; s/>/\&gt;/; s/"/\&quot;/'
        printf '%s %s\n' "$CACHE_URL" 'pa/ss#w0rd?x'
        printf '%s\n' "$SECRET_TOKEN" | sed 's/123/\x1b[01;31m\x1b[K&\x1b[m\x1b[K/'
        printf '\033[32msk-%s1\033[0m\n' aaaaaaaaaaaaaaaaaaaa
        printf '%s' "$DB_CREDENTIALS" | sed 's/^/> /'
        echo 'docker ps; select customer_id order by created_at; cache node-modules-v3; undefined'
    "#;
    let words = [
        "sh",
        "-c",
        script,
        "sh",
        "-pS3cretArgument1",
        "--password",
        "weak-one",
        "-u",
        "me:other-0ne",
        "--token=abc",
        "https://me:p/w-three@host:1/",
    ];
    let (output, stored, asked, shown) = wrapped_with(&[], &FIELD_VARIABLES, &words).await;
    assert_eq!(
        shown,
        "{\"user\":\"svc\",\"password\":\"[redacted]\"}\n\
         {\n  \"user\": \"svc\",\n   \"password\": \"[redacted]\"}\n\
         [redacted]\n\
         [redacted]\n\
         redis://:[redacted]@host:6379/0 [redacted]\n\
         [redacted]\u{1b}[01;31m\u{1b}[m\n\
         \u{1b}[32m[redacted]\u{1b}[0m\n\
         > admin\n> [redacted]\n\
         docker ps; select customer_id order by created_at; cache node-modules-v3; undefined\n"
    );
    let stderr = String::from_utf8_lossy(&output.stderr);
    let warnings = stderr
        .lines()
        .filter(|line| line.contains("not redacted"))
        .count();
    assert_eq!(warnings, 1, "{stderr}");
    for name in [
        "DB_CREDENTIALS",
        "MYSQL_PASSWORD",
        "PARTITION_KEY",
        "SORT_KEY",
        "CACHE_KEY",
        "API_TOKEN",
    ] {
        assert!(stderr.contains(&format!("{name} (")), "{stderr}");
    }
    let (_, body) = asked.split_once("\r\n\r\n").expect("a body");
    for secret in [
        "S3cretArgument1",
        "weak-one",
        "other-0ne",
        "token=abc",
        "p/w-three",
    ] {
        assert!(
            memchr::memmem::find(&stored, secret.as_bytes()).is_none(),
            "{secret}"
        );
        assert!(!body.contains(secret), "{secret} in {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redaction_only_the_tokens_of_runcast_are_masked() {
    let script = "echo $DB_PASSWORD $RUNCAST_TOKEN $KNOWN";
    let script = format!("KNOWN={TOKEN}; {script}");
    let (_, stored, _, shown) = wrapped(&["--no-redact"], &script).await;
    assert_eq!(shown, format!("{SECRET} [redacted] [redacted]\n"));
    assert_absent(TOKEN, &stored);
    assert_absent(RUN_TOKEN, &stored);
}
