//! A gateway that is cut off, or whose disk somebody else fills, loses nothing and needs no hand
//! (spec I7, I8, I9, N1, N5).
//!
//! With `PENSTOCK_TEST_LONG=1` the broker is away for ten minutes under 5,000 events a second.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hw_tests::fleet::{self, FleetConfig, Tally};
use hw_tests::oracle::{self, checker::Tolerance, drain};
use hw_tests::stack::service::{Kind, Service, Stop};
use hw_tests::stack::{Stack, StackConfig};
use hw_tests::terms;
use hw_tests::wait::until;
use tokio_util::sync::CancellationToken;

/// Waits until so many more events are accepted.
async fn more_accepted(tally: &Tally, events: u64) -> anyhow::Result<()> {
    let goal = tally.accepted.get() + events;
    let what = format!("{events} more events accepted");
    until(Duration::from_secs(120), &what, async || Ok(tally.accepted.get() >= goal)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_for_long_costs_nothing() {
    let seed = terms::seed();
    let broker = Service::start(Kind::Kafka).await.unwrap();
    let mut config = StackConfig::from_env("away").unwrap().impatient();
    config.kafka = broker.address().to_owned();
    // The least that is allowed: a backlog must drain with it too.
    config.gateway_set.push("kafka.in_flight_records_max=5000".into());
    let mut stack = Stack::start(config).await.unwrap();
    if let Err(error) = away(seed, &broker, &mut stack).await {
        panic!("PENSTOCK_TEST_SEED={seed}\n{:?}", stack.explain(error));
    }
    stack.stop().await.unwrap();
}

async fn away(seed: u64, broker: &Arc<Service>, stack: &mut Stack) -> anyhow::Result<()> {
    let (rate, away) = if terms::is_long() { (5_000_u32, 600) } else { (1_000, 10) };
    let away = Duration::from_secs(away);
    let stop = CancellationToken::new();
    let tally = Arc::new(Tally::default());
    let fleet = FleetConfig::mixed(seed, 200, f64::from(rate));
    let load =
        tokio::spawn(fleet::run(fleet, stack.gateway_http, Arc::clone(&tally), stop.clone()));
    more_accepted(&tally, 2_000).await?;
    println!("answers before: {:?}", tally.take_latencies());
    broker.stop(Stop::Kill).await?;
    let before = tally.accepted.get();
    tokio::time::sleep(away).await;
    let during = tally.accepted.get() - before;
    ensure!(during >= u64::from(rate) * away.as_secs() * 8 / 10, "{during} events in {away:?}");
    let pending = drain::pending(stack.gateway_admin).await?;
    ensure!(pending >= during as f64 * 0.9, "{pending} entries in the spool after {during} events");
    println!("answers while it is away: {:?}", tally.take_latencies());
    broker.restart().await?;
    let since = Instant::now();
    tally.take_latencies();
    // While events keep coming: the backlog drains faster than they do.
    until(away + Duration::from_secs(120), "the backlog drains", async || {
        Ok(drain::pending(stack.gateway_admin).await? < f64::from(rate) * 2.0)
    })
    .await?;
    println!("a backlog of {pending} entries drained in {:?}, under load", since.elapsed());
    println!("answers while it drained: {:?}", tally.take_latencies());
    more_accepted(&tally, 1_000).await?;
    stop.cancel();
    let told = load.await?;
    stack.check_alive()?;
    let proof = oracle::prove(&stack.places(), &told, Tolerance::default()).await?;
    println!("{proof}");
    tally.check()?;
    ensure!(tally.server_errors.get() == 0, "{} answers 5xx", tally.server_errors.get());
    Ok(())
}

/// A small file system of its own, mounted where the spool is to be; gone when dropped.
struct SmallDisk {
    at: PathBuf,
    image: PathBuf,
}

impl SmallDisk {
    /// None where this process may not mount.
    fn mount(at: &Path, mebibytes: u64) -> anyhow::Result<Option<Self>> {
        std::fs::create_dir_all(at)?;
        let image = at.with_extension("image");
        std::fs::File::create(&image)?.set_len(mebibytes << 20)?;
        let run = |program: &str, args: &[&str]| {
            let output = Command::new(program).args(args).output();
            let output = output.with_context(|| format!("run {program}"))?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            anyhow::Ok((output.status.success(), said))
        };
        let (image_text, at_text) = (image.display().to_string(), at.display().to_string());
        let (is_made, said) = run("mkfs.ext4", &["-q", "-F", "-m", "0", &image_text])?;
        ensure!(is_made, "mkfs.ext4: {said}");
        let (is_mounted, said) = run("mount", &["-o", "loop", &image_text, &at_text])?;
        if !is_mounted {
            std::fs::remove_file(&image)?;
            println!("mount: {said}");
            return Ok(None);
        }
        Ok(Some(Self { at: at.to_owned(), image }))
    }

    /// Somebody else takes all the space there is.
    fn fill(&self) -> anyhow::Result<()> {
        let mut filler = std::fs::File::create(self.filler())?;
        let piece = vec![0x5A; 64 << 10];
        loop {
            match std::io::Write::write_all(&mut filler, &piece) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).context("fill the disk"),
            }
        }
    }

    fn empty(&self) -> anyhow::Result<()> {
        std::fs::remove_file(self.filler()).context("give the space back")
    }

    fn filler(&self) -> PathBuf {
        self.at.join("somebody-elses-file")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l".as_ref(), self.at.as_os_str()]).status();
        let _ = std::fs::remove_file(&self.image);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_somebody_else_fills_is_429_and_no_loss() {
    let seed = terms::seed();
    let mut config = StackConfig::from_env("filled").unwrap().impatient();
    // Room for the spool and more: it is never the spool that is full.
    let set = ["spool.bytes_max=100000000", "spool.segment_bytes=4000000"];
    config.gateway_set.extend(set.map(String::from));
    config.gateway_set.push("pressure.disk_free_bytes_min=8000000".into());
    let mut stack = Stack::prepare(config).await.unwrap();
    let Some(disk) = SmallDisk::mount(&stack.dir.join("spool"), 192).unwrap() else {
        println!("SKIPPED: a file system can't be mounted here, which needs root and loop devices");
        stack.stop().await.unwrap();
        return;
    };
    if let Err(error) = filled(seed, &disk, &mut stack).await {
        panic!("PENSTOCK_TEST_SEED={seed}\n{:?}", stack.explain(error));
    }
    stack.gateway.terminate().await.unwrap();
    drop(disk);
    stack.stop().await.unwrap();
}

async fn filled(seed: u64, disk: &SmallDisk, stack: &mut Stack) -> anyhow::Result<()> {
    for core in &mut stack.cores {
        core.start().await?;
    }
    stack.gateway.start().await?;
    let stop = CancellationToken::new();
    let tally = Arc::new(Tally::default());
    let fleet = FleetConfig::mixed(seed, 60, 500.0);
    let load =
        tokio::spawn(fleet::run(fleet, stack.gateway_http, Arc::clone(&tally), stop.clone()));
    more_accepted(&tally, 1_500).await?;
    for round in 0..2 {
        let throttled = tally.throttled.get();
        disk.fill()?;
        until(Duration::from_secs(30), "refused, with 429, once the disk is full", async || {
            let state = oracle::metrics_of(&stack.gateway, "penstock_pressure_state").await?;
            Ok(state > 3.5 && tally.throttled.get() > throttled + 20)
        })
        .await?;
        let (accepted, since) = (tally.accepted.get(), Instant::now());
        tokio::time::sleep(Duration::from_secs(3)).await;
        let taken = tally.accepted.get() - accepted;
        ensure!(taken == 0, "{taken} events accepted with a full disk");
        disk.empty()?;
        more_accepted(&tally, 1_500).await.with_context(|| format!("round {round}: recovers"))?;
        println!("round {round}: taken again after {:?}", since.elapsed());
    }
    stop.cancel();
    let told = load.await?;
    stack.check_alive()?;
    let proof = oracle::prove(&stack.places(), &told, Tolerance::default()).await?;
    println!("{proof}");
    tally.check()?;
    ensure!(tally.server_errors.get() == 0, "{} answers 5xx", tally.server_errors.get());
    Ok(())
}
