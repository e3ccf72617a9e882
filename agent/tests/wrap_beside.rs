//! Awkward commands behind `runcast wrap`, beside the same commands without it: their output, exit
//! codes, signals, limits and descriptors are the same.
//!
//! Each case is a script of `bash`, in which `$W` stands before the command: once empty, once
//! `runcast wrap`, which publishes into a spool. What both print is compared, except for the lines
//! of `runcast` itself. A script prints nothing that differs between two runs, such as process ids.

mod support;

use std::fmt::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use support::wrapped::runcast;

/// Scripts that run at the same time: most of them sleep.
const CONCURRENT_CASES: usize = 8;

/// Longest time for one script; some sleep for three seconds.
const MAX_SECONDS: &str = "60";

/// Hides what no program sets: whether the two signals of the C library are ignored.
const FUNCTIONS: &str = r"hide() { sed -E 's/^(SigIgn:.).*(.{7})$/\1\2/'; }; ";

/// What a process inherits: signals, rights, limits, priority, umask, folder, open descriptors.
const STATE: &str = r#"sh -c '
    grep -E "^(Umask|Sig[BIC]|Cap|NoNew|Seccomp|Groups|Uid|Gid|Cpus_allowed:)" /proc/self/status
    cat /proc/self/limits /proc/self/oom_score_adj /proc/self/cgroup; nice; umask; pwd | sed s/.tmp.*//
    for fd in /proc/self/fd/*; do echo "${fd##*/} $(readlink $fd | tr -d 0-9)"; done
    ' 2>&1 | hide"#;

