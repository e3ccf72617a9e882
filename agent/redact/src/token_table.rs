//! The formats of tokens that services issue today: prefix, characters, least length.
//!
//! Source of these facts: the rules of gitleaks (`config/gitleaks.toml` at b58d3f1, July 2026) and
//! the detectors of TruffleHog (3ab759f, August 2026). Some prefixes that neither knows are added;
//! their least lengths are chosen so low that a longer token is found as well. Left out are formats
//! that ordinary text has as well: a bare hash, a UUID, `key-` and a hash (Mailgun, but also every
//! cache key), public keys (`pk_live_`), ids.
//!
//! Lengths are those that services document, or less where these vary.

/// The characters of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CharClass {
    Alphanumeric,
    Hex,
    Upper,
    /// Alphanumeric, `-` and `_`.
    Url,
    /// Alphanumeric, `-`, `_` and `.`.
    Dotted,
    /// Both alphabets of base64, with padding.
    Base64,
    /// What base64 and percent escapes consist of.
    Escaped,
}

impl CharClass {
    pub(super) const fn contains(self, byte: u8) -> bool {
        let is_url = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        match self {
            Self::Alphanumeric => byte.is_ascii_alphanumeric(),
            Self::Hex => byte.is_ascii_hexdigit(),
            Self::Upper => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            Self::Url => is_url,
            Self::Dotted => is_url || byte == b'.',
            Self::Base64 => is_url || matches!(byte, b'+' | b'/' | b'='),
            Self::Escaped => is_url || matches!(byte, b'+' | b'/' | b'=' | b'%'),
        }
    }
}

/// The format of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TokenFormat {
    pub(super) prefix: &'static str,
    pub(super) class: CharClass,
    /// Least number of characters behind the prefix.
    pub(super) min_length: u16,
    pub(super) min_dots: u16,
    /// Number of characters before the first dot, if that is always the same.
    pub(super) first_dot: Option<u16>,
    /// Whether words end like the prefix (`task-`): it must not follow a letter, and one character
    /// must be a digit.
    pub(super) is_ambiguous: bool,
}

const fn format(prefix: &'static str, class: CharClass, min_length: u16) -> TokenFormat {
    TokenFormat {
        prefix,
        class,
        min_length,
        min_dots: 0,
        first_dot: None,
        is_ambiguous: false,
    }
}

/// A format whose prefix is short, or a word.
const fn ambiguous(prefix: &'static str, class: CharClass, min_length: u16) -> TokenFormat {
    TokenFormat {
        is_ambiguous: true,
        ..format(prefix, class, min_length)
    }
}

/// A format of several parts, the first of which always has the same length.
const fn parts(prefix: &'static str, first_dot: u16, min_length: u16) -> TokenFormat {
    TokenFormat {
        min_dots: 1,
        first_dot: Some(first_dot),
        ..ambiguous(prefix, Dotted, min_length)
    }
}

use CharClass::{Alphanumeric, Base64, Dotted, Escaped, Hex, Upper, Url};

