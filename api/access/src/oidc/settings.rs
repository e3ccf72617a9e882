//! What an operator sets for signing in by OpenID Connect: all of it, or nothing.

use openidconnect::IssuerUrl;
use runcast_common::config::{ConfigError, Env};
use secrecy::SecretString;

use runcast_common::config::environment::Environment;
use runcast_store::Store;

const ISSUER: &str = "RUNCAST_OIDC_ISSUER";
const CLIENT_ID: &str = "RUNCAST_OIDC_CLIENT_ID";
const CLIENT_SECRET: &str = "RUNCAST_OIDC_CLIENT_SECRET";
const NAME: &str = "RUNCAST_OIDC_NAME";
const CREATE: &str = "RUNCAST_OIDC_CREATE";
const ROLE: &str = "RUNCAST_OIDC_ROLE";

/// Longest name of an issuer on the page, in characters.
const MOST_NAME: usize = 40;

/// Who is signed in by an issuer without any user here having been made, unless told otherwise.
const DEFAULT_ROLE: &str = "viewer";

/// An issuer, and what it may decide.
#[derive(Debug, Clone)]
pub struct OidcSettings {
    /// `RUNCAST_OIDC_ISSUER`, exactly as the issuer spells itself.
    pub issuer: IssuerUrl,
    /// `RUNCAST_OIDC_CLIENT_ID`: how the issuer knows this installation.
    pub client_id: String,
    /// `RUNCAST_OIDC_CLIENT_SECRET`: what this installation shows for it.
    pub client_secret: SecretString,
    /// `RUNCAST_OIDC_NAME`: what the page calls it; its host if nothing is said.
    pub name: String,
    /// The role of users who are made when somebody signs in whom nobody has made: `RUNCAST_OIDC_ROLE` if
    /// `RUNCAST_OIDC_CREATE` is on.
    pub create: Option<String>,
}

impl OidcSettings {
    /// Reads them; none if no setting of theirs is there.
    ///
    /// # Errors
    /// [`ConfigError`] names the one that is missing or makes no sense.
    pub fn from_env(env: &impl Env, environment: Environment) -> Result<Option<Self>, ConfigError> {
        let all = [ISSUER, CLIENT_ID, CLIENT_SECRET, NAME, CREATE, ROLE];
        if all.iter().all(|name| env.get(name).is_none()) {
            return Ok(None);
        }
        let needed = |name, hint| env.get(name).ok_or(ConfigError::Missing { name, hint });
        let issuer = needed(
            ISSUER,
            "give the address that the OpenID Connect issuer calls itself, such as https://login.example.com",
        )?;
        let issuer = issuer_url(issuer, environment)?;
        let settings = Self {
            client_id: needed(
                CLIENT_ID,
                "the issuer gives it to who registers Runcast there",
            )?,
            client_secret: needed(
                CLIENT_SECRET,
                "the issuer gives it to who registers Runcast there",
            )?
            .into(),
            name: name(env.get(NAME), &issuer)?,
            create: create(env)?,
            issuer,
        };
        if env.get("RUNCAST_PUBLIC_URL").is_none() {
            return Err(ConfigError::Missing {
                name: "RUNCAST_PUBLIC_URL",
                hint: "the issuer sends browsers back there: give the address that they reach Runcast by, and register \
                       it at the issuer with the path /v1/session/oidc/callback",
            });
        }
        Ok(Some(settings))
    }

    /// Checks that the role of new users exists.
    ///
    /// # Errors
    /// If it does not, or Postgres cannot say.
    pub async fn check_role(&self, store: &Store) -> anyhow::Result<()> {
        let Some(role) = &self.create else {
            return Ok(());
        };
        if store.role(role).await?.is_none() {
            let shown: String = role.chars().take(80).collect();
            let reason =
                format!("there is no role {shown:?}: make it by `POST /v1/roles`, or name another");
            return Err(ConfigError::Invalid { name: ROLE, reason }.into());
        }
        Ok(())
    }
}

fn issuer_url(text: String, environment: Environment) -> Result<IssuerUrl, ConfigError> {
    let refused = |reason: &str| ConfigError::Invalid {
        name: ISSUER,
        reason: reason.to_owned(),
    };
    let expected =
        "expected an address such as https://login.example.com, without query and fragment";
    let issuer = IssuerUrl::new(text).map_err(|_no_url| refused(expected))?;
    let url = issuer.url();
    let is_plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    match url.scheme() {
        "https" | "http" if !url.has_host() || !is_plain => Err(refused(expected)),
        "https" => Ok(issuer),
        "http" if environment == Environment::Development => Ok(issuer),
        "http" => Err(refused(
            "in production it must be https: it says who everybody is",
        )),
        _ => Err(refused(expected)),
    }
}

