//! One producer of the property test: consecutive processes of `runcast wrap --spool` under the
//! same identity, each of which publishes what is written into a pipe of its own.
//!
//! Each process starts with a byte that no line contains, so that its part of the stored text can
//! be identified. All its lines must be stored if it ended cleanly or its spool was seen to hold
//! them. Otherwise a prefix must be stored, no shorter than what was last confirmed.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use runcast_tests::eventually::{WAIT_DEADLINE, eventually};
use runcast_tests::process::{Process, shell_exit_code};
use runcast_tests::stack::Stack;
use tokio::time::sleep;
use uuid::Uuid;

use super::plan::InputLine;

/// The first byte that a process prints.
const START_BYTE: u8 = 1;

/// Lines printed by an old process while its successor starts; they take longer than the start.
const LATE_LINES: u32 = 150;
const LATE_LINE_PAUSE: Duration = Duration::from_millis(1);

/// One process.
struct Incarnation {
    wrap: Process,
    /// Closed when there is no more to print.
    pipe: Option<File>,
    printed: Vec<u8>,
    /// At least this much must be stored.
    retained: usize,
}

/// The processes of one variation, oldest first.
pub(crate) struct Producer {
    run: Uuid,
    variation: usize,
    redis: String,
    spool: PathBuf,
    processes: Vec<Incarnation>,
    lines: u64,
    pub(crate) kills: usize,
}

impl Producer {
    /// Starts the first process, with this Redis URL.
    pub(crate) fn start(stack: &mut Stack, run: Uuid, variation: usize, redis: &str) -> Self {
        let spool = stack.folder().join(format!("spool-{run}-{variation}"));
        let mut producer = Self {
            run,
            variation,
            redis: redis.to_owned(),
            spool,
            processes: Vec::new(),
            lines: 0,
            kills: 0,
        };
        producer.launch(stack);
        producer
    }

    fn launch(&mut self, stack: &mut Stack) {
        let number = self.processes.len();
        let name = format!("pipe-{}-{}-{number}", self.run, self.variation);
        // Not beside the logs, which are printed as a whole when a story fails.
        let pipes = stack.folder().join("pipes");
        std::fs::create_dir_all(&pipes).expect("a folder");
        let path = pipes.join(name);
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).expect("a pipe");
        // Opened for both directions, so that opening does not block; writing must not block
        // either.
        let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
        let mut options = OpenOptions::new();
        let pipe = options.read(true).write(true).custom_flags(flags);
        let pipe = pipe.open(&path).expect("the pipe is opened");
        let (run, variation) = (self.run.to_string(), self.variation.to_string());
        let wrap = stack.runcast(
            &[
                "wrap",
                "--run",
                &run,
                "--variation",
                &variation,
                "--spool",
                self.spool.to_str().expect("UTF-8"),
                "--drain-timeout",
                "60",
                "--",
                "cat",
                path.to_str().expect("UTF-8"),
            ],
            &[("REDIS_URL", &self.redis)],
        );
        self.processes.push(Incarnation {
            wrap,
            pipe: Some(pipe),
            printed: Vec::new(),
            retained: 0,
        });
    }

    fn now(&mut self) -> &mut Incarnation {
        self.processes.last_mut().expect("a process")
    }

    /// Lets the newest process print these lines and a plain text line, each with a number in
    /// front.
    pub(crate) async fn say(&mut self, lines: &[InputLine]) {
        for line in lines
            .iter()
            .map(|line| line.0.as_slice())
            .chain([&b"."[..]])
        {
            self.lines += 1;
            let number = self.lines.to_string();
            let whole = [number.as_bytes(), b" ", line, b"\n"].concat();
            self.now().say(&whole).await;
        }
        self.now().wait_copied().await;
    }

    /// Kills the newest process.
    pub(crate) fn kill(&mut self) {
        self.kills += 1;
        self.now().wrap.kill();
    }

    /// Stops the newest process (SIGSTOP).
    pub(crate) fn stop(&mut self) {
        self.now().wrap.signal(Signal::SIGSTOP);
    }

    /// Waits until all printed lines are stored or, if `in_spool`, in the spool.
    pub(crate) async fn wait_kept(&mut self, in_spool: bool, stored: impl AsyncFn() -> Vec<u8>) {
        let spool = self.spool.clone();
        let process = self.now();
        let Some(last) = last_line(&process.printed) else {
            return;
        };
        let what = format!("{:?} is stored or spooled", displayable(last));
        eventually(&what, async || {
            if in_spool && holds(&spool, last) {
                return Ok(());
            }
            let stored = stored().await;
            let there = stored.ends_with(last).then_some(());
            there.ok_or_else(|| format!("{:?} is stored last", last_line(&stored).map(displayable)))
        })
        .await;
        process.retained = process.printed.len();
    }

    /// Starts the next process.
    pub(crate) fn succeed(&mut self, stack: &mut Stack) {
        self.launch(stack);
    }

    /// Lets the process before the newest one print, for as long as the newest one needs to start.
    pub(crate) async fn print_late_lines(&mut self) {
        let before = self.processes.len() - 2;
        for number in 0..LATE_LINES {
            let line = format!("0 late line: {number}\n");
            self.processes[before].say(line.as_bytes()).await;
            sleep(LATE_LINE_PAUSE).await;
        }
    }

    /// Resumes the process before the newest one, and lets it print; that must have no effect.
    pub(crate) async fn resume_zombie(&mut self) {
        let before = self.processes.len() - 2;
        let zombie = &mut self.processes[before];
        zombie.wrap.signal(Signal::SIGCONT);
        zombie.say(b"0 zombie line\n").await;
    }

    /// Ends the newest process cleanly, and kills all older ones.
    pub(crate) async fn finish(&mut self) {
        // Once it has passed this on, its command has opened the pipe and will see its end.
        self.say(&[]).await;
        let process = self.now();
        process.pipe = None;
        let code = shell_exit_code(process.wrap.wait_exit(2 * WAIT_DEADLINE).await);
        assert_eq!(code, 0, "{}", process.wrap.logs());
        process.retained = process.printed.len();
        for zombie in &mut self.processes {
            zombie.wrap.kill();
        }
    }

    /// Checks what is stored of all processes together: a long enough prefix of each, in order, and
    /// nothing else.
    pub(crate) fn check(&self, stored: &[u8]) {
        let mut rest = stored;
        for (number, process) in self.processes.iter().enumerate() {
            let printed = &process.printed;
            let pairs = rest.iter().zip(printed);
            let mut same = pairs.take_while(|(one, other)| one == other).count();
            // This process ends where the next one begins, however similar their lines are.
            while same > 0 && rest.get(same).is_some_and(|byte| *byte != START_BYTE) {
                same -= 1;
            }
            assert!(
                same >= process.retained,
                "variation {}, process {number}: at least {} bytes must be stored; after {same} bytes there are {:?} instead of {:?}",
                self.variation,
                process.retained,
                displayable(&rest[same..]),
                displayable(&printed[same..]),
            );
            rest = &rest[same..];
        }
        assert!(
            rest.is_empty(),
            "variation {}: {:?} is stored after all printed lines",
            self.variation,
            displayable(rest)
        );
    }
}

