//! What `--help` prints after the arguments: exit codes, signals, settings, examples.

pub(super) const SETTINGS_HELP: &str = "\
Settings (environment):
  RUNCAST_URL    address of the gateway, such as http://runcast:7070. Where it is not set, runcast looks
                 for a gateway that `runcastd dev` runs on this machine: by the files `url` and `token`
                 in RUNCAST_DATA_DIR, else in .local here or above, up to the root of the repository or
                 the home folder; never with RUNCAST_ENV=production
  RUNCAST_TOKEN  token with the scope runs:publish (wrap, resend), runs:read (tail), runs:delete
                 (delete) or runs:redact (redact)
  RUNCAST_TRANSPORT  gateway: publish over HTTP; redis: to Redis directly; auto: to Redis where the
                 gateway hands out its address and it answers, else over HTTP [default: auto]
  REDIS_URL      address of Redis, if it differs from the one that the gateway hands out: redis://...,
                 redis+sentinel://HOST,HOST/SERVICE or redis+cluster://HOST,HOST; with TLS rediss...
  RUNCAST_REDIS_CA  file with the certificate authorities of Redis (PEM), if they are neither the
                 platform's nor those that the gateway returns
  SSL_CERT_FILE, SSL_CERT_DIR  certificate authorities for https://, in place of the machine's; where a
                 machine has none, those of Mozilla are trusted
  RUNCAST_SPOOL  the same as wrap --spool
  RUNCAST_RUN    the same as wrap --run, unless --name, --label or --variations describe a new run
  RUNCAST_VARIATION  set by wrap for its command, with RUNCAST_RUN: what is published already
  RUNCAST_LOG    what runcast itself logs to stderr, such as debug [default: warn]

Examples:
  runcast wrap -- make test
  runcast wrap --name nightly --variations 2 --variation 0 -- ./agent --model a
  runcast tail 0193a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b --channel output:0";

pub(super) const WRAP_HELP: &str = "\
Exit codes:
  that of the command; if a signal killed it, the same signal ends runcast (128+N in shells)
  1    the command succeeded, but its output could not be written, such as to a full disk
  126  the command cannot be run
  127  the command was not found
  69   with --require: nothing could be published, so the command was not run
  64   wrong use of runcast

Order: stdout and stderr are published in the order in which they are written, as far as runcast can
observe it: lines that a program writes to both within microseconds may change places. With --tty both
are one stream, in exact order.

Signals: all that ask for something (TERM, INT, HUP, QUIT, USR1, USR2, WINCH, CONT, TSTP, ALRM, RTMIN+N
and so on) are forwarded to the command; signals that a terminal sends to both (Ctrl-C) are not sent
twice. If the terminal stops the command (Ctrl-Z), runcast stops with it. After the command has ended, TERM, INT, HUP
or QUIT end the wait for storage. Orphans of the command become children of runcast and are reaped, so
runcast can be process 1 of a container.

Left behind: processes that the command left behind and that still have its output open are published
for 2 s; then runcast says so and ends. What they print later is passed on to its stdout and stderr by a
small process that ends with them.

Output: a reader that is slow delays the command, one that leaves closes its output (SIGPIPE), both as
without runcast. If the output cannot be written, such as to a full disk, it is closed for the command.
A stream that is closed for runcast is closed for the command, and not published. Descriptors, limits,
ignored and blocked signals, umask and priority are those that runcast was started with. If runcast
cannot work at all (too few descriptors), the command runs alone and a line says why.

Terminal: with --tty the command has a terminal of its own. It receives what is typed, and Ctrl-D at
the end of stdin. TERM is xterm-256color unless it is set. Lines end with CR LF only if the stdout of
runcast is a terminal, else as the command wrote them. If runcast is killed by KILL, the terminal may
stay in raw mode: run `stty sane` if the shell does not reset it.

Environment: the command does not get RUNCAST_TOKEN, nor any other variable of Runcast that holds a
credential, nor REDIS_URL: --keep-env NAME hands one on. It gets RUNCAST_URL, RUNCAST_RUN,
RUNCAST_VARIATION and, as RUNCAST_TOKEN, a token of this run alone (none with --no-token): a program
that links the publisher joins the run with them. The token ends with the one that runcast uses, and 15
minutes after the run was sealed. A command that looks for more than it is given can still read what
other processes of its user can read.

