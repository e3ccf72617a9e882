//! [`OidcSettings`]: the `RUNCAST_OIDC_*` settings. The required ones are set together, or none is.

use openidconnect::IssuerUrl;
use runcast_common::config::{ConfigError, Env};
use secrecy::SecretString;

use runcast_common::config::environment::Environment;
use runcast_store::Store;

const ISSUER_VARIABLE: &str = "RUNCAST_OIDC_ISSUER";
const CLIENT_ID_VARIABLE: &str = "RUNCAST_OIDC_CLIENT_ID";
const CLIENT_SECRET_VARIABLE: &str = "RUNCAST_OIDC_CLIENT_SECRET";
const NAME_VARIABLE: &str = "RUNCAST_OIDC_NAME";
const CREATE_VARIABLE: &str = "RUNCAST_OIDC_CREATE";
const ROLE_VARIABLE: &str = "RUNCAST_OIDC_ROLE";

/// Longest name of an issuer on the page.
const MAX_NAME_CHARS: usize = 40;

/// The role of users that are created at sign-in, unless the operator sets another.
const DEFAULT_ROLE: &str = "viewer";

/// The issuer, and what its accounts may do.
#[derive(Debug, Clone)]
pub struct OidcSettings {
    /// `RUNCAST_OIDC_ISSUER`, exactly as the issuer spells its URL.
    pub issuer: IssuerUrl,
    /// `RUNCAST_OIDC_CLIENT_ID`: the id of this installation at the issuer.
    pub client_id: String,
    /// `RUNCAST_OIDC_CLIENT_SECRET`: the secret for that id.
    pub client_secret: SecretString,
    /// `RUNCAST_OIDC_NAME`: the name of the issuer on the page; by default its host.
    pub name: String,
    /// The role of users that are created at their first sign-in: `RUNCAST_OIDC_ROLE` if
    /// `RUNCAST_OIDC_CREATE` is on.
    pub create: Option<String>,
}

impl OidcSettings {
    /// Reads the settings; none if none is set. The error names the one that is missing or invalid.
    pub fn from_env(env: &impl Env, environment: Environment) -> Result<Option<Self>, ConfigError> {
        let all = [
            ISSUER_VARIABLE,
            CLIENT_ID_VARIABLE,
            CLIENT_SECRET_VARIABLE,
            NAME_VARIABLE,
            CREATE_VARIABLE,
            ROLE_VARIABLE,
        ];
        if all.iter().all(|name| env.get(name).is_none()) {
            return Ok(None);
        }
        let needed = |name, hint| env.get(name).ok_or(ConfigError::Missing { name, hint });
        let issuer = needed(
            ISSUER_VARIABLE,
            "set it to the URL of the OpenID Connect issuer, exactly as the issuer spells it, \
             such as https://login.example.com",
        )?;
        let issuer = issuer_url(issuer, environment)?;
        let settings = Self {
            client_id: needed(
                CLIENT_ID_VARIABLE,
                "the issuer assigns it when you register Runcast there",
            )?,
            client_secret: needed(
                CLIENT_SECRET_VARIABLE,
                "the issuer assigns it when you register Runcast there",
            )?
            .into(),
            name: name(env.get(NAME_VARIABLE), &issuer)?,
            create: create(env)?,
            issuer,
        };
        if env.get("RUNCAST_PUBLIC_URL").is_none() {
            return Err(ConfigError::Missing {
                name: "RUNCAST_PUBLIC_URL",
                hint: "the issuer sends browsers back to it: set it to the URL of Runcast in \
                       browsers, and register it at the issuer with the path /v1/session/oidc/callback",
            });
        }
        Ok(Some(settings))
    }

    /// Checks that the role of new users exists.
    pub async fn check_role(&self, store: &Store) -> anyhow::Result<()> {
        let Some(role) = &self.create else {
            return Ok(());
        };
        if store.role(role).await?.is_none() {
            let role: String = role.chars().take(80).collect();
            let reason = format!(
                "there is no role {role:?}: create it with `POST /v1/roles`, or set another"
            );
            return Err(ConfigError::Invalid {
                name: ROLE_VARIABLE,
                reason,
            }
            .into());
        }
        Ok(())
    }
}

fn issuer_url(text: String, environment: Environment) -> Result<IssuerUrl, ConfigError> {
    let refused = |reason: &str| ConfigError::Invalid {
        name: ISSUER_VARIABLE,
        reason: reason.to_owned(),
    };
    let expected = "expected a URL such as https://login.example.com, without query and fragment";
    let issuer = IssuerUrl::new(text).map_err(|_no_url| refused(expected))?;
    let url = issuer.url();
    let is_plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    match url.scheme() {
        "https" | "http" if !url.has_host() || !is_plain => Err(refused(expected)),
        "https" => Ok(issuer),
        "http" if environment == Environment::Development => Ok(issuer),
        "http" => Err(refused(
            "in production it must be https: it decides who signs in",
        )),
        _ => Err(refused(expected)),
    }
}

