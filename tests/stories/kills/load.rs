//! A producer under steady load: `runcast wrap` around a command that prints what is written into a
//! pipe, a few lines every few milliseconds.
//!
//! The seed determines the lines: mostly short ones, now and then invalid UTF-8, NUL, a long line,
//! and one of a mebibyte.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use runcast_tests::eventually::WAIT_DEADLINE;
use runcast_tests::process::{Process, shell_exit_code};
use runcast_tests::stack::Stack;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe::{OpenOptions, Sender};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

/// Pause between two bursts.
const BURST_PAUSE: Duration = Duration::from_millis(20);

/// Most lines of a burst.
const MAX_BURST_LINES: u32 = 10;

/// Longest time without any progress in reading.
const READ_DEADLINE: Duration = Duration::from_secs(60);

/// One producer.
pub(crate) struct Source {
    wrap: Process,
    speaks: JoinHandle<Vec<u8>>,
    /// Its variation of the run.
    pub(crate) variation: usize,
}

impl Source {
    /// Starts one, with a spool or in memory, that prints until `stop` is true.
    pub(crate) fn start(
        stack: &mut Stack,
        run: Uuid,
        variation: usize,
        with_spool: bool,
        seed: u64,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let pipes = stack.folder().join("pipes");
        std::fs::create_dir_all(&pipes).expect("a folder");
        let path = pipes.join(format!("{run}-{variation}"));
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).expect("a pipe");
        // Opened for both directions, so that opening does not block.
        let pipe = OpenOptions::new().read_write(true).open_sender(&path);
        let pipe = pipe.expect("the pipe is opened");
        let wrap = launch(stack, run, variation, with_spool, &path);
        let rng = StdRng::seed_from_u64(seed);
        Self {
            wrap,
            speaks: tokio::spawn(write_lines(pipe, rng, stop)),
            variation,
        }
    }

    /// Waits until it has ended and reports that all is stored; returns what it printed.
    pub(crate) async fn finish(mut self) -> Vec<u8> {
        let output = self.speaks.await.expect("the task of a source");
        let code = shell_exit_code(self.wrap.wait_exit(2 * WAIT_DEADLINE).await);
        assert_eq!(code, 0, "{}", self.wrap.logs());
        assert!(
            self.wrap.stdout() == output,
            "a command's output is passed on"
        );
        output
    }
}

fn launch(
    stack: &mut Stack,
    run: Uuid,
    variation: usize,
    with_spool: bool,
    pipe: &std::path::Path,
) -> Process {
    let spool: PathBuf = stack.folder().join(format!("spool-{run}-{variation}"));
    let (run, variation) = (run.to_string(), variation.to_string());
    let text = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let (spool, pipe) = (text(&spool), text(pipe));
    let mut arguments = vec!["wrap", "--run", &run, "--variation", &variation];
    if with_spool {
        arguments.extend(["--spool", &spool]);
    }
    arguments.extend(["--no-redact", "--drain-timeout", "60", "--", "cat", &pipe]);
    stack.runcast(&arguments, &[])
}

async fn write_lines(mut pipe: Sender, mut rng: StdRng, stop: watch::Receiver<bool>) -> Vec<u8> {
    let mut output = Vec::new();
    let mut number = 0;
    while !*stop.borrow() {
        for _ in 0..rng.random_range(1..=MAX_BURST_LINES) {
            number += 1;
            let line = line(number, &mut rng);
            let written = timeout(READ_DEADLINE, pipe.write_all(&line)).await;
            written
                .expect("a command reads its lines")
                .expect("a pipe takes a line");
            output.extend_from_slice(&line);
        }
        sleep(BURST_PAUSE).await;
    }
    output
}

fn line(number: u64, rng: &mut StdRng) -> Vec<u8> {
    let mut line = format!("tick {number} ").into_bytes();
    match rng.random_range(0..2000) {
        0 => line.resize(1024 * 1024, b'm'),
        1..20 => line.resize(20_000, b'l'),
        20..100 => line.extend((0..rng.random_range(1..200)).map(|_| rng.random::<u8>() | 0x80)),
        100..150 => line.extend([0, b'a', 0, 0]),
        _ => line.extend((0..rng.random_range(0..120)).map(|_| rng.random_range(b'a'..=b'z'))),
    }
    line.push(b'\n');
    line
}