Within another wrap: a runcast wrap whose command is, or starts, another runcast wrap is the only one
that publishes; the inner one says so and runs its command. It publishes only if --run or --variation
name another run or variation.

Control commands to the run (POST /v1/runs/ID/control):
  cancel  sends TERM to the command, then to what it leaves behind, and KILL to all that still runs
          after --cancel-grace; all output is still published, and the run ends as cancelled
  pause   sends STOP to the command and everything it started; resume sends CONT
  input   types the text into the command's terminal; refused without --tty

Secrets: the published output shows [redacted] in place of the values of variables such as *TOKEN*,
*SECRET*, *PASSWORD*, *_KEY, *_PAT, *CREDENTIAL* and *_DSN, of the fields of those that are JSON, YAML
or name=value, of passwords in URLs and in the arguments of the command, of the tokens of some hundred
services (ghp_..., AKIA..., eyJ...) and of private keys; also in base64, hex, JSON, HTML, URLs and
shell quotes, and with colours in between. The output of runcast itself is unchanged. A value that is
shorter than 6 bytes, a common word, or the identifier of something is not redacted; runcast says so,
once. The first half of a secret that is not continued within 1 s is shown as [redacted], too. A line
`::add-mask::VALUE` that the command prints adds VALUE, unless --no-redact is given or --markers
excludes github.

Detected: lines that are a JSON object with a level and a message; groups of GitLab (section_start:),
GitHub (::group::) and Buildkite (--- title); ::error::, ::warning::, ::notice:: and ::debug::;
progress (ESC ] 9;4;1;50 BEL, ##vso[task.setprogress]). All of these are published in addition to the
text, which stays unchanged.

Examples:
  runcast wrap -- make test
  runcast wrap --tty -- cargo build
  runcast wrap --max-output 100MiB --markers none -- ./chatty.sh
  runcast wrap --redact-env 'ACME_*' --redact-env PIN -- ./deploy.sh
  runcast wrap --run \"$RUN\" --variation 1 -- python train.py
  runcast wrap --keep-env REDIS_URL -- ./manage.py runserver
  runcast wrap --spool /var/spool/runcast -- ./nightly.sh
  RUNCAST_URL=http://runcast:7070 RUNCAST_TOKEN=... runcast wrap --require -- ./deploy.sh";

pub(super) const TAIL_HELP: &str = "\
Exit codes:
  0    the run is over, or the output was closed
  66   the run does not exist
  69   the gateway cannot be reached
  77   the token is not accepted
  78   a setting is missing or wrong
  64   wrong use of runcast
  1    anything else

Examples:
  runcast tail 0193a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b
  runcast tail 0193a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b --channel status --json | jq .status";

pub(super) const DELETE_HELP: &str = "\
Exit codes:
  0    the run is deleted
  66   the run does not exist
  69   the gateway cannot be reached
  77   the token is not accepted, or lacks the scope runs:delete
  78   a setting is missing or wrong
  64   wrong use of runcast
  1    anything else, such as a run on hold

Examples:
  runcast delete 0193a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b";

pub(super) const REDACT_HELP: &str = "\
Exit codes:
  0    it is masked
  66   the run, or the file with the text, does not exist
  69   the gateway cannot be reached
  75   no worker has done it yet; it will be done without this command
  77   the token is not accepted, or lacks the scope runs:redact
  78   a setting is missing or wrong
  64   wrong use of runcast
  1    anything else, such as a run on hold

Examples:
  printf %s \"$LEAKED\" | runcast redact 0193a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b --text-file -
  runcast redact 0193a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b --from 1764000000000-17 --to 1764000000000-19";

pub(super) const RESEND_HELP: &str = "\
Exit codes:
  0    everything is stored, the folder is empty
  66   the folder, or one of its runs, does not exist
  69   the gateway or Redis cannot be reached, or not everything was stored in time: try again
  75   a process still publishes from the folder: try again after it has ended
  77   the token is not accepted
  78   a setting is missing or wrong
  64   wrong use of runcast
  1    anything else
Of several failures the last one counts; each is reported on stderr.

Examples:
  runcast resend /var/spool/runcast";