/// Cases with a name.
const CASES: &[(&str, &str)] = &[
    // Output.
    ("nothing", "$W true; echo $?"),
    (
        "bytes",
        r"$W printf 'a\0b\377\r\n\33[31mred\33[0m\303\n'; $W printf 'e\0\376\n' >&2; $W printf x",
    ),
    ("a long line", "$W head -c 5000000 /dev/zero | cksum"),
    ("many lines", "$W seq 300000 | cksum"),
    (
        "many writes",
        "$W dd if=/dev/zero bs=1 count=5000 status=none | cksum",
    ),
    (
        "both streams",
        "$W sh -c 'seq 50000; seq 60000 >&2' 2>err | cksum; grep -v ^runcast: err | cksum",
    ),
    (
        "one file for all",
        "(echo a; $W echo b; $W sh -c 'echo c >&2'; echo d) >f 2>&1; cat f",
    ),
    ("appended", "echo a >f; $W echo b >>f; cat f"),
    (
        "read and written",
        "$W cat 0<>f 1<>f; $W echo x 1<>f; cat f",
    ),
    (
        "a socket",
        r#"perl -MSocket -e 'socketpair(A, B, AF_UNIX, SOCK_STREAM, 0);
        if (!fork) { close A; open STDOUT, ">&B"; close B; exec @ARGV } close B; print <A>' $W seq 9"#,
    ),
    ("captured", "x=$($W echo hi); echo \"[$x]\""),
    // Readers.
    ("head", "$W yes | head -n 1; echo ${PIPESTATUS[*]}"),
    (
        "a reader that leaves",
        "$W sh -c 'sleep .4; echo x; echo y >>f' | true; echo ${PIPESTATUS[*]}",
    ),
    (
        "stderr without a reader",
        "$W sh -c 'sleep .4; echo x >&2' 2> >(true); echo $?",
    ),
    (
        "a failed write",
        r#"$W perl -e '$SIG{PIPE} = "IGNORE"; $| = 1; sleep 1;
        print("x") or print(STDERR "failed\n") and exit 4' | true; echo ${PIPESTATUS[*]}"#,
    ),
    ("a slow reader", "$W seq 40000 | (sleep 1; cksum)"),
    ("a full disk", "$W echo x 2>&- >/dev/full; echo $?"),
    (
        "a full disk for long",
        "$W seq 100000 2>&- >/dev/full; echo $?",
    ),
    (
        "a full disk for stderr",
        "$W sh -c 'echo x >&2; echo $? >f' 2>/dev/full; cat f | tr 12 00",
    ),
    (
        "a full file",
        "(ulimit -f 1; $W head -c 100000 /dev/zero >f; echo $?) 2>/dev/null; wc -c <f",
    ),
    (
        "a full file of its own",
        "(ulimit -f 1; $W head -c 100000 /dev/zero | $W tee f >/dev/null) 2>/dev/null; wc -c <f",
    ),
    // Input.
    ("stdin", "seq 100000 | $W cksum"),
    (
        "stdin that is read in part",
        "yes | $W head -n 2; echo ${PIPESTATUS[*]}",
    ),
    (
        "stdin that is shared",
        "seq 3 >f; (read a; $W sh -c 'read b; echo $b'; read c; echo $a $c) <f",
    ),
    ("a here document", "$W cat <<<'text'"),
    (
        "a terminal that is not there",
        "setsid -w $W sh -c 'echo x >/dev/tty' 2>/dev/null; echo $?",
    ),
    // Descriptors.
    (
        "more descriptors",
        "echo in >f; $W sh -c 'cat <&3; echo out >&9' 3<f 9>g; cat g",
    ),
    (
        "a pipe as descriptor",
        "$W sh -c 'echo x >&3; exec 3>&-; sleep .2' 3>&1 >/dev/null | cat",
    ),
    (
        "process substitution",
        "$W cat <(echo a) <(echo b); $W tee >(cat >f) <<<c; sleep .2; cat f",
    ),
    (
        "a lock",
        "exec 9>l; flock 9; $W sh -c 'flock -n l true; echo $?'; $W flock -u 9; flock -n l echo free",
    ),
    (
        "a job server",
        r#"printf 'all: a b\na b:\n\t+@%s make -s -f n\n' "$W" >m; printf 'n:;@echo n\n' >n
        make -s -j2 -f m 2>&1"#,
    ),
    (
        "listening sockets",
        r#"LISTEN_FDS=1 bash -c 'LISTEN_PID=$$ exec $W sh -c "
        test \$LISTEN_PID = \$\$ && echo mine \$LISTEN_FDS"' 3</dev/null"#,
    ),
    // Arguments and environment.
    (
        "arguments",
        r"$W printf '[%s]\n' '' ' ' $'a\nb' $'\xff' -x --help -- --tty '*' 漢",
    ),
    ("many arguments", "$W sh -c 'echo $#' sh $(seq 50000)"),
    (
        "too many arguments",
        "$W /bin/echo $(seq 900000) 2>/dev/null; echo $?",
    ),
    (
        "one argument that is too long",
        r#"$W /bin/echo "$(head -c 200000 /dev/zero | tr '\0' x)" 2>&-; echo $?"#,
    ),
    (
        "many arguments by xargs",
        "seq 300000 | xargs $W echo | tr ' ' '\\n' | cksum",
    ),
    (
        "environment",
        "env -i PATH=$PATH A=b E= $W env | grep -v ^RUNCAST_ | sort",
    ),
    // Programs.
    (
        "not found",
        "$W no-such-command 2>&-; echo $?; $W ./none 2>&-; echo $?; $W '' 2>&-; echo $?",
    ),
    (
        "not a program",
        "echo x >f; $W ./f 2>&-; echo $?; $W / 2>&-; echo $?; $W ./f/g 2>&-; echo $?",
    ),
    (
        "no first line",
        "echo 'echo $0 $1' >f; chmod +x f; $W ./f a; PATH=.:$PATH; $W f b",
    ),
    (
        "no interpreter",
        "printf '#!/none\\n' >f; chmod +x f; $W ./f 2>&-; echo $?",
    ),
    (
        "a name of its own",
        "ln -s \"$(command -v sh)\" mine; $W ./mine -c 'echo $0'",
    ),
    (
        "a deleted folder",
        "mkdir d; cd d; rmdir ../d; $W sh -c 'echo here'",
    ),
    // Signals.
    (
        "stopped and resumed",
        "$W sh -c '(sleep .3; kill -CONT $$) & kill -STOP $$; echo on'",
    ),
    (
        "terminal stop without a terminal",
        "setsid -w $W sh -c 'kill -TSTP $$; echo on'",
    ),
    (
        "an alarm",
        "exec 2>&-; perl -e 'alarm 1; exec @ARGV' $W sleep 20; echo $?",
    ),
    (
        "a timeout",
        "exec 2>&-; timeout .3 $W sleep 20; echo $?; timeout -s KILL .3 $W sleep 20; echo $?",
    ),
    (
        "a timeout that is handled",
        "exec 2>&-; timeout .5 $W sh -c 'trap \"echo term; exit 3\" TERM; while :; do sleep .05; done'; echo $?",
    ),
    (
        "nohup",
        "nohup $W sh -c 'kill -HUP $$; echo alive' 2>/dev/null",
    ),
    (
        "ignored",
        "trap '' HUP INT QUIT PIPE USR1 TERM CHLD ALRM TSTP; $W grep ^Sig[BIC] /proc/self/status | hide",
    ),
    (
        "ignored SIGPIPE",
        "trap '' PIPE; $W sh -c 'sleep .3; echo x; echo $? >f' 2>&- | true; cat f",
    ),
    (
        "blocked",
        "perl -MPOSIX -e 'sigprocmask(SIG_BLOCK, POSIX::SigSet->new(SIGUSR1, SIGTERM));
        exec @ARGV' $W grep ^Sig[BIC] /proc/self/status | hide",
    ),
    (
        "a signal at the death of the parent",
        "setpriv --pdeathsig USR1 $W setpriv -d | grep -i death",
    ),
    (
        "a signal without a name",
        "$W sh -c 'trap \"echo rt; exit 5\" RTMIN+3; echo >up; while :; do sleep .05; done' &
        until test -e up; do sleep .05; done; kill -RTMIN+3 $!; wait $!; echo $?",
    ),
    // Processes.
    (
        "a child that ends later",
        "$W sh -c '(sleep .5; echo late) & echo done'",
    ),
    (
        "a child that ends much later",
        "$W sh -c '(sleep 3; echo late; echo err >&2; echo alive >f) & echo done'; cat f",
    ),
    (
        "a child without output",
        "$W sh -c 'sleep .4 >/dev/null 2>&1 & echo done'",
    ),
    (
        "a daemon",
        "$W sh -c '(setsid sh -c \"sleep .4; echo up >f\" >/dev/null 2>&1 &)'; sleep .8; cat f",
    ),
    (
        "many children",
        "$W sh -c 'for i in 1 2 3 4 5 6 7 8; do sleep .2 & done; wait; echo done'",
    ),
    (
        "in the background",
        "$W sh -c 'sleep .2; exit 3' & wait $!; echo $?",
    ),
    (
        "script",
        "script -qec \"$W sh -c 'echo x >/dev/tty; stty size'\" /dev/null </dev/null",
    ),
    (
        "script inside",
        "$W script -qec 'stty size; exit 7' /dev/null </dev/null; echo $?",
    ),
    (
        "an interactive shell",
        "$W bash --norc -ic 'echo hi; exit 5' 2>/dev/null; echo $?",
    ),
    // Other state.
    (
        "no new rights",
        "setpriv --no-new-privs $W grep NoNew /proc/self/status",
    ),
    (
        "one processor",
        "taskset 1 $W grep Cpus_allowed: /proc/self/status",
    ),
    (
        "the first to be killed",
        "choom -n 500 -- $W cat /proc/self/oom_score_adj",
    ),
];

