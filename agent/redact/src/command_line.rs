//! Secrets in the arguments of a command, which become part of the description of its run.
//!
//! They are recognized by where they stand:
//!
//! - behind an option with the name of a secret: `--password X`, `--db-password=X`, `-password X`;
//! - behind the short options of programs that are known for it ([`PROGRAMS`]): `mysql -pX`,
//!   `redis-cli -a X`, `sshpass -p X`; and `-pX` of any program if X looks like a password;
//! - as the second half of `-u user:password`, and behind `-p` beside `-u`;
//! - in an assignment (`DB_PASSWORD=X`, `-Ddb.password=X`), in JSON (`"password": "X"`), in a
//!   header (`Authorization: Bearer X`);
//! - in an address (`scheme://user:X@host`, `?token=X`).
//!
//! An argument with spaces is read as a command line too, since it is one in `sh -c`. What is found
//! is masked whatever it looks like; if it is no ordinary text, the output is searched for it too.
//! Time: a few passes over the arguments.

use std::ops::Range;

use super::address;
use super::redactor::{Candidate, Redactor};
use super::secret_name::NameClass;
use super::secret_parts::SecretPart;
use super::secret_value::{Evidence, MASK};
use super::shape;

/// Programs and their short options with a secret; with `+`, only in the same argument.
const PROGRAMS: [(&str, &[&str]); 30] = [
    ("mysql", &["-p+"]),
    ("mysqldump", &["-p+"]),
    ("mysqladmin", &["-p+"]),
    ("mysqlimport", &["-p+"]),
    ("mysqlsh", &["-p+"]),
    ("mariadb", &["-p+"]),
    ("mariadb-dump", &["-p+"]),
    ("mariadb-admin", &["-p+"]),
    ("sshpass", &["-p"]),
    ("mongo", &["-p"]),
    ("mongosh", &["-p"]),
    ("mongodump", &["-p"]),
    ("mongorestore", &["-p"]),
    ("mongoimport", &["-p"]),
    ("redis-cli", &["-a"]),
    ("cqlsh", &["-p"]),
    ("sqlcmd", &["-P"]),
    ("bcp", &["-P"]),
    ("ldapsearch", &["-w"]),
    ("ldapadd", &["-w"]),
    ("ldapmodify", &["-w"]),
    ("7z", &["-p+"]),
    ("7za", &["-p+"]),
    ("unrar", &["-p+"]),
    ("rar", &["-p+", "-hp+"]),
    ("zip", &["-P"]),
    ("unzip", &["-P"]),
    ("mosquitto_pub", &["-P"]),
    ("mosquitto_sub", &["-P"]),
    ("ipmitool", &["-P"]),
];

/// Options whose value is `user:password`.
const USER_OPTIONS: [&str; 5] = ["-u", "-U", "--user", "--proxy-user", "--auth"];

/// Long options that begin like `-p` and a password.
const LONG_P_OPTIONS: [&str; 4] = ["print0", "parallel", "port", "profile"];

/// Longest name that is recognized.
const MAX_NAME_BYTES: usize = 128;

/// Shortest password that is recognized behind `-p` of any program.
const MIN_GLUED_BYTES: usize = 6;

/// The arguments of a command without their secrets.
#[derive(Debug)]
pub struct CommandLine {
    /// The arguments, masked.
    pub arguments: Vec<Vec<u8>>,
}

impl CommandLine {
    /// Masks the secrets in arguments, and makes the redactor search the output for them.
    pub fn new<'a>(arguments: impl IntoIterator<Item = &'a [u8]>, redactor: &Redactor) -> Self {
        let arguments: Vec<&[u8]> = arguments.into_iter().collect();
        let whole = arguments.iter().map(|argument| 0..argument.len());
        let words = arguments.iter().zip(whole).enumerate();
        let words = words.map(|(argument, (text, range))| Word {
            argument,
            text,
            range,
        });
        let mut secrets: Vec<Vec<Range<usize>>> = vec![Vec::new(); arguments.len()];
        find(&words.collect::<Vec<_>>(), &mut secrets);
        for (argument, text) in arguments.iter().enumerate().skip(1) {
            let inner = inner_words(argument, text);
            if inner.len() > 1 {
                find(&inner, &mut secrets);
            }
        }
        let mut candidates = Vec::new();
        for (argument, ranges) in secrets.iter().enumerate() {
            for range in ranges {
                let value = arguments[argument][range.clone()].to_vec();
                let part = SecretPart {
                    value,
                    evidence: Evidence::Name,
                    is_reported: false,
                };
                candidates.push(Candidate::of_part(argument, part));
            }
        }
        // Ordinary words are rejected, and masked here only.
        redactor.add_candidates(&candidates);
        let masked = arguments.iter().zip(secrets);
        let masked = masked.map(|(argument, ranges)| redactor.bytes(&mask(argument, ranges)));
        Self {
            arguments: masked.collect(),
        }
    }
}

