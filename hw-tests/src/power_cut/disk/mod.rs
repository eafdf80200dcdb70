//! The guest's disk: an NBD server whose power can be cut.
//!
//! While the power is on, it answers in the order in which requests come. At the cut it stops in
//! the middle of what it is doing: it answers nobody any more, so that nothing after the cut can
//! be acknowledged on the strength of it; then [`Disk::lose_power`] rolls the dice over what was
//! not flushed. A new connection after [`Disk::power_on`] finds what survived.

pub mod cache;
mod protocol;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::Rng;
use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use self::cache::{Loss, VolatileDisk};
use self::protocol::{Command, Request};

/// When the power is to go, counted from the moment at which this is armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// When the n-th write has been taken into the cache, before it is answered.
    Write(u32),
    /// When the n-th flush comes, before anything of it is done.
    FlushComes(u32),
    /// When the n-th flush has been done, before it is answered.
    FlushDone(u32),
}

/// What the disk has done since the power came on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Commands to write.
    pub writes: u64,
    /// Bytes of them.
    pub written_bytes: u64,
    /// Commands to flush.
    pub flushes: u64,
}

/// The server. Dropping it ends it.
pub struct Disk {
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    state: Mutex<State>,
    went: Notify,
}

struct State {
    disk: VolatileDisk,
    /// Connections of an earlier life are dead.
    life: u64,
    on: bool,
    trigger: Option<Trigger>,
    work: Work,
}

impl Disk {
    /// Serves a disk at a socket; its power is off.
    ///
    /// # Errors
    /// When the socket can't be bound.
    pub fn serve(disk: VolatileDisk, socket: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let state = State { disk, life: 0, on: false, trigger: None, work: Work::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), went: Notify::new() });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { shared, accepting })
    }

    /// Begins a life.
    pub fn power_on(&self) {
        let mut state = self.shared.lock();
        state.life += 1;
        state.on = true;
        state.trigger = None;
        state.work = Work::default();
    }

    /// Lets the power go at that event; [`Self::power_gone`] tells.
    pub fn arm(&self, trigger: Trigger) {
        self.shared.lock().trigger = Some(trigger);
    }

    /// Waits until the armed event has come.
    pub async fn power_gone(&self) {
        loop {
            let went = self.shared.went.notified();
            if !self.shared.lock().on {
                return;
            }
            went.await;
        }
    }

    /// Now: nothing is answered after this returns.
    pub fn power_off(&self) {
        self.shared.lock().on = false;
    }

    /// Decides what is left of what was not flushed. The power must be off, and nobody connected.
    ///
    /// # Errors
    /// When the power is on, or the medium fails.
    pub fn lose_power(&self, rng: &mut impl Rng, keep_share: f64) -> io::Result<Loss> {
        let mut state = self.shared.lock();
        if state.on {
            return Err(io::Error::other("the power of the disk is on"));
        }
        state.disk.lose_power(rng, keep_share)
    }

    /// What this life has seen so far.
    pub fn work(&self) -> Work {
        self.shared.lock().work
    }

    /// Pieces that a cut would put at stake now.
    pub fn unflushed(&self) -> usize {
        self.shared.lock().disk.unflushed()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: UnixListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    if let Err(error) = serve(stream, &shared).await {
                        // A guest that is killed breaks its connection; nothing else should.
                        tracing::debug!(%error, "a connection to the disk");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept a connection to the disk");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: UnixStream, shared: &Shared) -> io::Result<()> {
    let (life, bytes) = {
        let state = shared.lock();
        if !state.on {
            return Ok(());
        }
        (state.life, state.disk.bytes())
    };
    let mut stream = BufReader::with_capacity(256 << 10, stream);
    if !protocol::handshake(&mut stream, bytes).await? {
        return Ok(());
    }
    while let Some(Request { handle, command }) = protocol::next(&mut stream).await? {
        match shared.carry_out(life, command) {
            Some(done) => protocol::answer(&mut stream, handle, &done).await?,
            // Without power it is silent: an error would be an answer too.
            None => drain(&mut stream).await?,
        }
    }
    Ok(())
}

async fn drain(stream: &mut BufReader<UnixStream>) -> io::Result<()> {
    let mut unheard = [0; 4096];
    while stream.read(&mut unheard).await? > 0 {}
    Ok(())
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// None when there is no power (any more): then there is no answer.
    fn carry_out(&self, life: u64, command: Command) -> Option<io::Result<Vec<u8>>> {
        let mut state = self.lock();
        if !state.on || state.life != life {
            return None;
        }
        let done = state.carry_out(command);
        if done.is_none() {
            state.on = false;
            self.went.notify_waiters();
        }
        done
    }
}

impl State {
    fn carry_out(&mut self, command: Command) -> Option<io::Result<Vec<u8>>> {
        match command {
            Command::Read { offset, length } => {
                let mut data = vec![0; length as usize];
                Some(self.disk.read(offset, &mut data).map(|()| data))
            }
            Command::Write { offset, data, through } => {
                self.work.writes += 1;
                self.work.written_bytes += data.len() as u64;
                let done = self.disk.write(offset, &data, through);
                let Some(Trigger::Write(left)) = &mut self.trigger else {
                    return Some(done.map(|()| Vec::new()));
                };
                *left = left.saturating_sub(1);
                (*left > 0).then(|| done.map(|()| Vec::new()))
            }
            Command::Flush => {
                self.work.flushes += 1;
                let goes = match &mut self.trigger {
                    Some(Trigger::FlushComes(left) | Trigger::FlushDone(left)) => {
                        *left = left.saturating_sub(1);
                        *left == 0
                    }
                    Some(Trigger::Write(_)) | None => false,
                };
                if goes && matches!(self.trigger, Some(Trigger::FlushComes(_))) {
                    return None;
                }
                let done = self.disk.flush();
                (!goes).then(|| done.map(|()| Vec::new()))
            }
            Command::Unknown(number) => {
                let what = format!("command {number} was not offered");
                Some(Err(io::Error::new(io::ErrorKind::InvalidInput, what)))
            }
        }
    }
}