/// All formats, by service.
pub(super) const TOKEN_FORMATS: &[TokenFormat] = &[
    // JSON web tokens; Runcast.
    TokenFormat {
        min_dots: 2,
        ..format("eyJ", Dotted, 40)
    },
    format("rct_", Url, 40),
    // 1Password, Adobe, age, Alibaba, Artifactory, Atlassian, Bitbucket.
    format("ops_eyJ", Base64, 100),
    ambiguous("A3-", Url, 36),
    ambiguous("p8e-", Alphanumeric, 32),
    format("AGE-SECRET-KEY-1", Upper, 50),
    ambiguous("LTAI", Alphanumeric, 17),
    format("AKCp", Alphanumeric, 60),
    ambiguous("cmVmd", Alphanumeric, 59),
    format("ATATT3", Base64, 100),
    format("ATCTT3", Base64, 100),
    ambiguous("ATBB", Base64, 24),
    format("BBDC-", Base64, 40),
    // Airtable; AWS and Bedrock; Azure.
    parts("pat", 14, 70),
    format("AKIA", Upper, 16),
    format("ASIA", Upper, 16),
    ambiguous("ABIA", Upper, 16),
    ambiguous("ACCA", Upper, 16),
    ambiguous("ABSK", Base64, 100),
    format("bedrock-api-key-", Base64, 20),
    format("8Q~", Dotted, 31),
    format("7Q~", Dotted, 31),
    // Buildkite, CircleCI, Clojars, Cloudflare, Contentful, crates.io.
    format("bkua_", Alphanumeric, 40),
    format("CCIPAT_", Url, 40),
    format("CLOJARS_", Alphanumeric, 60),
    format("cfk_", Alphanumeric, 40),
    ambiguous("v1.0-", Url, 150),
    format("CFPAT-", Url, 40),
    ambiguous("cio", Alphanumeric, 32),
    // Databricks, Defined Networking, DigitalOcean, Discord, Docker, Doppler, Dropbox, Duffel.
    format("dapi", Hex, 32),
    format("dnkey-", Url, 70),
    format("dop_v1_", Hex, 40),
    format("doo_v1_", Hex, 40),
    format("dor_v1_", Hex, 40),
    format("discord.com/api/webhooks/", Base64, 60),
    format("discordapp.com/api/webhooks/", Base64, 60),
    format("dckr_pat_", Url, 24),
    format("dckr_oat_", Url, 24),
    format("dp.pt.", Alphanumeric, 40),
    format("dp.st.", Dotted, 40),
    format("dp.ct.", Alphanumeric, 40),
    format("dp.sa.", Alphanumeric, 40),
    ambiguous("sl.", Url, 100),
    format("duffel_live_", Url, 40),
    format("duffel_test_", Url, 40),
    // Dynatrace, EasyPost, Facebook, Figma, Flutterwave, Fly.io, Frame.io.
    format("dt0c01.", Dotted, 60),
    format("dt0s01.", Dotted, 60),
    ambiguous("EZAK", Alphanumeric, 54),
    ambiguous("EZTK", Alphanumeric, 54),
    ambiguous("EAAC", Alphanumeric, 100),
    ambiguous("EAAM", Alphanumeric, 100),
    format("figd_", Url, 40),
    format("figp_", Url, 40),
    format("FLWSECK-", Alphanumeric, 32),
    format("FLWSECK_TEST-", Alphanumeric, 12),
    format("fo1_", Url, 40),
    format("fm1a_", Base64, 80),
    format("fm1r_", Base64, 80),
    format("fm2_", Base64, 80),
    format("fio-u-", Url, 60),
    // GitHub, GitLab.
    format("ghp_", Alphanumeric, 36),
    format("gho_", Alphanumeric, 36),
    format("ghu_", Alphanumeric, 36),
    format("ghs_", Alphanumeric, 36),
    format("ghr_", Alphanumeric, 36),
    format("github_pat_", Url, 40),
    format("glpat-", Dotted, 20),
    format("gldt-", Url, 20),
    format("glrt-", Dotted, 20),
    format("glrtr-", Dotted, 20),
    format("glcbt-", Dotted, 20),
    format("glptt-", Url, 20),
    format("glft-", Url, 20),
    format("glimt-", Url, 20),
    format("glagent-", Url, 40),
    format("glsoat-", Url, 20),
    format("glffct-", Url, 20),
    format("gloas-", Url, 40),
    format("glwt-", Url, 20),
    format("GR1348941", Url, 20),
    // Google: keys, client secrets, access and refresh tokens; Grafana; Groq; Harness; HashiCorp.
    format("AIza", Url, 35),
    format("GOCSPX-", Url, 28),
    format("ya29.", Dotted, 20),
    ambiguous("1//0", Url, 35),
    format("glc_", Base64, 32),
    format("glsa_", Url, 36),
    format("eyJrIjoi", Base64, 60),
    format("gsk_", Alphanumeric, 40),
    parts("pat.", 22, 60),
    parts("sat.", 22, 60),
    format("atlasv1.", Url, 50),
    format("hvs.", Url, 24),
    format("hvb.", Url, 24),
    format("hvr.", Url, 24),
    // Heroku, HubSpot, Hugging Face, Infracost, Intra 42, Jina.
    format("HRKU-", Url, 36),
    format("pat-na1-", Url, 36),
    format("pat-eu1-", Url, 36),
    format("hf_", Alphanumeric, 34),
    format("api_org_", Alphanumeric, 34),
    ambiguous("ico-", Alphanumeric, 32),
    format("s-s4t2ud-", Hex, 60),
    format("s-s4t2af-", Hex, 60),
    format("jina_", Alphanumeric, 40),
    // Langfuse and LangSmith, Linear, Mapbox, Microsoft Teams, Netlify, New Relic, Notion, npm.
    format("lsv2_pt_", Url, 40),
    format("lsv2_sk_", Url, 40),
    format("lin_api_", Alphanumeric, 40),
    format("lin_oauth_", Alphanumeric, 40),
    TokenFormat {
        min_dots: 1,
        ..format("sk.eyJ", Dotted, 40)
    },
    format("webhook.office.com/webhookb2/", Base64, 36),
    format("nfp_", Alphanumeric, 36),
    format("NRAK-", Alphanumeric, 27),
    format("NRII-", Url, 25),
    format("NRIQ-", Url, 25),
    format("NRBR-", Hex, 19),
    format("ntn_", Alphanumeric, 40),
    ambiguous("secret_", Alphanumeric, 43),
    format("npm_", Alphanumeric, 36),
    // NuGet, NVIDIA, Octopus, OpenAI and Anthropic and others, OpenShift, Perplexity, Pinecone.
    ambiguous("oy2", Alphanumeric, 43),
    format("nvapi-", Url, 40),
    ambiguous("API-", Upper, 25),
    ambiguous("sk-", Url, 20),
    format("sha256~", Url, 43),
    format("pplx-", Alphanumeric, 40),
    format("pcsk_", Url, 50),
    // Plaid, PlanetScale, PostHog, Postman, Prefect, Pulumi, PyPI.
    ambiguous("access-sandbox-", Url, 36),
    ambiguous("access-development-", Url, 36),
    ambiguous("access-production-", Url, 36),
    format("pscale_tkn_", Dotted, 32),
    format("pscale_oauth_", Dotted, 32),
    format("pscale_pw_", Dotted, 32),
    format("phx_", Alphanumeric, 40),
    format("PMAK-", Url, 50),
    format("pnu_", Alphanumeric, 36),
    format("pul-", Hex, 40),
    format("pypi-", Url, 50),
    // Ramp, ReadMe, Replicate, Rootly, RubyGems, Scalingo, SendGrid, Sendinblue, Sentry.
    format("ramp_sec_", Alphanumeric, 40),
    format("rdme_", Alphanumeric, 60),
    ambiguous("r8_", Alphanumeric, 36),
    format("rootly_", Hex, 60),
    format("rubygems_", Hex, 40),
    format("tk-us-", Url, 40),
    parts("SG.", 22, 50),
    format("xkeysib-", Url, 60),
    format("xsmtpsib-", Url, 60),
    format("sntrys_", Base64, 60),
    format("sntryu_", Hex, 60),
    // SettleMint, Shippo, Shopify, Slack, Sonar, Sourcegraph, Square, Stripe, Supabase.
    format("sm_aat_", Alphanumeric, 16),
    format("sm_pat_", Alphanumeric, 16),
    format("sm_sat_", Alphanumeric, 16),
    format("shippo_live_", Hex, 40),
    format("shippo_test_", Hex, 40),
    format("shpat_", Hex, 32),
    format("shpca_", Hex, 32),
    format("shppa_", Hex, 32),
    format("shpss_", Hex, 32),
    format("shptka_", Hex, 32),
    format("xoxa-", Url, 16),
    format("xoxb-", Url, 16),
    format("xoxc-", Url, 16),
    format("xoxd-", Escaped, 16),
    format("xoxe-", Url, 16),
    format("xoxo-", Url, 16),
    format("xoxp-", Url, 16),
    format("xoxr-", Url, 16),
    format("xoxs-", Url, 16),
    format("xapp-", Url, 16),
    format("hooks.slack.com/services/", Base64, 40),
    format("hooks.slack.com/workflows/", Base64, 40),
    format("hooks.slack.com/triggers/", Base64, 40),
    ambiguous("squ_", Alphanumeric, 40),
    ambiguous("sqp_", Alphanumeric, 40),
    ambiguous("sqa_", Alphanumeric, 40),
    ambiguous("sgp_", Url, 40),
    ambiguous("slk_", Hex, 60),
    ambiguous("EAAA", Url, 60),
    format("sq0atp-", Url, 22),
    format("sq0csp-", Url, 40),
    format("sk_live_", Url, 16),
    format("rk_live_", Alphanumeric, 16),
    format("sk_prod_", Alphanumeric, 16),
    format("rk_prod_", Alphanumeric, 16),
    format("sk_test_", Alphanumeric, 16),
    format("rk_test_", Alphanumeric, 16),
    format("whsec_", Base64, 24),
    format("sbp_", Hex, 40),
    // Tailscale, Tavily, Telegram, Together, Twilio, Typeform, xAI, Yandex.
    format("tskey-", Url, 20),
    format("tvly-", Url, 24),
    format(":AA", Url, 33),
    format("tgp_v1_", Url, 40),
    ambiguous("SK", Hex, 32),
    format("tfp_", Dotted, 40),
    format("xai-", Url, 60),
    ambiguous("AQVN", Url, 35),
];
