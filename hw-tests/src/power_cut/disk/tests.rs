//! What the rig's disk must do for its verdicts to mean anything: lose what was not flushed, keep
//! what was, and never answer after the cut. Over the real protocol, with a client of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use super::cache::PIECE_BYTES;
use super::*;

const PIECES: u64 = 64;
const PIECE: usize = PIECE_BYTES as usize;

/// A disk and the folder of its medium and its socket.
struct Bench {
    disk: Disk,
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::serve(volatile(), &dir.path().join("disk")).unwrap();
        disk.power_on();
        Self { disk, dir }
    }

    async fn connect(&self) -> Client {
        Client::connect(self.dir.path().join("disk")).await
    }
}

fn volatile() -> VolatileDisk {
    let medium = tempfile::tempfile().unwrap();
    medium.set_len(PIECES * PIECE_BYTES).unwrap();
    VolatileDisk::new(medium).unwrap()
}

/// An NBD client that knows the numbers of the specification by itself.
struct Client {
    stream: UnixStream,
    bytes: u64,
}

const READ: u16 = 0;
const WRITE: u16 = 1;
const FLUSH: u16 = 3;
const FUA: u16 = 1;

impl Client {
    async fn connect(path: PathBuf) -> Self {
        let mut stream = UnixStream::connect(path).await.unwrap();
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
        stream.write_u32(3).await.unwrap();
        // An option that nobody offers, then NBD_OPT_GO for the export "".
        for (option, data) in [(8, &[][..]), (7, &[0, 0, 0, 0, 0, 0][..])] {
            stream.write_all(b"IHAVEOPT").await.unwrap();
            stream.write_u32(option).await.unwrap();
            stream.write_u32(data.len() as u32).await.unwrap();
            stream.write_all(data).await.unwrap();
        }
        let (kind, _) = option_reply(&mut stream).await;
        assert_eq!(kind, 0x8000_0001, "structured replies are not supported");
        let mut bytes = 0;
        loop {
            let (kind, data) = option_reply(&mut stream).await;
            match (kind, data.as_slice()) {
                (3, [0, 0, size @ .., high, low]) => {
                    bytes = u64::from_be_bytes(size.try_into().unwrap());
                    let flags = u16::from_be_bytes([*high, *low]);
                    assert_eq!(flags & 0b1111, 0b1101, "writable, with FLUSH and FUA");
                }
                (3, [0, 3, ..]) => {}
                (1, []) => return Self { stream, bytes },
                other => panic!("{other:?}"),
            }
        }
    }

    async fn send(&mut self, command: u16, flags: u16, offset: u64, length: usize, data: &[u8]) {
        let mut request = 0x2560_9513u32.to_be_bytes().to_vec();
        request.extend(flags.to_be_bytes());
        request.extend(command.to_be_bytes());
        request.extend(77u64.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend((length as u32).to_be_bytes());
        request.extend(data);
        self.stream.write_all(&request).await.unwrap();
    }

    /// The error number and the data; none when the connection ended instead.
    async fn reply(&mut self, length: usize) -> Option<(u32, Vec<u8>)> {
        let magic = self.stream.read_u32().await.ok()?;
        assert_eq!(magic, 0x6744_6698);
        let error = self.stream.read_u32().await.ok()?;
        assert_eq!(self.stream.read_u64().await.ok()?, 77);
        let mut data = vec![0; if error == 0 { length } else { 0 }];
        self.stream.read_exact(&mut data).await.ok()?;
        Some((error, data))
    }

    async fn write(&mut self, offset: u64, data: &[u8], flags: u16) {
        self.send(WRITE, flags, offset, data.len(), data).await;
        assert_eq!(self.reply(0).await, Some((0, vec![])));
    }

    async fn read(&mut self, offset: u64, length: usize) -> Vec<u8> {
        self.send(READ, 0, offset, length, &[]).await;
        let (error, data) = self.reply(length).await.unwrap();
        assert_eq!(error, 0);
        data
    }

    async fn flush(&mut self) {
        self.send(FLUSH, 0, 0, 0, &[]).await;
        assert_eq!(self.reply(0).await, Some((0, vec![])));
    }

    /// Says no more; whether something still came.
    async fn hears_nothing_more(mut self) -> bool {
        self.stream.shutdown().await.unwrap();
        self.reply(0).await.is_none()
    }
}

async fn option_reply(stream: &mut UnixStream) -> (u32, Vec<u8>) {
    assert_eq!(stream.read_u64().await.unwrap(), 0x0003_e889_0455_65a9);
    stream.read_u32().await.unwrap();
    let kind = stream.read_u32().await.unwrap();
    let mut data = vec![0; stream.read_u32().await.unwrap() as usize];
    stream.read_exact(&mut data).await.unwrap();
    (kind, data)
}

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(1)
}

#[tokio::test]
async fn what_was_flushed_survives_and_what_was_not_is_lost() {
    let bench = Bench::new();
    let mut client = bench.connect().await;
    assert_eq!(client.bytes, PIECES * PIECE_BYTES);
    client.write(0, &[1; 2 * PIECE], 0).await;
    client.flush().await;
    client.write(PIECE_BYTES, &[2; 2 * PIECE], 0).await;
    client.write(10 * PIECE_BYTES, &[3; PIECE], FUA).await;
    // Before the cut, everybody sees what was written last.
    let seen = client.read(0, 3 * PIECE).await;
    assert_eq!([seen[0], seen[PIECE], seen[2 * PIECE]], [1, 2, 2]);
    assert_eq!(bench.disk.unflushed(), 2);

    bench.disk.power_off();
    assert!(client.hears_nothing_more().await);
    let loss = bench.disk.lose_power(&mut rng(), 0.0).unwrap();
    assert_eq!(loss, Loss { dropped: 2, ..Loss::default() });
    bench.disk.power_on();
    let mut client = bench.connect().await;
    let seen = client.read(0, 11 * PIECE).await;
    assert_eq!([seen[0], seen[PIECE], seen[2 * PIECE], seen[10 * PIECE]], [1, 1, 0, 3]);
}