fn name(given: Option<String>, issuer: &IssuerUrl) -> Result<String, ConfigError> {
    let Some(name) = given else {
        return Ok(issuer.url().host_str().unwrap_or_default().to_owned());
    };
    let name = name.trim();
    if (1..=MOST_NAME).contains(&name.chars().count()) && !name.chars().any(char::is_control) {
        return Ok(name.to_owned());
    }
    Err(ConfigError::Invalid {
        name: NAME,
        reason: format!("expected 1 to {MOST_NAME} characters for a button"),
    })
}

fn create(env: &impl Env) -> Result<Option<String>, ConfigError> {
    let role = env.get(ROLE);
    match (env.get(CREATE).as_deref(), role) {
        (Some("on"), role) => Ok(Some(role.unwrap_or_else(|| DEFAULT_ROLE.to_owned()))),
        (None | Some("off"), None) => Ok(None),
        (None | Some("off"), Some(_)) => Err(ConfigError::Invalid {
            name: ROLE,
            reason: format!("it is the role of users whom {CREATE} makes, and that is off"),
        }),
        (Some(_), _) => Err(ConfigError::Invalid {
            name: CREATE,
            reason: "expected on or off".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const WHOLE: [(&str, &str); 4] = [
        (ISSUER, "https://login.example.com/realm"),
        (CLIENT_ID, "runcast"),
        (CLIENT_SECRET, "s3cret-s3cret"),
        ("RUNCAST_PUBLIC_URL", "https://runcast.example.com"),
    ];

    fn read(
        change: &[(&'static str, &'static str)],
        environment: Environment,
    ) -> Result<Option<OidcSettings>, String> {
        let mut env = HashMap::from(WHOLE);
        env.extend(change.iter().copied());
        OidcSettings::from_env(&env, environment).map_err(|error| error.to_string())
    }

    #[test]
    fn it_is_all_or_nothing() {
        let nothing = HashMap::<&str, &str>::new();
        let read_nothing = OidcSettings::from_env(&nothing, Environment::Production);
        assert!(read_nothing.expect("nothing is wrong").is_none());
        let whole = read(&[], Environment::Production);
        let whole = whole.expect("it is whole").expect("it is there");
        assert_eq!(whole.name, "login.example.com");
        assert_eq!(whole.create, None);
        assert!(!format!("{whole:?}").contains("s3cret"), "{whole:?}");
        // An empty setting counts as absent.
        for (missing, _) in WHOLE {
            let error = read(&[(missing, "")], Environment::Development).expect_err(missing);
            assert!(
                error.starts_with(&format!("{missing} is not set")),
                "{error}"
            );
        }
        let alone = HashMap::from([(NAME, "Example")]);
        let error = OidcSettings::from_env(&alone, Environment::Development).expect_err("half");
        assert!(error.to_string().starts_with(ISSUER), "{error}");
    }

    #[test]
    fn who_may_be_made_and_how_it_is_called_can_be_said() {
        let settings = read(
            &[(NAME, " Example "), (CREATE, "on")],
            Environment::Production,
        );
        let settings = settings.expect("settings").expect("they are there");
        assert_eq!(settings.name, "Example");
        assert_eq!(settings.create.as_deref(), Some("viewer"));
        let settings = read(&[(CREATE, "on"), (ROLE, "team")], Environment::Production);
        let settings = settings.expect("settings").expect("they are there");
        assert_eq!(settings.create.as_deref(), Some("team"));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let http = (ISSUER, "http://login.internal");
        read(&[http], Environment::Development).expect("to try it out");
        for (name, value) in [
            http,
            (ISSUER, "login.example.com"),
            (ISSUER, "ftp://login.example.com"),
            (ISSUER, "https://login.example.com?realm=a"),
            (ISSUER, "https://me:s3cret@login.example.com"),
            (NAME, "a name that is longer than any button has room for"),
            (CREATE, "yes"),
            (ROLE, "viewer"),
        ] {
            let error = read(&[(name, value)], Environment::Production).expect_err(name);
            assert!(
                error.starts_with(name) && !error.contains("s3cret"),
                "{error}"
            );
        }
    }
}
