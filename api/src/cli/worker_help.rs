//! What `runcastd worker --help` says beyond its settings: how workers share the work, and what
//! each job does.

use crate::settings::help;
use crate::settings::setting::Program;

const WORKER_HELP: &str = "\
Any number of workers may run. One of them holds a lease in Postgres: it watches the agents, and
every hour it puts jobs into a queue in Postgres, from which all workers take them. If it dies,
another takes over within 15 s. Without a worker runs are still published, stored and shown, for as
long as there are partitions: a week.

Agents
  An agent sends a heartbeat every 5 s. After RUNCAST_STALE_AFTER of silence it is `stale`, after
  RUNCAST_LOST_AFTER `lost`, and its variation and run with it, until it sends a heartbeat or an
  event again, or a final status is stored. While Redis is away no agent becomes lost.
  `GET /v1/agents?health=lost` lists lost agents.

Jobs
  partitions    creates the daily partitions of events, a week ahead
  retention     deletes runs that are too old, their archive objects included: by the first rule of
                RUNCAST_RETENTION_RULES (NAME=VALUE:AGE,...) that fits a label of the run, else by
                RUNCAST_RETENTION. Ages in days count whole days (UTC), so that all of a day goes at
                once; 12h, 30m and 45s count exactly. A run with a living agent is kept, and so is one
                on hold. In a label `\\` escapes a comma, a colon or an equals sign. Entries of the
                audit log that are older than RUNCAST_AUDIT_RETENTION go as well
  archive       where RUNCAST_ARCHIVE is set: finds runs that were sealed RUNCAST_ARCHIVE_AFTER ago
                and have no dead letters, and adds a job for each
  archive_run   writes the events of a run as one object (zstd, NDJSON, an index at its end; `zstdcat`
                prints it), reads it back, compares it with the rows byte by byte, and then lets
                readers use it
  archive_rows  deletes the rows of a day's archived runs, 5 min after the last of them was archived:
                it empties the partition if that is all of the day, else it deletes in small steps
  delete_run    removes what is left of a run that was deleted on request: rows of events, objects of
                the archive, keys in Redis
  deletions     adds that job again for runs whose deletion did not finish
  orphans       removes the Redis keys of runs that do not exist, after an hour without use
  sessions      deletes expired sessions
  webhooks      gives up deliveries that could not be tried, and deletes old ones

  A job that fails is retried after 3 s, 7 s, 20 s, 1 min and 3 min. Then it is dead until the next
  hour restarts it. `runcastd jobs` and `GET /v1/jobs` show all jobs that wait, fail or are dead.

Webhooks (`runcastd webhook --help`)
  All workers send deliveries, 4 at a time for each webhook. A failed delivery is retried with pauses
  that double up to 4 h, until RUNCAST_WEBHOOK_GIVE_UP. A webhook that keeps failing is tried ever
  more rarely.

The archive
  file:///folder       a folder that every gateway and worker sees under this name
  s3://bucket/prefix   S3, or a store that speaks its protocol: AWS_ENDPOINT_URL, AWS_REGION,
                       AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, or a role as AWS gives it to a pod.
                       Let the bucket end unfinished uploads after a day: workers abort the uploads
                       of a killed worker, except one that it had no time to record
  Gateways need the same settings to show archived runs. A row in the table `archives` exists from
  before an object is written until after it is deleted; no other object is ever deleted.
";

/// The whole text.
pub(super) fn text() -> String {
    format!("{WORKER_HELP}\n{}", help::of(Program::Worker))
}