/// A word, and where it is in its argument.
struct Word<'a> {
    argument: usize,
    text: &'a [u8],
    range: Range<usize>,
}

/// The words of an argument that is a command line itself. Quotes join words.
fn inner_words(argument: usize, text: &[u8]) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    for (at, byte) in text.iter().enumerate() {
        let is_between = byte.is_ascii_whitespace() || matches!(byte, b';' | b'|' | b'(' | b')');
        match quote {
            Some(open) if open == *byte => quote = None,
            Some(_) => {}
            None if matches!(byte, b'"' | b'\'') => {
                quote = Some(*byte);
                start = start.or(Some(at));
            }
            None if is_between => {
                words.extend(start.take().map(|start| start..at));
            }
            None => start = start.or(Some(at)),
        }
    }
    words.extend(start.map(|start| start..text.len()));
    let words = words.into_iter().map(|range| {
        let range = without_quotes(text, range);
        Word {
            argument,
            text: &text[range.clone()],
            range,
        }
    });
    words.collect()
}

fn without_quotes(text: &[u8], range: Range<usize>) -> Range<usize> {
    let word = &text[range.clone()];
    match word {
        [b'"', .., b'"'] | [b'\'', .., b'\''] if word.len() > 1 => range.start + 1..range.end - 1,
        _ => range,
    }
}

/// Finds the secrets in words.
fn find(words: &[Word<'_>], secrets: &mut [Vec<Range<usize>>]) {
    let mut program: &[&str] = &[];
    let mut has_user = false;
    let mut is_login = false;
    for (index, word) in words.iter().enumerate() {
        let next = words.get(index + 1);
        let mut add = |word: &Word<'_>, range: Range<usize>| {
            let range = word.range.start + range.start..word.range.start + range.end;
            if !range.is_empty() {
                secrets[word.argument].push(range);
            }
        };
        let base = word
            .text
            .rsplit(|byte| *byte == b'/')
            .next()
            .unwrap_or_default();
        if let Some((_, options)) = PROGRAMS.iter().find(|(name, _)| base == name.as_bytes()) {
            program = options;
            has_user = false;
        }
        is_login |= base == b"login";
        for range in in_word(word.text) {
            add(word, range);
        }
        if let Some(range) = glued(word.text, program) {
            add(word, range);
            program = &[];
        }
        let Some(next) = next else {
            continue;
        };
        let is_value = !next.text.starts_with(b"-") || !next.text.is_ascii();
        let is_program_option = program.iter().any(|option| word.text == option.as_bytes());
        let is_password = word.text == b"-p" && (has_user || is_login) && !is_number(next.text);
        let is_value = is_value && !is_reference(next.text);
        if is_value && (is_program_option || is_password || is_secret_option(word.text, next.text))
        {
            let start = scheme_length(next.text);
            add(next, start..next.text.len());
            program = if is_program_option { &[] } else { program };
        }
        if USER_OPTIONS
            .iter()
            .any(|option| word.text == option.as_bytes())
        {
            has_user = true;
            add(next, password_of(next.text));
        }
    }
}