/// What differs before the command is started.
const SETTINGS: &[(&str, &str)] = &[
    ("as it is", ":"),
    ("umask", "umask 027"),
    ("folder", "cd /usr"),
    ("few descriptors", "ulimit -n 8"),
    ("some descriptors", "ulimit -n 30"),
    ("many descriptors", "ulimit -Sn 4096"),
    ("no core", "ulimit -c 0"),
    ("little memory", "ulimit -v 200000"),
    ("small stack", "ulimit -s 512"),
    ("small files", "ulimit -f 0"),
    ("little time", "ulimit -t 100"),
    ("no queues", "ulimit -q 0; ulimit -i 0; ulimit -l 0"),
];

/// Cases that are made of lists: each setting, each set of closed streams, each signal, exit codes.
fn generated() -> Vec<(String, String)> {
    let mut cases = Vec::new();
    for (name, setting) in SETTINGS {
        let script = format!("{setting}; $W {STATE}");
        cases.push((format!("state: {name}"), script));
    }
    for closed in 0..8_u8 {
        let streams = ["<&-", ">&-", "2>&-"].into_iter().enumerate();
        let streams = streams.filter(|(bit, _)| closed & (1 << bit) != 0);
        let streams: Vec<&str> = streams.map(|(_, text)| text).collect();
        let streams = streams.join(" ");
        let script = "cat; echo in $? >>f; echo out; echo out $? >>f; echo err >&2; echo err $? >>f; \
                      for n in 0 1 2 3; do test -e /proc/self/fd/$n && echo $n >>f; done";
        let script = format!("$W sh -c '{script}' {streams}; echo $?; cat f");
        cases.push((format!("closed: {streams}"), script));
    }
    // A script for many of them, since each needs only a moment.
    let mut kills = String::from(
        "status() { perl -e 'system @ARGV; print $?, \"\\n\"' \"$@\"; }; ulimit -c 0; ",
    );
    for signal in (1..=31).chain([34, 50, 64]) {
        if ![17, 18, 19, 20, 21, 22, 23, 28].contains(&signal) {
            write!(kills, "status $W sh -c 'kill -{signal} $$; sleep 5'; ").expect("text");
        }
    }
    kills.push_str("for code in 0 1 2 63 64 69 126 127 128 130 143 254 255; do status $W sh -c \"exit $code\"; done");
    cases.push(("each signal and exit code".to_owned(), kills));
    cases
}

