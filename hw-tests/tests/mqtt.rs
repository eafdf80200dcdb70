//! Kills the gateway and the MQTT broker at random moments under load, and asks the oracle: every
//! message that was published with QoS 1 is stored exactly once by event id (spec I12, I5, N1).
//!
//! `PENSTOCK_TEST_SEED` replays a seed; with `PENSTOCK_TEST_LONG=1` there are more of them, longer.
//!
//! mosquitto acknowledges a message and saves it up to two seconds later. What it had acknowledged
//! and not saved when it was killed can be lost before any gateway sees it. So half of the publishers are
//! careful and publish that again; of theirs nothing may be missing. The others forget a message
//! once it is acknowledged: of theirs nothing may be missing but what was acknowledged shortly
//! before a kill and is not in the database that the killed broker left. Each of these is named,
//! and what of them is lost is counted (hw-tests/src/fleet/mqtt).

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hw_tests::fleet::FleetConfig;
use hw_tests::fleet::mqtt::{self, MqttFleetConfig, MqttTally, Saves};
use hw_tests::oracle::record::{State, ToldFleet};
use hw_tests::oracle::{self, checker::Tolerance};
use hw_tests::stack::service::{Kind, Service, Stop};
use hw_tests::stack::{Stack, StackConfig};
use hw_tests::{terms, wait};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio_util::sync::CancellationToken;

/// A connection that has gone silent is noticed after two keep-alive times, and the broker
/// sends everything again on the next one.
const HAND_OVER: Duration = Duration::from_secs(120);
const SUBSCRIPTION: &[u8] = b"penstock/+/+/events";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Gateway,
    Broker,
}

/// One kill: so long after the last one, and so long until the process comes back.
#[derive(Debug)]
struct Kill {
    victim: Victim,
    after: Duration,
    away: Duration,
}

fn kills(victims: &[Victim], load_for: Duration, rng: &mut ChaCha8Rng) -> Vec<Kill> {
    let mut left = victims.to_vec();
    let share = load_for.as_millis() as u64 / left.len() as u64;
    let mut kills = Vec::new();
    while !left.is_empty() {
        let victim = left.swap_remove(rng.random_range(0..left.len()));
        // Often right after the last restart, while everybody is still connecting.
        let after = if rng.random_bool(0.25) { share / 20 } else { share };
        let mut millis = |max: u64| Duration::from_millis(rng.random_range(1..=max.max(1)));
        kills.push(Kill { victim, after: millis(after), away: millis(share / 3) });
    }
    kills
}

/// A stack whose gateway reads from a broker of its own.
struct Setup {
    broker: Arc<Service>,
    address: (String, u16),
    stack: Stack,
}

async fn start(name: &str) -> anyhow::Result<Setup> {
    let broker = Service::start(Kind::Mosquitto).await?;
    let url = broker.address().to_owned();
    let (host, port) = url
        .strip_prefix("mqtt://")
        .and_then(|address| address.rsplit_once(':'))
        .with_context(|| format!("the broker's address is {url}"))?;
    let address = (host.to_owned(), port.parse()?);
    let mut config = StackConfig::from_env(name)?.impatient();
    config.raw_flush_interval = Duration::from_millis(700);
    config.gateway_set.push(format!("mqtt.broker={url}"));
    // Kills follow each other closely: nobody waits for half a minute after the third.
    config.gateway_set.push("mqtt.reconnect_max_ms=1000".into());
    let stack = Stack::start(config).await?;
    let setup = Setup { broker, address, stack };
    setup.is_subscribed().await?;
    setup.has_saved_session().await?;
    Ok(setup)
}

impl Setup {
    async fn is_subscribed(&self) -> anyhow::Result<()> {
        wait::until(Duration::from_secs(60), "the gateway has subscribed", async || {
            let gateway = &self.stack.gateway;
            Ok(oracle::metrics_of(gateway, "penstock_mqtt_connected").await? >= 1.0)
        })
        .await
    }

    /// A broker that is killed before it has saved the gateway's session knows of no subscriber, and
    /// refuses what devices publish.
    async fn has_saved_session(&self) -> anyhow::Result<()> {
        let database = self.broker.data_dir().join("mosquitto.db");
        wait::until(Duration::from_secs(30), "the broker has saved the session", async || {
            let saved = std::fs::read(&database).unwrap_or_default();
            Ok(saved.windows(SUBSCRIPTION.len()).any(|bytes| bytes == SUBSCRIPTION))
        })
        .await
    }

    fn saves(&self) -> Saves {
        Saves::watch(self.broker.data_dir().join("mosquitto.db"))
    }

    fn fleet(&self, seed: u64, half_careful: bool) -> MqttFleetConfig {
        let fleet = FleetConfig {
            batch_max: 5,
            duplicate_share: 0.0,
            ..FleetConfig::mixed(seed, 60, 500.0)
        };
        MqttFleetConfig { fleet, broker: self.address.clone(), publishers: 6, half_careful }
    }
}