/// The secrets that a word shows by itself.
fn in_word(word: &[u8]) -> Vec<Range<usize>> {
    let mut ranges = address::password_ranges(word);
    // `name=value` and `name: value`, anywhere in the word.
    for (at, byte) in word.iter().enumerate() {
        if !matches!(byte, b'=' | b':') || word[at..].starts_with(b"://") {
            continue;
        }
        let is_part = |byte: &u8| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'_' | b'-' | b'.' | b'"' | b'\'' | b'\\')
        };
        let start = word[..at]
            .iter()
            .rposition(|byte| !is_part(byte))
            .map_or(0, |last| last + 1);
        let name = word[start..at].trim_ascii();
        let name = name
            .iter()
            .copied()
            .filter(|byte| !matches!(byte, b'"' | b'\'' | b'\\'));
        let name: Vec<u8> = name.take(MAX_NAME_BYTES).collect();
        let name = name.strip_prefix(b"-D").unwrap_or(&name);
        let is_user = USER_OPTIONS.iter().any(|option| name == option.as_bytes()) && *byte == b'=';
        let class = NameClass::of(name);
        if class == NameClass::Other && !is_user {
            continue;
        }
        let value = value_range(word, start, at);
        if is_reference(&word[value.clone()]) {
            continue;
        }
        let is_secret = match class {
            NameClass::Secret => {
                *byte == b'=' || is_spaced(word, at) || word[..at].ends_with(b"\"")
            }
            NameClass::Key | NameClass::Setting => shape::is_random(&word[value.clone()]),
            NameClass::DataKey | NameClass::Other => false,
        };
        match () {
            () if is_user => {
                let password = password_of(&word[value.clone()]);
                ranges.push(value.start + password.start..value.start + password.end);
            }
            () if is_secret => ranges.push(value),
            () => {}
        }
    }
    ranges
}

/// Whether a value names a variable of the shell: `$PASSWORD`, `${PASSWORD}`, `$(cat password)`.
fn is_reference(value: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
    match value {
        [b'$', b'{' | b'(', ..] => true,
        [b'$', name @ ..] => !name.is_empty() && name.iter().all(is_part),
        _ => false,
    }
}

/// Whether a space or a quote follows a colon.
fn is_spaced(word: &[u8], colon: usize) -> bool {
    matches!(word.get(colon + 1), Some(b' ' | b'"' | b'\''))
}

/// The value of a name that starts at an index and ends at its separator: to the closing quote, or
/// to the end of the field.
fn value_range(word: &[u8], name: usize, separator: usize) -> Range<usize> {
    let skipped = word[separator + 1..]
        .iter()
        .take_while(|byte| **byte == b' ')
        .count();
    let mut start = separator + 1 + skipped;
    start += scheme_length(&word[start..]);
    let is_quote = |byte: &&u8| matches!(byte, b'"' | b'\'');
    // Around the value, or around the name and the value.
    let own = word.get(start).filter(is_quote);
    let outer = word
        .get(name)
        .filter(is_quote)
        .filter(|quote| word[separator - 1] != **quote);
    if own.is_some() {
        start += 1;
    }
    let rest = &word[start..];
    let end = match own.or(outer) {
        Some(quote) => {
            let is_escaped = |at: usize| at > 0 && rest[at - 1] == b'\\';
            memchr::memchr_iter(*quote, rest).find(|at| !is_escaped(*at))
        }
        None => {
            let is_query = memchr::memmem::find(&word[..start], b"://").is_some();
            let is_json = word.first().is_some_and(|byte| matches!(byte, b'{' | b'['));
            // An assignment ends at a space, unless it is all there is.
            let is_inside = name > 0 && word[separator] == b'=';
            rest.iter().position(|byte| match byte {
                b'&' | b'#' => is_query,
                b' ' | b'\t' => is_inside,
                b',' | b'}' => is_json,
                byte => *byte == b'\n',
            })
        }
    };
    start..end.map_or(word.len(), |end| start + end)
}

/// Length of the scheme of an HTTP credential.
fn scheme_length(value: &[u8]) -> usize {
    let schemes: [&[u8]; 4] = [b"bearer ", b"basic ", b"token ", b"digest "];
    let scheme = schemes.iter().find(|scheme| {
        let start = value.get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    });
    scheme.map_or(0, |scheme| scheme.len())
}

