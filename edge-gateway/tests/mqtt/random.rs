//! A broker that breaks off, repeats, forgets which packet identifier meant what, and a spool that
//! fails, all at random. Whatever happens: what is acknowledged is durable, everything is durable
//! in the end, and each device's events are in order.
//!
//! `PENSTOCK_TEST_SEED` replays a seed; with `PENSTOCK_TEST_LONG=1` there are more of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use edge_gateway::spool::SpoolError;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rumqttc::v5::mqttbytes::v5::Packet;

use crate::gateway::{Gate, Gateway, config};
use crate::scripted::{Peer, Scripted};
use crate::{event, number_of};

const MESSAGES: usize = 400;
const DEVICES: usize = 3;
const RECEIVE_MAX: u16 = 20;

/// What the broker remembers.
struct Broker {
    rng: ChaCha8Rng,
    gate: Gate,
    /// Not sent, or to be sent under another identifier.
    queue: VecDeque<usize>,
    /// Sent and not acknowledged.
    open: BTreeMap<u16, usize>,
    /// In the order of sending.
    order: VecDeque<u16>,
    next_pkid: u16,
    acknowledged: BTreeSet<usize>,
}

#[tokio::test(flavor = "current_thread")]
async fn what_is_acknowledged_is_durable_whatever_happens() {
    let given = std::env::var("PENSTOCK_TEST_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let is_long = std::env::var("PENSTOCK_TEST_LONG").is_ok_and(|long| long == "1");
    let seeds = match (given, is_long) {
        (Some(_), _) => 1,
        (None, true) => 400,
        (None, false) => 20,
    };
    let mut broken = 0;
    for _ in 0..seeds {
        let seed = given.unwrap_or_else(rand::random);
        println!("PENSTOCK_TEST_SEED={seed}");
        broken += run(seed).await;
    }
    println!("{seeds} seeds, {broken} broken connections");
    assert!(broken >= seeds, "a run in which nothing breaks proves nothing");
}

async fn run(seed: u64) -> usize {
    let scripted = Scripted::listen().await;
    let gate = Gate::open();
    let mut config = config(scripted.port());
    config.receive_max = RECEIVE_MAX;
    (config.reconnect_first_ms, config.reconnect_max_ms) = (1, 2);
    let gateway = Gateway::start(config, gate.clone());
    let mut broker = Broker {
        rng: ChaCha8Rng::seed_from_u64(seed),
        gate,
        queue: (0..MESSAGES).collect(),
        open: BTreeMap::new(),
        order: VecDeque::new(),
        next_pkid: 1,
        acknowledged: BTreeSet::new(),
    };
    let mut connections = 0;
    while broker.acknowledged.len() < MESSAGES {
        connections += 1;
        let remembers = connections == 1 || broker.rng.random_bool(0.7);
        if !remembers {
            broker.forget_identifiers();
        }
        let peer = scripted.subscribed(remembers).await;
        broker.serve(peer).await;
    }
    gateway.abandon().await;
    broker.verify();
    connections - 1
}

impl Broker {
    /// Starts counting packet identifiers anew, in the order of the messages.
    fn forget_identifiers(&mut self) {
        for pkid in self.order.drain(..).rev() {
            self.queue.extend(self.open.remove(&pkid));
            self.queue.rotate_right(1);
        }
        self.next_pkid = 1;
    }

    /// Until everything is acknowledged, or the connection breaks.
    async fn serve(&mut self, mut peer: Peer) {
        let again: Vec<u16> = self.order.iter().copied().collect();
        let mut sent = BTreeSet::new();
        for pkid in again {
            self.send(&mut peer, pkid).await;
            sent.insert(pkid);
        }
        while self.acknowledged.len() < MESSAGES {
            // Each makes everybody wait for a while.
            if self.rng.random_bool(0.003) {
                let failure = match self.rng.random_bool(0.5) {
                    true => SpoolError::Full { bytes_used: 2, bytes_max: 1 },
                    false => SpoolError::Disk("the disk's day off".into()),
                };
                self.gate.failures.lock().unwrap().push(failure);
            }
            if self.rng.random_bool(0.01) {
                return;
            }
            if self.open.len() < RECEIVE_MAX.into()
                && self.rng.random_bool(0.8)
                && let Some(number) = self.queue.pop_front()
            {
                let pkid = self.free_identifier();
                self.open.insert(pkid, number);
                self.order.push_back(pkid);
                self.send(&mut peer, pkid).await;
                sent.insert(pkid);
                continue;
            }
            let packet = tokio::select! {
                packet = peer.read() => packet,
                () = tokio::time::sleep(Duration::from_millis(1)) => continue,
            };
            let Some(Packet::PubAck(puback)) = packet else { return };
            assert!(
                sent.contains(&puback.pkid),
                "PUBACK {} is not of this connection",
                puback.pkid
            );
            self.acknowledge(puback.pkid);
        }
    }

    fn acknowledge(&mut self, pkid: u16) {
        let number = self.open.remove(&pkid).unwrap_or_else(|| panic!("PUBACK {pkid} again"));
        assert_eq!(self.order.pop_front(), Some(pkid), "PUBACKs are not in order");
        let events = self.gate.events();
        let durable = events.iter().any(|event| number_of(&event.payload) == number);
        assert!(durable, "event {number} is acknowledged and not durable");
        self.acknowledged.insert(number);
    }

    fn free_identifier(&mut self) -> u16 {
        loop {
            let pkid = self.next_pkid;
            // Few of them, so that they are used again all the time.
            self.next_pkid = pkid % (2 * RECEIVE_MAX) + 1;
            if !self.open.contains_key(&pkid) {
                return pkid;
            }
        }
    }

    async fn send(&self, peer: &mut Peer, pkid: u16) {
        let number = self.open[&pkid];
        let device = format!("press-{}", number % DEVICES);
        peer.publish(pkid, &device, event(&device, number)).await;
    }

    fn verify(&self) {
        let mut last = [None; DEVICES];
        let mut seen = BTreeSet::new();
        for event in self.gate.events() {
            let number = number_of(&event.payload);
            assert_eq!(event.device_id, format!("press-{}", number % DEVICES));
            if seen.insert(number) {
                let before = last[number % DEVICES].replace(number);
                assert!(before < Some(number), "{number} after {before:?}");
            }
        }
        assert_eq!(seen.len(), MESSAGES);
    }
}