impl Incarnation {
    async fn say(&mut self, line: &[u8]) {
        let begin: &[u8] = if self.printed.is_empty() {
            &[START_BYTE]
        } else {
            &[]
        };
        let written = [begin, line].concat();
        let mut pipe = self.pipe.as_ref().expect("the producer was not finished");
        // Short enough that the pipe takes it entirely or not at all.
        eventually("the pipe takes a line", async || {
            match pipe.write(&written) {
                Ok(length) if length == written.len() => Ok(()),
                Ok(length) => panic!("a pipe took {length} of {} bytes", written.len()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Err("it is full".to_owned()),
                Err(error) => panic!("a pipe cannot be written: {error}"),
            }
        })
        .await;
        self.printed.extend_from_slice(&written);
    }

    /// Waits until the process has copied everything to its own stdout, so it has read it.
    async fn wait_copied(&mut self) {
        let expected = self.printed.len();
        eventually("the command's output is passed on", async || {
            let seen = self.wrap.stdout().len();
            let logs = || format!("{seen} of {expected} bytes\n{}", self.wrap.logs());
            (seen >= expected).then_some(()).ok_or_else(logs)
        })
        .await;
    }
}

/// The last line with its newline.
fn last_line(printed: &[u8]) -> Option<&[u8]> {
    let before = printed.strip_suffix(b"\n")?;
    let start = before.iter().rposition(|byte| *byte == b'\n');
    Some(&printed[start.map_or(0, |at| at + 1)..])
}

/// Whether a file of the spool contains this line of plain text.
fn holds(spool: &Path, line: &[u8]) -> bool {
    // As escaped in an event: the first byte of a process is a control character.
    let line = std::str::from_utf8(line).expect("the last printed line is text");
    let text = serde_json::to_string(line).expect("text encodes as JSON");
    let target = format!("\"text\":{text}").into_bytes();
    let folders = std::fs::read_dir(spool).into_iter().flatten().flatten();
    let files = folders.filter_map(|folder| std::fs::read_dir(folder.path()).ok());
    // A file may be deleted before it is read; its content is stored then.
    let mut files = files.flatten().flatten();
    files.any(|file| {
        let bytes = std::fs::read(file.path()).unwrap_or_default();
        bytes.windows(target.len()).any(|window| window == target)
    })
}

fn displayable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned()
}