/// Whether a word is an option whose value is a secret.
fn is_secret_option(word: &[u8], value: &[u8]) -> bool {
    let name = word.strip_prefix(b"--").or_else(|| word.strip_prefix(b"-"));
    let Some(name) = name.filter(|name| name.len() > 1 && !name.contains(&b'=')) else {
        return false;
    };
    // `-psecret` is an option and its value.
    let is_glued = !word.starts_with(b"--") && name[0] == b'p';
    match NameClass::of(name) {
        NameClass::Secret => !is_glued || name.starts_with(b"pass") || name.starts_with(b"pw"),
        NameClass::Key | NameClass::Setting => shape::is_random(value),
        NameClass::DataKey | NameClass::Other => false,
    }
}

/// A secret in the same argument as its short option.
fn glued(word: &[u8], program: &[&str]) -> Option<Range<usize>> {
    for option in program {
        let option = option.trim_end_matches('+').as_bytes();
        if word.len() > option.len() && word.starts_with(option) {
            return Some(option.len()..word.len());
        }
    }
    let rest = word.strip_prefix(b"-p")?;
    let is_option = LONG_P_OPTIONS.iter().any(|option| {
        word.get(1..)
            .is_some_and(|word| word.starts_with(option.as_bytes()))
    });
    let has = |is: fn(&u8) -> bool| rest.iter().any(is);
    let is_password = rest.len() >= MIN_GLUED_BYTES
        && has(u8::is_ascii_alphabetic)
        && has(u8::is_ascii_digit)
        && !has(|byte| matches!(byte, b'/' | b'=' | b':' | b','));
    (is_password && !is_option).then_some(2..word.len())
}

/// The password of `user:password`, empty if it is none: two numbers are a user and a group, and a
/// number behind a host is a port.
fn password_of(text: &[u8]) -> Range<usize> {
    let colon = memchr::memchr(b':', text).filter(|_| memchr::memmem::find(text, b"://").is_none());
    let Some(colon) = colon else {
        return 0..0;
    };
    let (user, password) = (&text[..colon], &text[colon + 1..]);
    let is_host = user.contains(&b'.') || user == b"localhost";
    match is_number(password) && (is_number(user) || is_host) {
        true => 0..0,
        false => colon + 1..text.len(),
    }
}

fn is_number(text: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b':' | b'.' | b'/');
    text.iter().all(is_part)
}

