//! A file in pieces, each sealed by itself, so that writing and reading it takes the memory of one piece.
//!
//! Format: magic `PXCC`, format number, then for each piece its length and its sealed bytes (see `core::secret::seal`).
//!
//! Invariants: a piece is bound to the format, the name of the file, its number and the first piece, so that none is moved, left out
//! before another, or taken from another file. That none is missing at the end is for the reader to know. A file that is written takes
//! the place of the one before only when all of it is synced.

use std::io;

use proxyxai_core::secret::seal;

use super::{CopyFault, CopyPorts};

pub(super) const MAGIC: &[u8; 4] = b"PXCC";
/// Raised when a program could misread the files of an earlier one.
pub(super) const FORMAT: u32 = 2;
const PREFIX: usize = 8;
/// Bytes of a length.
const LEN: usize = 4;

/// Writes a file.
pub(super) struct PieceWriter<'a> {
    ports: &'a CopyPorts,
    name: &'a str,
    place: Place,
    info: [u8; 32],
    /// What is gathered for the next piece, with room for its length and the head of its seal.
    bytes: Vec<u8>,
    written: u64,
}

impl<'a> PieceWriter<'a> {
    /// Begins a file. `info` are 32 random bytes.
    pub(super) fn begin(
        ports: &'a CopyPorts,
        name: &'a str,
        info: [u8; 32],
    ) -> Result<Self, CopyFault> {
        let prefix = [MAGIC.as_slice(), &FORMAT.to_le_bytes()].concat();
        let mut writer = Self {
            ports,
            name,
            place: Place::first(&prefix, name),
            info,
            bytes: Vec::new(),
            written: 0,
        };
        ports.disk.remove(&writer.new_name())?;
        writer.append(&prefix)?;
        Ok(writer)
    }

    /// Where the plain bytes of the next piece are gathered.
    pub(super) fn plain(&mut self) -> &mut Vec<u8> {
        if self.bytes.is_empty() {
            self.bytes.resize(LEN + seal::HEAD_LEN, 0);
        }
        &mut self.bytes
    }

    /// Writes what was gathered as one piece.
    pub(super) fn end_piece(&mut self) -> Result<(), CopyFault> {
        self.plain();
        let mut bytes = std::mem::take(&mut self.bytes);
        let (key, info) = (&self.ports.key, self.place.info(self.info));
        seal::seal_in_place(key, info, &self.place.associated(), &mut bytes, LEN)?;
        let len = u32::try_from(bytes.len().saturating_sub(LEN));
        let len = len.map_err(|_| CopyFault::Content("a piece of it is too long"))?;
        if let Some(place) = bytes.first_chunk_mut::<LEN>() {
            *place = len.to_le_bytes();
        }
        self.append(&bytes)?;
        self.place.next(bytes.get(LEN..).unwrap_or_default());
        bytes.clear();
        self.bytes = bytes;
        Ok(())
    }

    /// Puts the file in its place; gives its length.
    pub(super) fn finish(self) -> Result<u64, CopyFault> {
        let (disk, new) = (&self.ports.disk, self.new_name());
        disk.sync(&new)?;
        disk.rename(&new, self.name)?;
        Ok(self.written)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), CopyFault> {
        self.ports.disk.append(&self.new_name(), bytes)?;
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.written = self.written.saturating_add(len);
        Ok(())
    }

    fn new_name(&self) -> String {
        format!("{}.new", self.name)
    }
}

/// Reads a file.
pub(super) struct PieceReader<'a> {
    ports: &'a CopyPorts,
    name: &'a str,
    place: Place,
    offset: u64,
    bytes: Vec<u8>,
}

impl<'a> PieceReader<'a> {
    /// Opens a file, if it is there.
    pub(super) fn open(ports: &'a CopyPorts, name: &'a str) -> Result<Option<Self>, CopyFault> {
        let prefix = match ports.disk.read(name, 0, PREFIX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let (magic, format) = prefix.split_first_chunk::<4>().ok_or(CopyFault::Cut)?;
        if magic != MAGIC {
            return Err(CopyFault::Cut);
        }
        let format = format.try_into().map_err(|_| CopyFault::Cut)?;
        match u32::from_le_bytes(format) {
            FORMAT => Ok(Some(Self {
                ports,
                name,
                place: Place::first(&prefix, name),
                offset: u64::try_from(PREFIX).unwrap_or(u64::MAX),
                bytes: Vec::new(),
            })),
            other => Err(CopyFault::Format(other)),
        }
    }

    /// The next piece in plain; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<&mut [u8]>, CopyFault> {
        let len = self.read(LEN)?;
        if len.is_empty() {
            return Ok(None);
        }
        let len = len.as_slice().try_into().map_err(|_| CopyFault::Cut)?;
        let len = usize::try_from(u32::from_le_bytes(len)).map_err(|_| CopyFault::Cut)?;
        self.bytes = self.read(len)?;
        if self.bytes.len() != len {
            return Err(CopyFault::Cut);
        }
        let associated = self.place.associated();
        self.place.next(&self.bytes);
        let plain = seal::open_in_place(&self.ports.key, &associated, &mut self.bytes)?;
        Ok(Some(plain))
    }

    fn read(&mut self, max: usize) -> Result<Vec<u8>, CopyFault> {
        let bytes = self.ports.disk.read(self.name, self.offset, max)?;
        let read = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.offset = self.offset.saturating_add(read);
        Ok(bytes)
    }
}

/// Where a piece stands.
struct Place {
    file: Vec<u8>,
    number: u32,
    /// The head of the first piece's seal, once there is one.
    first: Vec<u8>,
}

impl Place {
    fn first(prefix: &[u8], name: &str) -> Self {
        Self {
            file: [prefix, name.as_bytes()].concat(),
            number: 0,
            first: Vec::new(),
        }
    }

    fn associated(&self) -> Vec<u8> {
        let number = self.number.to_le_bytes();
        [self.file.as_slice(), &number, &self.first].concat()
    }

    /// The random bytes of a piece: those of the file, of which four are another number for each.
    fn info(&self, mut of_file: [u8; 32]) -> [u8; 32] {
        if let Some(last) = of_file.last_chunk_mut::<4>() {
            *last = (u32::from_le_bytes(*last) ^ self.number).to_le_bytes();
        }
        of_file
    }

    fn next(&mut self, sealed: &[u8]) {
        if self.number == 0 {
            self.first = sealed.get(..seal::HEAD_LEN).unwrap_or_default().to_vec();
        }
        self.number = self.number.saturating_add(1);
    }
}
