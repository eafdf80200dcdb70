//! One child process: started, awaited, killed, started again.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal};

const READY_WITHIN: Duration = Duration::from_secs(60);
const END_WITHIN: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(10);
const LOG_TAIL_LINES: usize = 25;
/// Linux counts in these towards user space, whatever the kernel's own tick is.
const TICKS_PER_SECOND: u64 = 100;

/// A child that writes a ready file and logs to a file. Killed when dropped.
pub struct Process {
    name: String,
    binary: PathBuf,
    args: Vec<String>,
    ready_file: PathBuf,
    log_file: PathBuf,
    child: Option<Child>,
    /// Of the children that have ended.
    spent: Usage,
}

/// What a process has used since its start, its earlier lives included.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// Bytes that it caused to be written to the disk.
    pub written_bytes: u64,
}

impl Usage {
    /// What this process itself has used.
    pub fn own() -> Self {
        usage_of(std::process::id())
    }

    /// What a process of this machine has used; nothing if it is not there.
    pub fn of_pid(pid: u32) -> Self {
        usage_of(pid)
    }

    /// What was used between `before` and now.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
        }
    }
}

impl Process {
    /// A process that is not started yet.
    pub(super) fn new(dir: &Path, name: &str, binary: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            binary,
            args: Vec::new(),
            ready_file: dir.join(format!("{name}.ready")),
            log_file: dir.join(format!("{name}.log")),
            child: None,
            spent: Usage::default(),
        }
    }

    pub(super) fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub(super) fn args<'a>(mut self, args: impl IntoIterator<Item = &'a str>) -> Self {
        self.args.extend(args.into_iter().map(str::to_owned));
        self
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// With the last lines of its log when it ends, or is not ready in a minute.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "{} is running", self.name);
        match std::fs::remove_file(&self.ready_file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context("remove the old ready file");
            }
            _ => {}
        }
        let log = File::options().create(true).append(true).open(&self.log_file);
        let log = log.with_context(|| format!("open {}", self.log_file.display()))?;
        let mut command = Command::new(&self.binary);
        command
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log)
            // Ctrl-C is for us: we stop our children in the right order.
            .process_group(0);
        self.child = Some(spawn(command).with_context(|| format!("start {:?}", self.binary))?);
        let since = Instant::now();
        while !self.ready_file.exists() {
            if let Some(status) = self.poll_exit()? {
                bail!("{} ended at its start: {status}\n{}", self.name, self.log_tail());
            }
            if since.elapsed() > READY_WITHIN {
                bail!("{} is not ready after {READY_WITHIN:?}\n{}", self.name, self.log_tail());
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
        Ok(())
    }

    /// Kills it as a power cut would: it gets no chance to do anything more.
    ///
    /// # Errors
    /// When it had already ended by itself.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.poll_exit()? {
            bail!("{} ended by itself: {status}\n{}", self.name, self.log_tail());
        }
        self.note_usage();
        if let Some(mut child) = self.child.take() {
            child.kill().with_context(|| format!("kill {}", self.name))?;
            child.wait().with_context(|| format!("wait for {}", self.name))?;
        }
        Ok(())
    }

    /// Asks it to drain, and waits for its end.
    ///
    /// # Errors
    /// When it is not running, ends with an error, or not within a minute.
    pub async fn terminate(&mut self) -> anyhow::Result<()> {
        self.note_usage();
        let child = self.child.as_ref().with_context(|| format!("{} is not running", self.name))?;
        rustix::process::kill_process(pid_of(child)?, Signal::TERM)
            .with_context(|| format!("ask {} to end", self.name))?;
        let since = Instant::now();
        loop {
            if let Some(status) = self.poll_exit()? {
                ensure!(status.success(), "{} ended with {status}\n{}", self.name, self.log_tail());
                return Ok(());
            }
            if since.elapsed() > END_WITHIN {
                bail!("{} has not ended in {END_WITHIN:?}\n{}", self.name, self.log_tail());
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// Fails when it has ended by itself.
    ///
    /// # Errors
    /// With its status and the last lines of its log.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        match self.poll_exit()? {
            None => Ok(()),
            Some(status) => bail!("{} ended by itself: {status}\n{}", self.name, self.log_tail()),
        }
    }

    /// An address that it said it listens on when it became ready.
    ///
    /// # Errors
    /// When it never was ready, or listens on nothing of that name.
    pub fn address(&self, name: &str) -> anyhow::Result<SocketAddr> {
        let ready = std::fs::read(&self.ready_file)
            .with_context(|| format!("read {}", self.ready_file.display()))?;
        let ready: BTreeMap<String, SocketAddr> = serde_json::from_slice(&ready)
            .with_context(|| format!("read {}", self.ready_file.display()))?;
        ready.get(name).copied().with_context(|| format!("{} has no address {name}", self.name))
    }

    /// Whether it was started and has not been killed or terminated since.
    pub const fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// What it has used, over all its lives.
    pub fn usage(&self) -> Usage {
        let now = self.child.as_ref().map(|child| usage_of(child.id())).unwrap_or_default();
        Usage {
            cpu: self.spent.cpu + now.cpu,
            written_bytes: self.spent.written_bytes + now.written_bytes,
        }
    }

    /// The most memory that its present life has had in RAM, bytes; 0 when it does not run.
    pub fn memory_bytes_max(&self) -> u64 {
        let status = self
            .child
            .as_ref()
            .and_then(|child| std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok());
        status.as_deref().and_then(memory_kib_max).unwrap_or(0) * 1024
    }

    /// The last lines of its log, with a heading.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read(&self.log_file).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        format!("--- the end of {} ---\n{}", self.log_file.display(), tail.join("\n"))
    }

    fn note_usage(&mut self) {
        self.spent = self.usage();
    }

    /// Its status if it has ended; it is then forgotten.
    fn poll_exit(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let child = self.child.as_mut().with_context(|| format!("{} is not running", self.name))?;
        let status = child.try_wait().with_context(|| format!("ask for {}", self.name))?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended already, which is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts a child that dies with us, even when we are killed.
///
/// The kernel watches the *thread* that made the child, so one that never ends makes them all.
fn spawn(command: Command) -> std::io::Result<Child> {
    type Job = (Command, mpsc::Sender<std::io::Result<Child>>);
    static JOBS: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let jobs = JOBS.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, answer) in queue {
                die_with_parent(&mut command);
                // Nobody waits for it only if the caller's thread is gone.
                let _ = answer.send(command.spawn());
            }
        });
        jobs
    });
    let gone = "the thread that starts processes is gone";
    let (answer, answered) = mpsc::channel();
    jobs.send((command, answer)).map_err(|_| std::io::Error::other(gone))?;
    answered.recv().map_err(|_| std::io::Error::other(gone))?
}