fn mask(argument: &[u8], mut ranges: Vec<Range<usize>>) -> Vec<u8> {
    ranges.sort_by_key(|range| range.start);
    let mut masked = Vec::with_capacity(argument.len());
    let mut at = 0;
    for range in ranges {
        if range.end <= at {
            continue;
        }
        if range.start >= at {
            masked.extend_from_slice(&argument[at..range.start]);
            masked.extend_from_slice(MASK);
        }
        at = range.end;
    }
    masked.extend_from_slice(&argument[at..]);
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(arguments: &[&str]) -> (String, Redactor) {
        let redactor = Redactor::new();
        let bytes = arguments.iter().map(|argument| argument.as_bytes());
        let line = CommandLine::new(bytes, &redactor);
        let words = line
            .arguments
            .iter()
            .map(|word| String::from_utf8_lossy(word).into_owned());
        (words.collect::<Vec<_>>().join(" "), redactor)
    }

    #[test]
    fn secrets_are_masked_where_they_stand() {
        for (line, expected) in [
            ("mysql -uroot -ps3cr3t db", "mysql -uroot -p* db"),
            (
                "mysql -u root -psecret -e select",
                "mysql -u root -p* -e select",
            ),
            ("tool -pS3cretPw9 x", "tool -p* x"),
            ("tool --password docker", "tool --password *"),
            ("tool --password=docker", "tool --password=*"),
            (
                "tool --db-password abc --token=x.y",
                "tool --db-password * --token=*",
            ),
            ("tool -password abc", "tool -password *"),
            (
                "curl -u admin:pa:ss https://h/",
                "curl -u admin:* https://h/",
            ),
            (
                "curl --user=admin:pass https://h/",
                "curl --user=admin:* https://h/",
            ),
            (
                "curl --user admin:pass https://h/",
                "curl --user admin:* https://h/",
            ),
            (
                "curl https://me:p/w@h:1/x?token=abc&b=c",
                "curl https://me:*@h:1/x?token=*&b=c",
            ),
            (
                "sshpass -p geheim ssh -p 2222 host",
                "sshpass -p * ssh -p 2222 host",
            ),
            (
                "docker login -u bot -p geheim registry",
                "docker login -u bot -p * registry",
            ),
            ("redis-cli -h h -a geheim ping", "redis-cli -h h -a * ping"),
            (
                "env DB_PASSWORD=abc MODE=fast run",
                "env DB_PASSWORD=* MODE=fast run",
            ),
            (
                "java -Ddb.password=abc -jar x.jar",
                "java -Ddb.password=* -jar x.jar",
            ),
            (
                "docker exec db mysqldump -pgeheim all",
                "docker exec db mysqldump -p* all",
            ),
            ("7z a -pgeheim x.7z", "7z a -p* x.7z"),
            (
                "http h X-Api-Key:abc Authorization:Bearer",
                "http h X-Api-Key:abc Authorization:Bearer",
            ),
        ] {
            let arguments: Vec<&str> = line.split(' ').collect();
            assert_eq!(shown(&arguments).0.replace("[redacted]", "*"), expected);
        }
    }

    #[test]
    fn an_argument_with_spaces_is_a_command_line() {
        for (argument, expected) in [
            (
                "curl -u a:b https://h | jq .",
                "curl -u a:* https://h | jq .",
            ),
            ("mysql -psecret; echo 'done'", "mysql -p*; echo 'done'"),
            ("tool --password 'two words' x", "tool --password '*' x"),
            ("DB_PASSWORD=\"two words\" run", "DB_PASSWORD=\"*\" run"),
            ("Authorization: Bearer abc.def", "Authorization: Bearer *"),
            ("X-Api-Key: abc", "X-Api-Key: *"),
            ("PRIVATE-TOKEN: abc", "PRIVATE-TOKEN: *"),
            (
                "{\"user\": \"svc\", \"password\": \"a\\\"b c\", \"n\": 1}",
                "{\"user\": \"svc\", \"password\": \"*\", \"n\": 1}",
            ),
            (
                "{\"user\":\"svc\",\"token\":12345,\"n\":1}",
                "{\"user\":\"svc\",\"token\":*,\"n\":1}",
            ),
            ("x; DB_PASSWORD=abc run", "x; DB_PASSWORD=* run"),
            ("DB_PASSWORD=two words", "DB_PASSWORD=*"),
            (
                "curl -H 'X-Auth-Token: abc' h",
                "curl -H 'X-Auth-Token: *' h",
            ),
            (
                "curl -H \"Authorization: Bearer abc\" h",
                "curl -H \"Authorization: Bearer *\" h",
            ),
        ] {
            assert_eq!(
                shown(&["sh", argument]).0.replace("[redacted]", "*"),
                format!("sh {expected}")
            );
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for line in [
            "docker run -u 1000:1000 -p 8080:80 image",
            "ssh -p 2222 host",
            "find . -print0",
            "mkdir -p a/b",
            "make -pn",
            "cp -pR a b",
            "make -parallel4",
            "git log -p HEAD",
            "tool --token-file /run/token --password-file x",
            "tool --partition-key customer_id",
            "tool --max-tokens 4096",
            "rsync -a a:b c",
            "scp -P 22 a:b",
            "nc -p8080",
            "gcc -pthread",
            "curl https://h:8080/a@2x.png",
            "tool --sort-key created_at --cache-key=node-v3",
            "tool --password $DB_PASSWORD",
            "DB_PASSWORD=${SECRET} run",
            "kubectl -n prod get secret my-app",
            "git clone git@github.com:a/b.git",
            "x -p1",
        ] {
            let arguments: Vec<&str> = line.split(' ').collect();
            assert_eq!(shown(&arguments).0, line);
            assert_eq!(shown(&["sh", "-c", line]).0, format!("sh -c {line}"));
        }
    }

    #[test]
    fn the_output_is_searched_for_what_was_found() {
        let (_, redactor) = shown(&["tool", "--password", "hunter22", "--token", "docker"]);
        assert_eq!(redactor.text("hunter22 docker"), "[redacted] docker");
    }
}
