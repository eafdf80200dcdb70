//! The parts of a run together: the disk, the machine in front of it, one life after the other.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tokio::process::Command;

use super::disk::cache::{Loss, VolatileDisk};
use super::disk::{Disk, Work};
use super::guest::{Arch, Guest, Machine};
use super::numbers::Numbers;
use super::plan::{Life, Moment};
use super::report::Report;
use super::{PowerCutArgs, config, medium, scripts};
use crate::fleet::Tally;
use crate::fleet::client::Client;
use crate::oracle::checker::{Checker, Tolerance};
use crate::oracle::record::ToldFleet;
use crate::oracle::{drain, topics};
use crate::stack::{self, binary, kafka};

/// A cut that waits for an event of the disk comes by then.
const EVENT_WITHIN: Duration = Duration::from_secs(5);
/// And one that waits for events to be acknowledged by then.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(60);
/// A life that drains goes on by then.
const DRAINED_WITHIN: Duration = Duration::from_secs(30);
/// So few entries are a drained spool, while events keep coming.
const DRAINED_ENTRIES_MAX: u64 = 300;
/// Twice the time after which ext4 commits what nobody syncs.
const SETTLE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Everything that a run needs.
pub(super) struct Rig {
    dir: PathBuf,
    kafka: String,
    topic_prefix: String,
    machine: Machine,
    disk: Disk,
    seed: u64,
    lie: bool,
    rng: ChaCha8Rng,
}

/// What is counted while the power is cut.
#[derive(Default)]
pub(super) struct Counted {
    cuts: u32,
    cuts_starting: u32,
    lives_without_link: u32,
    loss: Loss,
    pending_entries_max: u64,
}

/// What was seen of a life before the cut.
#[derive(Default)]
struct Seen {
    ready_after: Option<Duration>,
    pending_entries: u64,
}

impl Rig {
    /// Makes topics, image and disk, and finds out what QEMU can do here.
    pub(super) async fn set_up(args: &PowerCutArgs, seed: u64) -> anyhow::Result<Self> {
        let var =
            |name| std::env::var(name).with_context(|| format!("{name} is set by ./dev power-cut"));
        let (kafka, kafka_of_guest) = (var("PENSTOCK_KAFKA")?, var("PENSTOCK_KAFKA_GUEST")?);
        let run = format!("power-cut-{:08x}", rand::random::<u32>());
        let dir = stack::local_dir()?.join("runs").join(&run);
        std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let topic_prefix = format!("{run}.");
        create_topics(&dir, &kafka, &topic_prefix).await?;
        config::write(&dir.join("files"), &kafka_of_guest, &topic_prefix)?;
        let image = dir.join("image");
        make_image(args, &dir.join("files"), &image).await?;

        let [http, admin] = stack::free_ports()?;
        // In a folder of its own: a socket's path must be short.
        let sockets = std::env::temp_dir().join(&run);
        std::fs::create_dir_all(&sockets)?;
        let disk_socket = sockets.join("disk");
        let disk = VolatileDisk::new(medium::create(&dir.join("disk"))?)?;
        let disk = Disk::serve(disk, &disk_socket).context("serve the disk")?;
        let mut machine = Machine { arch: args.arch, kvm: false, image, disk_socket, http, admin };
        machine.kvm = machine.has_kvm(&dir.join("probe.console")).await?;
        println!(
            "guest: {}, {}",
            machine.arch.name(),
            if machine.kvm { "KVM" } else { "emulated" }
        );
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let lie = args.lie;
        Ok(Self { dir, kafka, topic_prefix, machine, disk, seed, lie, rng })
    }

    /// Where everything of the run is.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where devices post.
    pub(super) const fn http(&self) -> SocketAddr {
        self.machine.http
    }