#[allow(unsafe_code, reason = "there is no safe way to run code between fork and exec")]
fn die_with_parent(command: &mut Command) {
    // SAFETY: the closure makes one system call (prctl), which is async-signal-safe, and touches
    // no memory of the parent.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            Ok(())
        });
    }
}

fn pid_of(child: &Child) -> anyhow::Result<Pid> {
    let raw = i32::try_from(child.id()).context("a pid")?;
    Pid::from_raw(raw).context("a pid is not 0")
}

fn usage_of(pid: u32) -> Usage {
    let read = |what| std::fs::read_to_string(format!("/proc/{pid}/{what}")).unwrap_or_default();
    Usage {
        cpu: cpu_ticks(&read("stat"))
            .map(|ticks| Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
            .unwrap_or_default(),
        written_bytes: read("io")
            .lines()
            .find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok())
            .unwrap_or_default(),
    }
}

/// utime + stime, in clock ticks. The name, in parentheses, may hold spaces.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn memory_kib_max(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_whatever_the_process_is_called() {
        let stat = "7 (a) b c) S 1 7 7 0 -1 0 10 0 0 0 120 30 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu_ticks(stat), Some(150));
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        assert!(cpu_ticks(&own).is_some());
    }

    #[test]
    fn the_greatest_memory_is_read() {
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        assert!(memory_kib_max(&own).is_some_and(|kib| kib > 100));
    }

    #[test]
    fn the_log_tail_names_the_file_and_ends_with_the_last_line() {
        let dir = tempfile::tempdir().unwrap();
        let process = Process::new(dir.path(), "x", "/bin/true".into());
        let lines: Vec<String> = (0..100).map(|n| format!("line {n}")).collect();
        std::fs::write(dir.path().join("x.log"), lines.join("\n")).unwrap();
        let tail = process.log_tail();
        assert!(tail.contains("x.log") && tail.ends_with("line 99"));
        assert!(!tail.contains("line 74\n") && tail.contains("line 75\n"));
    }

    #[tokio::test]
    async fn a_process_that_ends_at_its_start_shows_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut process =
            Process::new(dir.path(), "x", "/bin/sh".into()).args(["-c", "echo why; exit 3"]);
        let error = process.start().await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("why"), "{error}");
    }

    #[tokio::test]
    async fn a_killed_process_can_be_started_again() {
        let dir = tempfile::tempdir().unwrap();
        let script = format!("echo up > {}; exec sleep 600", dir.path().join("x.ready").display());
        let mut process =
            Process::new(dir.path(), "x", "/bin/sh".into()).args(["-c", script.as_str()]);
        for _ in 0..2 {
            process.start().await.unwrap();
            process.check_alive().unwrap();
            process.kill().unwrap();
            assert!(process.check_alive().is_err());
        }
    }
}
