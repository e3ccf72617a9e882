//! Child processes of a story. None outlives the test process, their output goes to files, and they
//! are ended only through their handle.
//!
//! The kernel ties the parent-death signal to the *thread* that started a child. Therefore one
//! thread, which lives as long as the test process, starts all children.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, mpsc};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::eventually::eventually_within;

type SpawnRequest = (Command, mpsc::Sender<io::Result<Child>>);

static SPAWNER: LazyLock<mpsc::Sender<SpawnRequest>> = LazyLock::new(|| {
    let (sender, orders) = mpsc::channel::<SpawnRequest>();
    thread::spawn(move || {
        for (mut command, reply) in orders {
            // The requester waits for the reply, so the send succeeds.
            drop(reply.send(command.spawn()));
        }
    });
    sender
});

/// A running or ended child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: OutputFile,
    stderr: OutputFile,
}

/// The output of one process. Processes of the same name append to the same file.
#[derive(Debug)]
struct OutputFile {
    path: PathBuf,
    /// Where the output of this process starts.
    from: usize,
}

impl OutputFile {
    /// Must be created before the process starts: a fast one may already have written.
    fn new(path: PathBuf) -> Self {
        let from = fs::read(&path).map_or(0, |output| output.len());
        Self { path, from }
    }

    fn read(&self) -> Vec<u8> {
        read(&self.path).split_off(self.from)
    }
}

/// How to start a process.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
    /// Its name in messages and of its log files.
    pub name: String,
    /// The program, by path or by name.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables added to the environment of the tests. All settings of Runcast are removed from
    /// that environment first.
    pub environment: Vec<(String, String)>,
    /// Its working directory.
    pub folder: PathBuf,
    /// The signal that it receives when the test process dies.
    pub parent_death_signal: &'static str,
}

impl ProcessSpec {
    /// Runs `program` with these arguments.
    pub fn new(name: &str, program: impl Into<PathBuf>, arguments: &[&str], folder: &Path) -> Self {
        Self {
            name: name.to_owned(),
            program: program.into(),
            arguments: arguments.iter().map(|&text| text.to_owned()).collect(),
            environment: Vec::new(),
            folder: folder.to_owned(),
            parent_death_signal: "KILL",
        }
    }

    /// Adds environment variables.
    pub fn with_env<K: Into<String>, V: Into<String>>(
        mut self,
        settings: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let settings = settings.into_iter();
        self.environment
            .extend(settings.map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// Starts it. Its output is appended to `<logs>/<name>.out` and `<logs>/<name>.err`.
    pub fn start(&self, logs: &Path) -> Process {
        let log = |ending: &str| logs.join(format!("{}.{ending}", self.name));
        let (stdout, stderr) = (OutputFile::new(log("out")), OutputFile::new(log("err")));
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", self.parent_death_signal, "--"])
            .arg(&self.program)
            .args(&self.arguments)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(append_to(&stdout.path))
            .stderr(append_to(&stderr.path));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("RUNCAST_") || text == "REDIS_URL" || text == "DATABASE_URL" {
                command.env_remove(&name);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let (reply, answer) = mpsc::channel();
        SPAWNER
            .send((command, reply))
            .expect("the thread that starts processes lives as long as this process");
        let child = answer
            .recv()
            .expect("a reply of the thread that starts processes");
        let child = child.unwrap_or_else(|error| {
            panic!("{} cannot be started through setpriv: {error}", self.name)
        });
        Process {
            name: self.name.clone(),
            child,
            stdout,
            stderr,
        }
    }
}

fn append_to(path: &Path) -> File {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.unwrap_or_else(|error| panic!("{} cannot be written: {error}", path.display()))
}

impl Process {
    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal if it still runs.
    pub fn signal(&mut self, signal: Signal) {
        if self.try_wait().is_some() {
            return;
        }
        // It is not reaped yet, so no other process can have its id.
        let id = i32::try_from(self.child.id()).expect("a process id fits");
        kill(Pid::from_raw(id), signal)
            .unwrap_or_else(|error| panic!("{signal} cannot be sent to {}: {error}", self.name));
    }

    /// Ends it with SIGKILL and waits for its end.
    pub fn kill(&mut self) -> ExitStatus {
        // Fails only for a process that was reaped, which has already ended.
        drop(self.child.kill());
        self.child
            .wait()
            .unwrap_or_else(|error| panic!("{} cannot be waited for: {error}", self.name))
    }

    /// Its exit status, if it has ended.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .unwrap_or_else(|error| panic!("{} cannot be waited for: {error}", self.name))
    }

    /// Waits for its end.
    pub async fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        eventually_within(deadline, &what, async || {
            self.try_wait().ok_or_else(|| "it still runs".to_owned())
        })
        .await
    }

    /// Its stdout so far.
    pub fn stdout(&self) -> Vec<u8> {
        self.stdout.read()
    }

    /// Its stderr so far.
    pub fn stderr(&self) -> Vec<u8> {
        self.stderr.read()
    }

    /// Both outputs, as text.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for (ending, bytes) in [("stdout", self.stdout()), ("stderr", self.stderr())] {
            if !bytes.is_empty() {
                text += &format!("---- {} {ending}\n", self.name);
                text += &String::from_utf8_lossy(&bytes);
            }
        }
        text
    }

    /// Waits until a line of stdout starts with `prefix`, and returns the rest of that line. Panics
    /// if the process ends before.
    pub async fn wait_for_line(&mut self, prefix: &str, deadline: Duration) -> String {
        let what = format!("{} wait_for_line {prefix:?}", self.name);
        eventually_within(deadline, &what, async || {
            let status = self.try_wait();
            let out = self.stdout();
            let text = String::from_utf8_lossy(&out);
            // The last piece is still an incomplete line.
            let lines = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            if let Some(rest) = lines.lines().find_map(|line| line.strip_prefix(prefix)) {
                return Ok(rest.to_owned());
            }
            if let Some(status) = status {
                panic!(
                    "{what}: the process ended before ({status})\n{}",
                    self.logs()
                );
            }
            Err(self.logs())
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{} cannot be read: {error}", path.display()))
}

/// The exit code as a shell reports it: 128 plus the signal for a process that a signal ended.
pub fn shell_exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
