//! One field of a structured secret, and structured secrets that were written anew.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::{EnvRedaction, IgnoredVariable, Redactor, from_variables};

fn of(name: &str, value: &str) -> (Redactor, Vec<String>) {
    let (redactor, ignored) = from_variables(
        [(name.into(), value.into())],
        &EnvRedaction::Usual(Vec::new()),
    );
    let ignored = ignored.iter().map(IgnoredVariable::to_string);
    (redactor, ignored.collect())
}

/// Checks that these words are masked, and that the others are not.
fn assert_parts(name: &str, value: &str, masked: &[&str], readable: &[&str]) {
    let (redactor, ignored) = of(name, value);
    assert_eq!(ignored, [""; 0], "{name}={value}");
    for word in masked {
        assert_eq!(
            redactor.text(word),
            "[redacted]",
            "{word} of {name}={value}"
        );
    }
    for word in readable {
        assert_eq!(redactor.text(word), *word, "{word} of {name}={value}");
    }
}

#[test]
fn fields_of_json_are_redacted_in_any_layout() {
    let value = r#"{"user": "svc", "password": "correct-horse-9"}"#;
    let (redactor, _) = of("APP_SECRET", value);
    for (text, expected) in [
        (value, "[redacted]"),
        (
            r#"{"user":"svc","password":"correct-horse-9"}"#,
            r#"{"user":"svc","password":"[redacted]"}"#,
        ),
        (
            "{\n  \"user\": \"svc\",\n  \"password\": \"correct-horse-9\"\n}",
            "{\n  \"user\": \"svc\",\n  \"password\": \"[redacted]\"\n}",
        ),
        ("correct-horse-9", "[redacted]"),
    ] {
        assert_eq!(redactor.text(text), expected);
    }
    let account = r#"{"type": "service_account", "project_id": "my-project-123456",
        "private_key_id": "8d777f385d3dfec8815d20f7496026dc8d777f38",
        "private_key": "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----\n",
        "client_email": "svc@my-project-123456.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token", "pin": 492912341234, "n": [true, null],
        "nested": {"list": [{"apiKey": "k3y-0f-the-list"}], "other": "9f86d081884c7d65aB"}}"#;
    assert_parts(
        "GOOGLE_CREDENTIALS",
        account,
        &[
            "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC",
            "k3y-0f-the-list",
            "9f86d081884c7d65aB",
        ],
        &[
            "service_account",
            "my-project-123456",
            "{",
            "}",
            "\"type\": \"service_account\",",
            "svc@my-project-123456.iam.gserviceaccount.com",
            "password",
            "private_key",
            "https://oauth2.googleapis.com/token",
            "-----BEGIN PRIVATE KEY-----",
        ],
    );
}

#[test]
fn pairs_are_redacted_by_their_names() {
    for (name, value, masked, readable) in [
        (
            "ENV_SECRETS",
            "# comment\nDB_HOST=db.example\nexport DB_PASSWORD='p4ss word'\nSTRIPE=rk9f86d081884c7d",
            &["p4ss word", "rk9f86d081884c7d"][..],
            &["db.example", "DB_PASSWORD", "comment"][..],
        ),
        (
            "MSSQL_CONNECTION_STRING",
            "Server=tcp:db.example,1433;User Id=sa;Password=p4ss;word9;Encrypt=true;Pwd=an0ther",
            &["an0ther", "p4ss;word9"],
            &["Server", "Encrypt"],
        ),
        (
            "PG_DSN",
            "host=db.example user=app password=p4ssword9 sslmode=require",
            &["p4ssword9"],
            &["db.example", "require", "sslmode"],
        ),
        (
            "QUERY_SECRET",
            "user=svc&password=p4ssword9&mode=fast",
            &["p4ssword9"],
            &["svc", "fast"],
        ),
        (
            "MY_NETRC",
            "machine api.example login deploy password n3trc-pass",
            &["n3trc-pass"],
            &["machine", "api.example", "deploy"],
        ),
        (
            "NPMRC_SECRET",
            "registry=https://registry.example/\n//registry.example/:_authToken=npm-t0ken-1\nalways-auth=true",
            &["npm-t0ken-1"],
            &["registry", "https://registry.example/"],
        ),
    ] {
        assert_parts(name, value, masked, readable);
    }
}

#[test]
fn files_of_credentials_are_redacted_by_their_fields() {
    let auth = BASE64.encode("bot:dock3r-pass");
    let docker = format!(r#"{{"auths": {{"registry.example": {{"auth": "{auth}"}}}}}}"#);
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- cluster:\n    server: https://10.0.0.1:6443\n\
         users:\n- name: admin\n  user:\n    client-key-data: {}\n    token: k8s-t0ken-value\n    \
         password: \"quoted pass\"\n",
        BASE64.encode("-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\n")
    );
    let encoded = BASE64.encode(&kubeconfig);
    let cases: [(&str, &str, &[&str], &[&str]); 6] = [
        (
            "DOCKER_AUTH_CONFIG",
            &docker,
            &["dock3r-pass", &auth],
            &["auths", "registry.example"],
        ),
        (
            "KUBECONFIG_DATA",
            &kubeconfig,
            &["k8s-t0ken-value", "quoted pass"],
            &["kind: Config", "https://10.0.0.1:6443"],
        ),
        (
            "KUBECONFIG_B64",
            &encoded,
            &["k8s-t0ken-value", "quoted pass"],
            &["kind: Config"],
        ),
        (
            "REGISTRY_AUTH",
            "bot:dock3r-pass",
            &["dock3r-pass"],
            &["bot"],
        ),
        (
            "HTTP_AUTHORIZATION",
            "Bearer b34rer-value",
            &["b34rer-value"],
            &["Bearer"],
        ),
        (
            "REQUEST_SECRET",
            "Authorization: Basic Ym90OmRvY2szci1wYXNz",
            &["dock3r-pass"],
            &["Basic"],
        ),
    ];
    for (name, value, masked, readable) in cases {
        assert_parts(name, value, masked, readable);
    }
}

#[test]
fn fields_and_addresses_in_any_variable_are_redacted_by_their_names_alone() {
    assert_parts(
        "VCAP_SERVICES",
        r#"{"db": [{"credentials": {"password": "p4ssword9", "hash": "9f86d081884c7d65"}}]}"#,
        &["p4ssword9"],
        &["9f86d081884c7d65"],
    );
    assert_parts(
        "JDBC_URL",
        "jdbc:mysql://h/db?user=x&password=p4ssword9",
        &["p4ssword9"],
        &["user"],
    );
    assert_parts(
        "REDIS_URL",
        "redis://:pa/ss#w0rd?x@host:6379/0",
        &["pa/ss#w0rd?x"],
        &["host:6379/0"],
    );
    assert_parts("PATH", "/usr/bin:/bin", &[], &["/usr/bin", "/bin"]);
    assert_parts("PS1", "token: $ ", &[], &["token: "]);
}

#[test]
fn short_lines_are_redacted_or_reported() {
    let (redactor, ignored) = of("DB_CREDENTIALS", "admin\nS3cr3tPw9\n");
    assert_eq!(redactor.text("admin"), "admin");
    assert_eq!(redactor.text("S3cr3tPw9"), "[redacted]");
    assert_eq!(
        redactor.text("[x] admin\n[x] S3cr3tPw9"),
        "[x] admin\n[x] [redacted]"
    );
    assert_eq!(ignored, ["DB_CREDENTIALS (a part: shorter than 6 bytes)"]);
}