    /// Cuts the power as often as asked, and switches the guest on once more.
    pub(super) async fn cut_all(
        &mut self,
        args: &PowerCutArgs,
        tally: &Tally,
    ) -> anyhow::Result<(Counted, Guest)> {
        let mut counted = Counted::default();
        let draw = if args.lie { Life::of_a_liar } else { Life::draw };
        for number in 1..=args.cuts {
            let life = draw(&mut self.rng, args.load_events_max);
            let said = self.live(number, &life, tally, &mut counted).await;
            let said = said.with_context(|| format!("cut {number}: {life}"))?;
            println!("cut {number}: {life}; {said}; acknowledged so far {}", acknowledged(tally));
        }
        let mut guest = self.switch_on(0, true)?;
        guest.ready().await.context("after the last cut")?;
        Ok((counted, guest))
    }

    /// One life; what to say of it.
    async fn live(
        &mut self,
        number: u32,
        life: &Life,
        tally: &Tally,
        counted: &mut Counted,
    ) -> anyhow::Result<String> {
        let mut guest = self.switch_on(number, life.link)?;
        let seen = self.until_the_cut(&mut guest, life, tally).await?;
        // First the disk falls silent, so that nothing can be acknowledged after this.
        self.disk.power_off();
        let Work { writes, flushes, written_bytes: _ } = self.disk.work();
        guest.kill();
        let loss = self.disk.lose_power(&mut self.rng, life.keep_share)?;
        counted.cuts += 1;
        counted.cuts_starting += u32::from(seen.ready_after.is_none());
        counted.lives_without_link += u32::from(!life.link);
        counted.loss.add(loss);
        counted.pending_entries_max = counted.pending_entries_max.max(seen.pending_entries);
        let ready = match seen.ready_after {
            Some(after) => format!("ready after {after:.1?}"),
            None => "not ready".into(),
        };
        Ok(format!(
            "{ready}, {} entries waiting, {writes} writes, {flushes} flushes, {} pieces \
             unflushed, {} dropped",
            seen.pending_entries,
            loss.pieces(),
            loss.dropped
        ))
    }

    /// Comes back when the power is gone, or should go at once.
    async fn until_the_cut(
        &self,
        guest: &mut Guest,
        life: &Life,
        tally: &Tally,
    ) -> anyhow::Result<Seen> {
        let since = Instant::now();
        let before = acknowledged(tally);
        let mut seen = Seen::default();
        match &life.moment {
            Moment::Start(trigger) => {
                self.disk.arm(*trigger);
                tokio::select! {
                    biased;
                    () = self.disk.power_gone() => return Ok(seen),
                    ready = guest.ready() => ready?,
                }
                // It came through before that: then the next event under load.
                seen.ready_after = Some(since.elapsed());
                watch(guest, EVENT_WITHIN, self.disk.power_gone()).await?;
            }
            Moment::Load { after_events, then } => {
                guest.ready().await?;
                seen.ready_after = Some(since.elapsed());
                if life.drain {
                    watch(guest, DRAINED_WITHIN, self.drained()).await?;
                }
                let enough = async {
                    while acknowledged(tally) < before + after_events {
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                };
                watch(guest, ACKNOWLEDGED_WITHIN, enough).await?;
                seen.pending_entries = self.pending_entries().await;
                if let Some(trigger) = then {
                    self.disk.arm(*trigger);
                    watch(guest, EVENT_WITHIN, self.disk.power_gone()).await?;
                }
            }
        }
        Ok(seen)
    }

    fn switch_on(&self, number: u32, link: bool) -> anyhow::Result<Guest> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let parameters = format!(
            "penstock.now={now}{}{}",
            if link { "" } else { " penstock.link=down" },
            if self.lie { " penstock.sync=off" } else { "" }
        );
        self.disk.power_on();
        self.machine.start(self.dir.join(format!("{number}.console")), &parameters)
    }