/// What a script prints, and how it ends.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    status: i32,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

fn run(script: &str, before: &str) -> Seen {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new("timeout");
    for (name, value) in runcast().get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let output = command
        .args(["--kill-after=5", MAX_SECONDS, "bash", "-c"])
        .arg(format!("{FUNCTIONS}{script}"))
        .env("W", before)
        .env("TERM", "dumb")
        .env_remove("MAKEFLAGS")
        .env_remove("MFLAGS")
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    Seen {
        status: output.status.into_raw(),
        stdout: without_own_lines(&output.stdout),
        stderr: without_own_lines(&output.stderr),
    }
}

/// Without the lines of `runcast` itself.
fn without_own_lines(output: &[u8]) -> Vec<u8> {
    let lines = output.split_inclusive(|&byte| byte == b'\n');
    let others = lines.filter(|line| !line.starts_with(b"runcast: "));
    others.flatten().copied().collect()
}

#[test]
fn awkward_commands_do_not_notice_the_wrap() {
    let named = CASES.iter();
    let named = named.map(|(name, script)| ((*name).to_owned(), (*script).to_owned()));
    let mut cases: Vec<(String, String)> = named.chain(generated()).collect();
    assert!(cases.len() >= 80, "{}", cases.len());
    let only = std::env::var("RUNCAST_TEST_CASE").unwrap_or_default();
    cases.retain(|(name, _)| name.contains(&only));
    let spool = tempfile::tempdir().expect("a folder");
    let wrap = format!(
        "{} wrap --spool {} --drain-timeout 0 --no-redact --",
        env!("CARGO_BIN_EXE_runcast"),
        spool.path().display()
    );
    let (waiting, failed) = (Mutex::new(cases), Mutex::new(Vec::new()));
    thread::scope(|threads| {
        for _ in 0..CONCURRENT_CASES {
            threads.spawn(|| {
                loop {
                    let next = waiting.lock().expect("not poisoned").pop();
                    let Some((name, script)) = next else { return };
                    let (plain, wrapped) = (run(&script, ""), run(&script, &wrap));
                    if plain != wrapped {
                        let mut failed = failed.lock().expect("not poisoned");
                        failed.push(describe(&name, &plain, &wrapped));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("not poisoned");
    assert!(
        failed.is_empty(),
        "{} cases:\n{}",
        failed.len(),
        failed.join("\n")
    );
}

fn describe(name: &str, plain: &Seen, wrapped: &Seen) -> String {
    let one = |seen: &Seen| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&seen.stdout), text(&seen.stderr));
        format!("status {}\n{stdout}{stderr}", seen.status)
    };
    let (plain, wrapped) = (one(plain), one(wrapped));
    let only = |these: &str, others: &str| {
        let others: Vec<&str> = others.lines().collect();
        let these = these.lines().filter(|line| !others.contains(line));
        these.collect::<Vec<_>>().join("\n")
    };
    let (without, with) = (only(&plain, &wrapped), only(&wrapped, &plain));
    format!("== {name}\n-- only without wrap:\n{without}\n-- only with wrap:\n{with}")
}