#[tokio::test]
async fn nothing_is_answered_after_the_cut() {
    for (trigger, flush_counts) in
        [(Trigger::Write(2), false), (Trigger::FlushComes(1), false), (Trigger::FlushDone(1), true)]
    {
        let bench = Bench::new();
        let mut client = bench.connect().await;
        let mut other = bench.connect().await;
        bench.disk.arm(trigger);
        client.write(0, &[1; PIECE], 0).await;
        let at_write = matches!(trigger, Trigger::Write(_));
        let (command, data) = if at_write { (WRITE, vec![2; PIECE]) } else { (FLUSH, vec![]) };
        client.send(command, 0, PIECE_BYTES, data.len(), &data).await;
        bench.disk.power_gone().await;
        other.send(READ, 0, 0, PIECE, &[]).await;
        assert!(client.hears_nothing_more().await, "{trigger:?}");
        assert!(other.hears_nothing_more().await, "{trigger:?}");
        // Nothing that was not flushed is kept; a flush that was done counts, heard of or not.
        bench.disk.lose_power(&mut rng(), 0.0).unwrap();
        bench.disk.power_on();
        let survived = bench.connect().await.read(0, PIECE).await[0] == 1;
        assert_eq!(survived, flush_counts, "{trigger:?}");
    }
}

#[tokio::test]
async fn requests_beyond_the_disk_are_refused() {
    let bench = Bench::new();
    let mut client = bench.connect().await;
    let end = client.bytes;
    for (command, offset, length) in
        [(READ, end - 1, 2), (READ, u64::MAX, 2), (WRITE, end, 1), (9, 0, 0)]
    {
        let data = vec![0; if command == WRITE { length } else { 0 }];
        client.send(command, 0, offset, length, &data).await;
        assert_eq!(client.reply(length).await, Some((22, vec![])), "{command} at {offset}");
    }
    client.write(end - 1, &[5], 0).await;
    assert_eq!(client.read(end - 1, 1).await, [5]);
}

#[tokio::test]
async fn without_power_nobody_is_served() {
    let bench = Bench::new();
    let client = bench.connect().await;
    bench.disk.power_off();
    assert!(client.hears_nothing_more().await);
    bench.disk.power_on();
    let mut old = bench.connect().await;
    bench.disk.power_off();
    bench.disk.power_on();
    // A connection of an earlier life is dead, though there is power again.
    old.send(READ, 0, 0, 1, &[]).await;
    assert!(old.hears_nothing_more().await);
    assert!(bench.disk.lose_power(&mut rng(), 0.5).is_err(), "the power is on");
}

/// What a piece may hold after a cut: what was flushed, or anything written since.
#[derive(Clone)]
struct Allowed {
    flushed: Vec<u8>,
    since: Vec<Vec<u8>>,
}

#[test]
fn each_piece_ends_in_a_state_it_was_in() {
    let seed = crate::terms::seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut disk = volatile();
    let mut model: BTreeMap<u64, Allowed> = (0..PIECES)
        .map(|piece| (piece, Allowed { flushed: vec![0; PIECE], since: Vec::new() }))
        .collect();
    let mut total = Loss::default();
    for _ in 0..300 {
        // Enough that many a piece is written again before it is flushed.
        for _ in 0..rng.random_range(0..80) {
            step(&mut disk, &mut model, &mut rng);
        }
        let keep_share = [0.0, 0.3, 1.0][rng.random_range(0..3)];
        total.add(disk.lose_power(&mut rng, keep_share).unwrap());
        for (piece, allowed) in &mut model {
            let mut found = vec![0; PIECE];
            disk.read(piece * PIECE_BYTES, &mut found).unwrap();
            assert!(
                found == allowed.flushed || allowed.since.contains(&found),
                "piece {piece} holds what it never held"
            );
            *allowed = Allowed { flushed: found, since: Vec::new() };
        }
    }
    assert!(total.kept > 100 && total.kept_older > 100 && total.dropped > 100, "{total:?}");
}

fn step(disk: &mut VolatileDisk, model: &mut BTreeMap<u64, Allowed>, rng: &mut ChaCha8Rng) {
    if rng.random_bool(0.03) {
        disk.flush().unwrap();
        for allowed in model.values_mut() {
            if let Some(newest) = allowed.since.pop() {
                *allowed = Allowed { flushed: newest, since: Vec::new() };
            }
        }
        return;
    }
    // Sectors, which cover pieces in part.
    let sector = rng.random_range(0..PIECES * 8 - 20);
    let data: Vec<u8> = (0..rng.random_range(1..=20) * 512).map(|_| rng.random()).collect();
    let through = rng.random_bool(0.1);
    disk.write(sector * 512, &data, through).unwrap();
    let mut seen = vec![0; data.len()];
    disk.read(sector * 512, &mut seen).unwrap();
    assert!(seen == data, "what was written can be read");
    let end = sector * 512 + data.len() as u64;
    for piece in sector * 512 / PIECE_BYTES..end.div_ceil(PIECE_BYTES) {
        let mut newest = vec![0; PIECE];
        disk.read(piece * PIECE_BYTES, &mut newest).unwrap();
        let allowed = model.get_mut(&piece).unwrap();
        if through {
            *allowed = Allowed { flushed: newest, since: Vec::new() };
        } else {
            allowed.since.push(newest);
        }
    }
}
