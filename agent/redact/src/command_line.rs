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

use super::argument_word::{
    USER_OPTIONS, glued, in_word, is_number, is_reference, is_secret_option, password_of,
    scheme_length,
};
use super::redactor::{Candidate, Redactor};
use super::secret_parts::SecretPart;
use super::secret_value::{Evidence, MASK};

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