    async fn drained(&self) {
        while !(1..DRAINED_ENTRIES_MAX).contains(&self.pending_entries().await) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn pending_entries(&self) -> u64 {
        let client = Client::new(self.machine.admin, 1, Duration::from_secs(2));
        let pending = drain::metric(&client, drain::SPOOL_PENDING_METRIC).await;
        // For information: a guest that is too busy to tell is no fault.
        pending.unwrap_or(0.0) as u64
    }

    /// Lets the spool drain, cuts the power once more, and compares.
    pub(super) async fn judge(
        &mut self,
        counted: Counted,
        mut guest: Guest,
        told: &ToldFleet,
    ) -> anyhow::Result<Report> {
        let drained = drain::empty(&[self.machine.admin]).await;
        guest.check_alive()?;
        drained.with_context(|| format!("drain the spool\n{}", guest.console_tail()))?;
        // Removed segments stay removed once the file system has written that down, by itself.
        tokio::time::sleep(SETTLE).await;
        self.disk.power_off();
        guest.kill();
        self.disk.lose_power(&mut self.rng, 0.0)?;

        let path = self.dir.join("disk");
        medium::check(&path)?;
        let segments = medium::segments(&path)?;
        let (verdict, numbers) = tokio::task::block_in_place(|| {
            let mut checker = Checker::new(told, Tolerance::default()).without_store();
            topics::read(&self.kafka, &self.topic_prefix, told, &mut checker)?;
            let numbers = Numbers::read(&self.kafka, &self.topic_prefix)?;
            anyhow::Ok((checker.finish(), numbers.findings()))
        })?;
        Ok(Report {
            seed: self.seed,
            cuts: counted.cuts,
            cuts_starting: counted.cuts_starting,
            lives_without_link: counted.lives_without_link,
            loss: counted.loss,
            pending_entries_max: counted.pending_entries_max,
            verdict,
            numbers,
            segments,
        })
    }

    /// Removes what the run made; its folder only if it went well.
    pub(super) async fn clean_up(self, went_well: bool) -> anyhow::Result<()> {
        if let Some(sockets) = self.machine.disk_socket.parent() {
            std::fs::remove_dir_all(sockets).context("remove the disk's socket")?;
        }
        if went_well {
            kafka::delete_topics(&self.kafka, &self.topic_prefix).await?;
            std::fs::remove_dir_all(&self.dir)
                .with_context(|| format!("remove {}", self.dir.display()))?;
        }
        Ok(())
    }
}

/// Waits for `event`, at most so long; fails when the guest does.
async fn watch(
    guest: &mut Guest,
    most: Duration,
    event: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut event = pin!(event);
    let since = Instant::now();
    while since.elapsed() < most {
        if tokio::time::timeout(LOOK_EVERY, event.as_mut()).await.is_ok() {
            return Ok(());
        }
        guest.check_alive()?;
    }
    Ok(())
}

/// Events that somebody was told about, accepted or rejected: both are on the disk.
fn acknowledged(tally: &Tally) -> u64 {
    tally.accepted.get() + tally.rejected.get()
}

async fn create_topics(dir: &Path, kafka: &str, topic_prefix: &str) -> anyhow::Result<()> {
    let toml = format!(
        "[kafka]\nbootstrap = {kafka:?}\ntopic_prefix = {topic_prefix:?}\n\
         [catalog]\ndsn = \"postgres://nobody-asks-it\"\n[store]\nurl = \"file:///nowhere\"\n"
    );
    let path = dir.join("core.toml");
    std::fs::write(&path, toml).context("write the core's configuration")?;
    let mut command = Command::new(binary("cloud-core")?);
    command.args(["topics", "apply", "--config"]).arg(path);
    let output = command.output().await.context("run cloud-core")?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "create topics: {}", String::from_utf8_lossy(&said));
    Ok(())
}

async fn make_image(args: &PowerCutArgs, files: &Path, image: &Path) -> anyhow::Result<()> {
    let gateway = match (&args.gateway, args.arch) {
        (Some(path), _) => path.clone(),
        (None, Arch::X86_64) => binary("edge-gateway")?,
        (None, Arch::Aarch64) => {
            anyhow::bail!("--arch aarch64 needs --gateway, built by ./dev build-edge")
        }
    };
    let mut script = Command::new(scripts()?.join("guest"));
    script.arg(args.arch.name()).arg(gateway).arg(files).arg(image);
    let status = script.status().await.context("run hw-tests/power-cut/guest")?;
    ensure!(status.success(), "hw-tests/power-cut/guest: {status}");
    Ok(())
}