fn name(given: Option<String>, issuer: &IssuerUrl) -> Result<String, ConfigError> {
    let Some(name) = given else {
        return Ok(issuer.url().host_str().unwrap_or_default().to_owned());
    };
    let name = name.trim();
    if (1..=MAX_NAME_CHARS).contains(&name.chars().count()) && !name.chars().any(char::is_control) {
        return Ok(name.to_owned());
    }
    Err(ConfigError::Invalid {
        name: NAME_VARIABLE,
        reason: format!("expected 1 to {MAX_NAME_CHARS} characters for a button"),
    })
}

fn create(env: &impl Env) -> Result<Option<String>, ConfigError> {
    let role = env.get(ROLE_VARIABLE);
    match (env.get(CREATE_VARIABLE).as_deref(), role) {
        (Some("on"), role) => Ok(Some(role.unwrap_or_else(|| DEFAULT_ROLE.to_owned()))),
        (None | Some("off"), None) => Ok(None),
        (None | Some("off"), Some(_)) => Err(ConfigError::Invalid {
            name: ROLE_VARIABLE,
            reason: format!(
                "it is the role of users that {CREATE_VARIABLE} creates, and that is off"
            ),
        }),
        (Some(_), _) => Err(ConfigError::Invalid {
            name: CREATE_VARIABLE,
            reason: "expected on or off".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const COMPLETE_SETTINGS: [(&str, &str); 4] = [
        (ISSUER_VARIABLE, "https://login.example.com/realm"),
        (CLIENT_ID_VARIABLE, "runcast"),
        (CLIENT_SECRET_VARIABLE, "s3cret-s3cret"),
        ("RUNCAST_PUBLIC_URL", "https://runcast.example.com"),
    ];

    fn read(
        change: &[(&'static str, &'static str)],
        environment: Environment,
    ) -> Result<Option<OidcSettings>, String> {
        let mut env = HashMap::from(COMPLETE_SETTINGS);
        env.extend(change.iter().copied());
        OidcSettings::from_env(&env, environment).map_err(|error| error.to_string())
    }

    #[test]
    fn the_required_settings_are_set_together() {
        let nothing = HashMap::<&str, &str>::new();
        let read_nothing = OidcSettings::from_env(&nothing, Environment::Production);
        assert!(read_nothing.expect("nothing is wrong").is_none());
        let whole = read(&[], Environment::Production);
        let whole = whole.expect("it is whole").expect("it is there");
        assert_eq!(whole.name, "login.example.com");
        assert_eq!(whole.create, None);
        assert!(!format!("{whole:?}").contains("s3cret"), "{whole:?}");
        // An empty setting counts as absent.
        for (missing, _) in COMPLETE_SETTINGS {
            let error = read(&[(missing, "")], Environment::Development).expect_err(missing);
            assert!(
                error.starts_with(&format!("{missing} is not set")),
                "{error}"
            );
        }
        let alone = HashMap::from([(NAME_VARIABLE, "Example")]);
        let error = OidcSettings::from_env(&alone, Environment::Development).expect_err("half");
        assert!(error.to_string().starts_with(ISSUER_VARIABLE), "{error}");
    }

    #[test]
    fn the_name_and_the_role_of_new_users_can_be_set() {
        let settings = read(
            &[(NAME_VARIABLE, " Example "), (CREATE_VARIABLE, "on")],
            Environment::Production,
        );
        let settings = settings.expect("settings").expect("they are there");
        assert_eq!(settings.name, "Example");
        assert_eq!(settings.create.as_deref(), Some("viewer"));
        let settings = read(
            &[(CREATE_VARIABLE, "on"), (ROLE_VARIABLE, "team")],
            Environment::Production,
        );
        let settings = settings.expect("settings").expect("they are there");
        assert_eq!(settings.create.as_deref(), Some("team"));
    }

    #[test]
    fn invalid_settings_are_rejected_by_name() {
        let http = (ISSUER_VARIABLE, "http://login.internal");
        read(&[http], Environment::Development).expect("to try it out");
        for (name, value) in [
            http,
            (ISSUER_VARIABLE, "login.example.com"),
            (ISSUER_VARIABLE, "ftp://login.example.com"),
            (ISSUER_VARIABLE, "https://login.example.com?realm=a"),
            (ISSUER_VARIABLE, "https://me:s3cret@login.example.com"),
            (
                NAME_VARIABLE,
                "a name that is longer than any button has room for",
            ),
            (CREATE_VARIABLE, "yes"),
            (ROLE_VARIABLE, "viewer"),
        ] {
            let error = read(&[(name, value)], Environment::Production).expect_err(name);
            assert!(
                error.starts_with(name) && !error.contains("s3cret"),
                "{error}"
            );
        }
    }
}
