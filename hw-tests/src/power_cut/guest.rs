//! The guest: a virtual machine whose process is killed as a power cut would end it.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;

use crate::fleet::client::Client;
use crate::stack::process;

/// Enough for a slow machine that emulates another architecture.
const READY_WITHIN: Duration = Duration::from_secs(300);
const POLL_EVERY: Duration = Duration::from_millis(25);
/// A guest that is not up by then under KVM never will be.
const KVM_WITHIN: Duration = Duration::from_secs(15);
const CONSOLE_TAIL_LINES: usize = 40;
/// What the guest's init begins its messages with.
const FAILED: &str = "GUEST failed";

/// What the guest's processor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    /// This is quick: with KVM where that works, or else emulated.
    #[value(name = "x86_64")]
    X86_64,
    /// What stands in the cabinets; emulated.
    #[value(name = "aarch64")]
    Aarch64,
}

impl Arch {
    /// As compilers and `uname -m` call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }
}

/// What every life of the guest is started with.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The processor.
    pub arch: Arch,
    /// Whether the machine's own processor runs the guest.
    pub kvm: bool,
    /// `vmlinuz` and `initrd` are in it.
    pub image: PathBuf,
    /// Where the disk is served.
    pub disk_socket: PathBuf,
    /// The host's address of the gateway.
    pub http: SocketAddr,
    /// The host's address of its health and metrics.
    pub admin: SocketAddr,
}

/// A running guest; killed when dropped.
pub struct Guest {
    child: Child,
    console: PathBuf,
    admin: SocketAddr,
}

impl Machine {
    /// Whether KVM really runs a guest here: its device may be there and not work.
    ///
    /// # Errors
    /// When QEMU can't be started.
    pub async fn has_kvm(&self, console: &Path) -> anyhow::Result<bool> {
        let is_native = self.arch.name() == std::env::consts::ARCH;
        let kvm = File::options().read(true).write(true).open("/dev/kvm");
        if !is_native || kvm.is_err() {
            return Ok(false);
        }
        let with_kvm = Self { kvm: true, ..self.clone() };
        let mut child = start(with_kvm.base_command(console, "penstock.probe"), console)?;
        let since = Instant::now();
        loop {
            if let Some(status) = child.try_wait().context("ask for QEMU")? {
                // An end before that is a QEMU that gave up.
                return Ok(status.success() && read(console).contains("GUEST up"));
            }
            if since.elapsed() > KVM_WITHIN {
                end(&mut child);
                return Ok(false);
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// Switches it on. `parameters` reach the guest's init.
    ///
    /// # Errors
    /// When QEMU can't be started.
    pub fn start(&self, console: PathBuf, parameters: &str) -> anyhow::Result<Guest> {
        let mut command = self.base_command(&console, parameters);
        let (http, admin) = (self.http, self.admin);
        command
            .arg("-blockdev")
            .arg(format!(
                "driver=nbd,node-name=disk,server.type=unix,server.path={}",
                self.disk_socket.display()
            ))
            .args(["-device", "virtio-blk-pci,drive=disk,write-cache=on"])
            .arg("-netdev")
            .arg(format!(
                "user,id=net,hostfwd=tcp:{http}-10.0.2.15:{},hostfwd=tcp:{admin}-10.0.2.15:{}",
                super::config::HTTP_PORT,
                super::config::ADMIN_PORT
            ))
            .args(["-device", "virtio-net-pci,netdev=net,romfile="]);
        let child = start(command, &console)?;
        Ok(Guest { child, console, admin: self.admin })
    }

    fn base_command(&self, console: &Path, parameters: &str) -> Command {
        let mut command = Command::new(format!("qemu-system-{}", self.arch.name()));
        let (machine, processor, tty) = match (self.arch, self.kvm) {
            (Arch::X86_64, true) => ("pc", "host", "ttyS0"),
            (Arch::X86_64, false) => ("pc", "max", "ttyS0"),
            // Like the industrial PCs.
            (Arch::Aarch64, _) => ("virt", "cortex-a53", "ttyAMA0"),
        };
        let accelerator = if self.kvm { "kvm" } else { "tcg,thread=multi" };
        command
            .args(["-machine", machine, "-accel", accelerator, "-cpu", processor])
            .args(["-m", "512", "-smp", "2", "-nodefaults", "-display", "none", "-no-reboot"])
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .arg("-kernel")
            .arg(self.image.join("vmlinuz"))
            .arg("-initrd")
            .arg(self.image.join("initrd"))
            .arg("-append")
            .arg(format!("console={tty} quiet panic=-1 {parameters}"));
        command
    }
}

impl Guest {
    /// Waits until its gateway takes events.
    ///
    /// # Errors
    /// When it has ended, says that something failed, or takes too long.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        let client = Client::new(self.admin, 1, Duration::from_secs(2));
        let since = Instant::now();
        loop {
            self.check_alive()?;
            // While it starts, nobody may be there, or a connection may hang.
            if client.get("/readyz").await.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            ensure!(
                since.elapsed() < READY_WITHIN,
                "the gateway is not ready after {READY_WITHIN:?}\n{}",
                self.console_tail()
            );
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// Fails when it has ended by itself or says that something failed.
    ///
    /// # Errors
    /// With the end of its console.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait().context("ask for QEMU")? {
            bail!("the guest ended by itself: {status}\n{}", self.console_tail());
        }
        if let Some(line) = read(&self.console).lines().find(|line| line.starts_with(FAILED)) {
            bail!("{line}\n{}", self.console_tail());
        }
        Ok(())
    }

    /// Ends it between two instructions.
    pub fn kill(mut self) {
        end(&mut self.child);
    }

    /// The last lines of its console, with a heading.
    pub fn console_tail(&self) -> String {
        let text = read(&self.console);
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(CONSOLE_TAIL_LINES)..];
        format!("--- the end of {} ---\n{}", self.console.display(), tail.join("\n"))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn start(mut command: Command, console: &Path) -> anyhow::Result<Child> {
    let said = File::create(console.with_extension("qemu.log")).context("create QEMU's log")?;
    command
        .stdin(Stdio::null())
        .stdout(said.try_clone().context("share QEMU's log")?)
        .stderr(said)
        // Ctrl-C is for us.
        .process_group(0);
    process::spawn(command).context("start QEMU")
}

fn read(console: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(console).unwrap_or_default()).into_owned()
}

fn end(child: &mut Child) {
    // It may have ended already, which is as good.
    let _ = child.kill();
    let _ = child.wait();
}
