//! The NBD protocol, as much as QEMU and the Linux kernel ask for: the fixed newstyle handshake,
//! simple replies, and the commands READ, WRITE (with FUA), FLUSH and DISC.
//!
//! Numbers and names are those of the protocol's specification (`proto.md` of the NBD project).

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest read or write, bytes; clients are told so.
pub(super) const LENGTH_MAX: u32 = 32 << 20;
/// The longest option of the handshake, bytes.
const OPTION_BYTES_MAX: u32 = 64 << 10;

const NBDMAGIC: u64 = 0x4e42_444d_4147_4943;
const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;

const FLAG_FIXED_NEWSTYLE: u16 = 1;
const FLAG_NO_ZEROES: u16 = 1 << 1;

const OPT_EXPORT_NAME: u32 = 1;
const OPT_ABORT: u32 = 2;
const OPT_INFO: u32 = 6;
const OPT_GO: u32 = 7;

const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERR_UNSUP: u32 = 0x8000_0001;
const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;

/// The disk has a write cache, which can be flushed, and writes can go through it.
const EXPORT_FLAGS: u16 = FLAG_HAS_FLAGS | FLAG_SEND_FLUSH | FLAG_SEND_FUA;
const FLAG_HAS_FLAGS: u16 = 1;
const FLAG_SEND_FLUSH: u16 = 1 << 2;
const FLAG_SEND_FUA: u16 = 1 << 3;

const CMD_READ: u16 = 0;
const CMD_WRITE: u16 = 1;
const CMD_DISC: u16 = 2;
const CMD_FLUSH: u16 = 3;
const CMD_FLAG_FUA: u16 = 1;

const EIO: u32 = 5;
const EINVAL: u32 = 22;

/// What a client wants of the disk.
#[derive(Debug)]
pub(super) enum Command {
    Read {
        offset: u64,
        length: u32,
    },
    Write {
        offset: u64,
        data: Vec<u8>,
        through: bool,
    },
    Flush,
    /// It is a command that the client was not told to use.
    Unknown(u16),
}

/// A command, and what the reply must carry.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) handle: u64,
    pub(super) command: Command,
}

/// Agrees with a client on an export of `bytes`; false when the client wanted nothing further.
pub(super) async fn handshake<S>(stream: &mut S, bytes: u64) -> io::Result<bool>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_u64(NBDMAGIC).await?;
    stream.write_u64(IHAVEOPT).await?;
    stream.write_u16(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES).await?;
    let client_flags = stream.read_u32().await?;
    loop {
        expect(stream.read_u64().await?, IHAVEOPT, "option")?;
        let option = stream.read_u32().await?;
        let length = stream.read_u32().await?;
        if length > OPTION_BYTES_MAX {
            return Err(invalid(format!("an option of {length} bytes")));
        }
        let mut data = vec![0; length as usize];
        stream.read_exact(&mut data).await?;
        match option {
            // There is one export; whatever the client calls it.
            OPT_EXPORT_NAME => {
                stream.write_u64(bytes).await?;
                stream.write_u16(EXPORT_FLAGS).await?;
                if client_flags & u32::from(FLAG_NO_ZEROES) == 0 {
                    stream.write_all(&[0; 124]).await?;
                }
                return Ok(true);
            }
            OPT_ABORT => {
                reply(stream, option, REP_ACK, &[]).await?;
                return Ok(false);
            }
            OPT_INFO | OPT_GO => {
                let export = [&INFO_EXPORT.to_be_bytes()[..], &bytes.to_be_bytes()]
                    .concat()
                    .into_iter()
                    .chain(EXPORT_FLAGS.to_be_bytes())
                    .collect::<Vec<_>>();
                reply(stream, option, REP_INFO, &export).await?;
                let mut sizes = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
                for size in [512, 4096, LENGTH_MAX] {
                    sizes.extend(u32::to_be_bytes(size));
                }
                reply(stream, option, REP_INFO, &sizes).await?;
                reply(stream, option, REP_ACK, &[]).await?;
                if option == OPT_GO {
                    return Ok(true);
                }
            }
            _ => reply(stream, option, REP_ERR_UNSUP, &[]).await?,
        }
    }
}

/// The next request; none when the client is done.
pub(super) async fn next<S>(stream: &mut S) -> io::Result<Option<Request>>
where
    S: AsyncRead + Unpin,
{
    let magic = match stream.read_u32().await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        magic => magic?,
    };
    expect(u64::from(magic), u64::from(REQUEST_MAGIC), "request")?;
    let flags = stream.read_u16().await?;
    let kind = stream.read_u16().await?;
    let handle = stream.read_u64().await?;
    let offset = stream.read_u64().await?;
    let length = stream.read_u32().await?;
    if length > LENGTH_MAX {
        return Err(invalid(format!("a request of {length} bytes")));
    }
    let command = match kind {
        CMD_READ => Command::Read { offset, length },
        CMD_WRITE => {
            let mut data = vec![0; length as usize];
            stream.read_exact(&mut data).await?;
            Command::Write { offset, data, through: flags & CMD_FLAG_FUA != 0 }
        }
        CMD_FLUSH => Command::Flush,
        CMD_DISC => return Ok(None),
        other => Command::Unknown(other),
    };
    Ok(Some(Request { handle, command }))
}

/// Answers a request: the data read, or why it was not done.
pub(super) async fn answer<S>(
    stream: &mut S,
    handle: u64,
    done: &io::Result<Vec<u8>>,
) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    let (error, data) = match done {
        Ok(data) => (0, data.as_slice()),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => (EINVAL, &[][..]),
        Err(_) => (EIO, &[][..]),
    };
    let mut message = Vec::with_capacity(16 + data.len());
    message.extend(SIMPLE_REPLY_MAGIC.to_be_bytes());
    message.extend(error.to_be_bytes());
    message.extend(handle.to_be_bytes());
    message.extend(data);
    stream.write_all(&message).await
}

async fn reply<S>(stream: &mut S, option: u32, kind: u32, data: &[u8]) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    stream.write_u64(OPTION_REPLY_MAGIC).await?;
    stream.write_u32(option).await?;
    stream.write_u32(kind).await?;
    stream.write_u32(data.len() as u32).await?;
    stream.write_all(data).await
}

fn expect(got: u64, magic: u64, what: &str) -> io::Result<()> {
    if got == magic { Ok(()) } else { Err(invalid(format!("{got:#x} is no {what}"))) }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