fn seeds(many: u32) -> Vec<u64> {
    match env::var("PENSTOCK_TEST_SEED").ok() {
        Some(seed) => vec![seed.parse().unwrap()],
        None => (0..if terms::is_long() { many } else { 1 }).map(|_| rand::random()).collect(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_gateway_costs_no_message_and_no_answer() {
    for seed in seeds(4) {
        println!("PENSTOCK_TEST_SEED={seed}");
        let mut setup = start("mqtt-gateway").await.unwrap();
        let done = gateway_kills(seed, &mut setup).await;
        if let Err(error) = done {
            panic!("PENSTOCK_TEST_SEED={seed}\n{:?}", setup.stack.explain(error));
        }
        setup.stack.stop().await.unwrap();
    }
}

async fn gateway_kills(seed: u64, setup: &mut Setup) -> anyhow::Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (saves, stop, tally) = (setup.saves(), CancellationToken::new(), Arc::default());
    let answers = Answers::listen(setup).await?;
    let fleet = setup.fleet(seed, false);
    let load = tokio::spawn(mqtt::run(fleet, saves.clone(), Arc::clone(&tally), stop.clone()));
    let (count, load_for) = if terms::is_long() { (30, 180) } else { (8, 30) };
    let victims = vec![Victim::Gateway; count];
    for kill in kills(&victims, Duration::from_secs(load_for), &mut rng) {
        tokio::time::sleep(kill.after).await;
        println!("{kill:?}");
        setup.stack.gateway.kill()?;
        tokio::time::sleep(kill.away).await;
        setup.stack.gateway.start().await?;
    }
    stop.cancel();
    let told = load.await?;
    saves.end();
    setup.all_handed_over().await?;
    let proof = oracle::prove(&setup.stack.places(), &told, Tolerance::default()).await?;
    println!("{proof}");
    report(&tally, &told, &proof.verdict, &saves);
    ensure!(proof.verdict.unknown == 0, "{} events without a fate", proof.verdict.unknown);
    enough_happened(&tally, &proof.verdict)?;
    // Every message with a rejected event was answered, those of broken connections twice.
    let answered = answers.end(proof.verdict.rejected).await?;
    println!("{answered} answers on the error topics");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_is_stored_once_when_broker_and_gateway_are_killed() {
    for seed in seeds(6) {
        println!("PENSTOCK_TEST_SEED={seed}");
        let mut setup = start("mqtt-both").await.unwrap();
        let done = all_kills(seed, &mut setup).await;
        if let Err(error) = done {
            panic!("PENSTOCK_TEST_SEED={seed}\n{:?}", setup.stack.explain(error));
        }
        setup.stack.stop().await.unwrap();
    }
}

async fn all_kills(seed: u64, setup: &mut Setup) -> anyhow::Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (saves, stop, tally) = (setup.saves(), CancellationToken::new(), Arc::default());
    let fleet = setup.fleet(seed, true);
    let load = tokio::spawn(mqtt::run(fleet, saves.clone(), Arc::clone(&tally), stop.clone()));
    let (count, load_for) = if terms::is_long() { (25, 240) } else { (7, 45) };
    let mut victims = vec![Victim::Gateway; count];
    victims.extend(vec![Victim::Broker; count]);
    for kill in kills(&victims, Duration::from_secs(load_for), &mut rng) {
        tokio::time::sleep(kill.after).await;
        println!("{kill:?}");
        match kill.victim {
            Victim::Gateway => {
                setup.stack.gateway.kill()?;
                tokio::time::sleep(kill.away).await;
                setup.stack.gateway.start().await?;
            }
            Victim::Broker => {
                setup.broker.stop(Stop::Kill).await?;
                saves.crashed()?;
                tokio::time::sleep(kill.away).await;
                setup.broker.restart().await?;
            }
        }
    }
    stop.cancel();
    let told = load.await?;
    saves.end();
    setup.all_handed_over().await?;
    let proof = oracle::prove(&setup.stack.places(), &told, Tolerance::default()).await?;
    println!("{proof}");
    report(&tally, &told, &proof.verdict, &saves);
    enough_happened(&tally, &proof.verdict)?;
    let unsaved = tally.repeated_unsaved.get() + tally.forgotten.get();
    ensure!(unsaved > 0 || !terms::is_long(), "no kill hit an acknowledged message");
    Ok(())
}

impl Setup {
    /// Waits until the broker has nothing left for the gateway: its database holds no message, and
    /// nothing more comes.
    async fn all_handed_over(&self) -> anyhow::Result<()> {
        self.is_subscribed().await?;
        let since = Instant::now();
        let metric = |name| oracle::metrics_of(&self.stack.gateway, name);
        let (mut quiet, mut last) = (0, -1.0);
        while quiet < 50 {
            let acknowledged = metric("penstock_mqtt_acknowledged_messages_total").await?;
            let open = metric("penstock_mqtt_unacknowledged_messages").await?;
            let holds = messages_at(&self.broker)?;
            let is_quiet = open == 0.0 && acknowledged == last && holds == 0;
            quiet = if is_quiet { quiet + 1 } else { 0 };
            last = acknowledged;
            let waited = since.elapsed();
            ensure!(waited < HAND_OVER, "the broker holds {holds} messages, {open} are open");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

/// How many messages of devices the broker's database holds, which is written anew every two seconds.
/// A subscription has a wildcard in the device's place.
fn messages_at(broker: &Service) -> anyhow::Result<usize> {
    const TOPIC: &[u8] = b"penstock/sim/";
    let database = std::fs::read(broker.data_dir().join("mosquitto.db"))?;
    let topics = database.windows(TOPIC.len() + 1);
    Ok(topics.filter(|bytes| bytes.starts_with(TOPIC) && !bytes.ends_with(b"+")).count())
}

fn report(tally: &MqttTally, told: &ToldFleet, verdict: &oracle::verdict::Verdict, saves: &Saves) {
    let records = told.devices.iter().flat_map(|device| &device.records);
    let open = records.filter(|record| record.state == State::Unknown).count() as u64;
    let surplus = verdict.stored + verdict.dead_lettered - verdict.accepted - verdict.rejected;
    println!(
        "messages {}, acknowledged by the broker {}, published again: unacknowledged {}, \
         acknowledged but unsaved {}; acknowledged, never saved and not published again {} \
         ({open} events, of which the gateway had {surplus}; mosquitto lost the others; at most {:?} \
         old when it was killed); refused {}; connections {}; saves {}",
        tally.messages.get(),
        tally.acknowledged.get(),
        tally.repeated.get(),
        tally.repeated_unsaved.get(),
        tally.forgotten.get(),
        saves.forgotten_age_max(),
        tally.refused.get(),
        tally.connections.get(),
        saves.count(),
    );
}

/// A run in which nothing was at stake proves nothing.
fn enough_happened(tally: &MqttTally, verdict: &oracle::verdict::Verdict) -> anyhow::Result<()> {
    ensure!(verdict.accepted > 2_000, "only {} events accepted", verdict.accepted);
    ensure!(verdict.rejected > 10, "only {} events rejected", verdict.rejected);
    ensure!(verdict.transport_duplicates > 0, "no kill made the broker send anything again");
    ensure!(tally.refused.get() == 0, "{} messages refused", tally.refused.get());
    Ok(())
}

/// Counts what is published on the error topics.
struct Answers {
    rejected: Arc<AtomicU64>,
    is_broken: Arc<AtomicBool>,
    polling: tokio::task::JoinHandle<()>,
}

impl Answers {
    async fn listen(setup: &Setup) -> anyhow::Result<Self> {
        let (host, port) = &setup.address;
        let mut options = MqttOptions::new("answers", host, *port);
        options.set_max_packet_size(Some(1 << 20));
        let (client, mut eventloop) = AsyncClient::new(options, 8);
        client.subscribe("penstock/sim/+/errors", QoS::AtLeastOnce).await?;
        let rejected = Arc::new(AtomicU64::new(0));
        let is_broken = Arc::new(AtomicBool::new(false));
        let (counted, broken) = (Arc::clone(&rejected), Arc::clone(&is_broken));
        let (is_listening, listening) = tokio::sync::oneshot::channel();
        let mut is_listening = Some(is_listening);
        let polling = tokio::spawn(async move {
            let _client = client;
            let mut seen = std::collections::BTreeSet::new();
            loop {
                match eventloop.poll().await {
                    Ok(Event::Incoming(Packet::SubAck(_))) => {
                        is_listening.take().map(|listening| listening.send(()));
                    }
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let about = publish.properties.and_then(|given| given.correlation_data);
                        if seen.insert(about) {
                            let body = serde_json::from_slice(&publish.payload);
                            counted.fetch_add(
                                rejected_in(&body.unwrap_or_default()),
                                Ordering::SeqCst,
                            );
                        }
                    }
                    Ok(_) => {}
                    Err(_) => return broken.store(true, Ordering::SeqCst),
                }
            }
        });
        listening.await.context("the error topics can't be read")?;
        Ok(Self { rejected, is_broken, polling })
    }

    /// Waits for answers about so many events, those for the same message counted once.
    async fn end(self, rejected: u64) -> anyhow::Result<u64> {
        let waiting = async {
            while self.rejected.load(Ordering::SeqCst) < rejected {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), waiting).await;
        let answered = self.rejected.load(Ordering::SeqCst);
        ensure!(!self.is_broken.load(Ordering::SeqCst), "the error topics were cut off");
        ensure!(waited.is_ok(), "{rejected} events rejected, {answered} answered");
        self.polling.abort();
        ensure!(answered == rejected, "{rejected} events rejected, {answered} answered");
        Ok(answered)
    }
}

/// How many events an answer calls rejected.
fn rejected_in(body: &serde_json::Value) -> u64 {
    let events = body["events"].as_array().map(Vec::as_slice).unwrap_or_default();
    events.iter().filter(|event| event["status"] != 202).count() as u64
}
