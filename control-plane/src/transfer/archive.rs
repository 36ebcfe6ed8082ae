//! The file format of a whole store; `docs/backup.md` describes it for others.
//!
//! Eight bytes say what it is. Then frames: the length of a message (four bytes, little end first), the message, and the BLAKE3 hash (32
//! bytes) of everything in the file before the hash. The first message is a header, the last one an end, between them are entries. A file
//! that was cut, changed, or put together of two, does not read.

use std::io::{self, Read};

use prost::Message as _;
use proxyxai_proto::store::v1::{
    ArchiveEnd, ArchiveEntries, ArchiveEntry, ArchiveFrame, ArchiveHeader, archive_frame::Frame,
};

const MAGIC: &[u8; 7] = b"PXAIARC";
const VERSION: u8 = b'1';
/// No frame is larger: entries are at most as large as a transaction.
const MAX_FRAME: u32 = 4 << 20;
const HASH: usize = blake3::OUT_LEN;

/// Makes the bytes of a file.
#[derive(Default)]
pub(super) struct Framer {
    hasher: blake3::Hasher,
    entries: u64,
}

impl Framer {
    /// The beginning of the file.
    pub(super) fn header(&mut self, header: ArchiveHeader) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(VERSION);
        self.hasher.update(&bytes);
        bytes.extend(self.frame(Frame::Header(header)));
        bytes
    }

    /// Some entries.
    pub(super) fn entries(&mut self, entries: Vec<ArchiveEntry>) -> Vec<u8> {
        let count = u64::try_from(entries.len()).unwrap_or(u64::MAX);
        self.entries = self.entries.saturating_add(count);
        self.frame(Frame::Entries(ArchiveEntries { entries }))
    }

    /// The end of the file.
    pub(super) fn end(&mut self) -> Vec<u8> {
        let entries = self.entries;
        self.frame(Frame::End(ArchiveEnd { entries }))
    }

    fn frame(&mut self, frame: Frame) -> Vec<u8> {
        let message = ArchiveFrame { frame: Some(frame) }.encode_to_vec();
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(message);
        self.hasher.update(&bytes);
        let hash = self.hasher.finalize();
        self.hasher.update(hash.as_bytes());
        bytes.extend(hash.as_bytes());
        bytes
    }
}

/// Reads a file from its beginning.
pub struct Archive<R> {
    from: R,
    hasher: blake3::Hasher,
    frames: u64,
    entries: u64,
    header: ArchiveHeader,
}

impl<R: Read> Archive<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// When it is no such file, or of a newer program, or damaged.
    pub fn open(mut from: R) -> Result<Self, ArchiveError> {
        let mut start = [0; 8];
        from.read_exact(&mut start)
            .map_err(|error| ArchiveError::short(error, ArchiveError::Foreign))?;
        match start.strip_prefix(MAGIC) {
            Some([VERSION]) => {}
            Some([version]) if version.is_ascii_digit() => return Err(ArchiveError::Newer),
            _ => return Err(ArchiveError::Foreign),
        }
        let mut archive = Self {
            from,
            hasher: blake3::Hasher::new(),
            frames: 0,
            entries: 0,
            header: ArchiveHeader::default(),
        };
        archive.hasher.update(&start);
        match archive.frame()? {
            Frame::Header(header) => archive.header = header,
            Frame::Entries(_) | Frame::End(_) => return Err(archive.damaged()),
        }
        Ok(archive)
    }

    /// What the file is of.
    pub fn header(&self) -> &ArchiveHeader {
        &self.header
    }

    /// How many entries were read.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The next entries; `None` at the end of a whole file.
    ///
    /// # Errors
    /// When the file is cut or damaged here.
    pub fn next_entries(&mut self) -> Result<Option<Vec<ArchiveEntry>>, ArchiveError> {
        match self.frame()? {
            Frame::Header(_) => Err(self.damaged()),
            Frame::Entries(more) => {
                let count = u64::try_from(more.entries.len()).unwrap_or(u64::MAX);
                self.entries = self.entries.saturating_add(count);
                Ok(Some(more.entries))
            }
            Frame::End(end) => {
                let whole = end.entries == self.entries && self.from.read(&mut [0])? == 0;
                if whole { Ok(None) } else { Err(self.damaged()) }
            }
        }
    }

    /// Reads on to the end, so that everything was checked.
    ///
    /// # Errors
    /// When the file is cut or damaged.
    pub fn check(&mut self) -> Result<(), ArchiveError> {
        while self.next_entries()?.is_some() {}
        Ok(())
    }

    fn frame(&mut self) -> Result<Frame, ArchiveError> {
        let mut length = [0; 4];
        self.fill(&mut length)?;
        if u32::from_le_bytes(length) > MAX_FRAME {
            return Err(self.damaged());
        }
        let size = usize::try_from(u32::from_le_bytes(length)).map_err(|_| self.damaged())?;
        let mut message = vec![0; size];
        self.fill(&mut message)?;
        let mut hash = [0; HASH];
        self.fill(&mut hash)?;
        self.hasher.update(&length);
        self.hasher.update(&message);
        if self.hasher.finalize() != hash {
            return Err(self.damaged());
        }
        self.hasher.update(&hash);
        let frame = ArchiveFrame::decode(message.as_slice()).map_err(|_| self.damaged())?;
        let frame = frame.frame.ok_or_else(|| self.damaged())?;
        self.frames = self.frames.saturating_add(1);
        Ok(frame)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ArchiveError> {
        self.from
            .read_exact(bytes)
            .map_err(|error| ArchiveError::short(error, ArchiveError::Cut))
    }

    fn damaged(&self) -> ArchiveError {
        ArchiveError::Damaged {
            frame: self.frames.saturating_add(1),
        }
    }
}

/// Why a file does not read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Another kind of file.
    #[error("this is no file that `xai backup` or `xai store export` wrote")]
    Foreign,
    /// Of a newer program.
    #[error("a newer xai wrote this file; use that one")]
    Newer,
    /// Its end is missing.
    #[error("the file is cut: its end is missing; use another copy of it")]
    Cut,
    /// It is not as it was written.
    #[error("the file is damaged in its part {frame}; use another copy of it")]
    Damaged {
        /// Which frame, from 1.
        frame: u64,
    },
    /// It cannot be read.
    #[error("the file cannot be read: {0}")]
    Io(#[from] io::Error),
}

impl ArchiveError {
    /// What a read that came to the end too early means.
    fn short(error: io::Error, meaning: Self) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            meaning
        } else {
            Self::Io(error)
        }
    }
}
