//! What `--help` says behind the arguments: exit codes, signals, settings, examples.

pub(super) const SETTINGS: &str = "\
Settings (environment):
  RUNCAST_URL    address of the gateway, such as http://runcast:7070
  RUNCAST_TOKEN  token with the scope runs:publish (wrap, resend) or runs:read (tail)
  REDIS_URL      address of Redis, if it is not the one that the gateway hands out: redis://...,
                 redis+sentinel://HOST,HOST/SERVICE or redis+cluster://HOST,HOST; with TLS rediss...
  RUNCAST_REDIS_CA  file with the authorities that sign for Redis (PEM), if they are neither the
                 platform's nor those that the gateway hands out
  RUNCAST_SPOOL  the same as wrap --spool
  RUNCAST_LOG    what runcast itself logs to stderr, such as debug [default: warn]

Examples:
  runcast wrap -- make test
  runcast wrap --name nightly --variations 2 --variation 0 -- ./agent --model a
  runcast tail 0193a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b --channel output:0";

pub(super) const WRAP_HELP: &str = "\
Exit codes:
  that of the command; 128+N if signal N killed it
  126  the command cannot be run
  127  the command was not found
  69   with --require: nothing could be published, the command was not run
  64   wrong use of runcast

Signals: TERM, INT, HUP, QUIT, USR1, USR2, WINCH, CONT and TSTP are passed on; what a terminal sends
to both (Ctrl-C) is not sent twice. After the command's end TERM, INT, HUP or QUIT stop the wait for
storage.

Commands to the run: `cancel` (POST /v1/runs/ID/control) sends TERM to the command and, if it goes on,
KILL after --cancel-grace; what it has written is still published, and the run ends as cancelled.

Secrets: what is published shows [redacted] in place of the values of variables such as *TOKEN*,
*SECRET*, *PASSWORD*, *_KEY, *CREDENTIAL* and *_DSN, of passwords in addresses, of known tokens
(ghp_..., AKIA..., eyJ...) and of private keys, also in base64, JSON, addresses and shell quotes.
What passes through to our own output is unchanged. The first half of a secret that is not
continued within 1 s is shown as [redacted], too.

Examples:
  runcast wrap -- make test
  runcast wrap --redact-env 'ACME_*' --redact-env PIN -- ./deploy.sh
  runcast wrap --run \"$RUN\" --variation 1 -- python train.py
  runcast wrap --spool /var/spool/runcast -- ./nightly.sh
  RUNCAST_URL=http://runcast:7070 RUNCAST_TOKEN=... runcast wrap --require -- ./deploy.sh";

pub(super) const TAIL_HELP: &str = "\
Exit codes:
  0    the run is over, or nobody reads the output any more
  66   there is no such run
  69   the gateway cannot be reached
  77   the token is refused
  78   a setting is missing or wrong
  64   wrong use of runcast
  1    anything else

Examples:
  runcast tail 0193a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b
  runcast tail 0193a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b --channel status --json | jq .status";

pub(super) const RESEND_HELP: &str = "\
Exit codes:
  0    everything is stored, the folder holds nothing any more
  66   there is no such folder, or one of its runs does not exist any more
  69   the gateway or Redis cannot be reached, or not everything was stored in time: try again
  75   a process still publishes from the folder: try again when it has ended
  77   the token is refused
  78   a setting is missing or wrong
  64   wrong use of runcast
  1    anything else
Of several failures the last one counts; each is told on stderr.

Examples:
  runcast resend /var/spool/runcast";
