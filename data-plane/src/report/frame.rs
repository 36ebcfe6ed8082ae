//! How batches stand in a file: length (4 bytes), CRC-32C (4), sequence (8), all little-endian, then the encoded batch.
//!
//! The checksum covers the length, the sequence and the batch, so that a tail of zeros is no frame. Invariant: decoding a file that was cut
//! at any byte yields a prefix of the frames that were written, each unchanged (law 19).

/// Bytes before each batch.
const HEAD: usize = 16;
/// Largest batch that a file may hold; a longer one is taken for damage.
const PAYLOAD_MAX: usize = 4 * 1024 * 1024;

/// Adds a frame to `out`.
pub(super) fn encode(sequence: u64, payload: &[u8], out: &mut Vec<u8>) {
    let len = u32::try_from(payload.len())
        .unwrap_or(u32::MAX)
        .to_le_bytes();
    out.extend(len);
    out.extend(checksum(&len, &sequence.to_le_bytes(), payload).to_le_bytes());
    out.extend(sequence.to_le_bytes());
    out.extend(payload);
}

/// What stands at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded<'a> {
    /// A whole frame, and what follows it.
    Frame {
        /// Number of the batch.
        sequence: u64,
        /// The encoded batch.
        payload: &'a [u8],
        /// Bytes of the whole frame.
        len: usize,
    },
    /// The beginning of a frame; so many bytes are needed for all of it.
    Incomplete {
        /// Bytes of the whole frame, or of its head while that is incomplete.
        needed: usize,
    },
    /// No frame.
    Damaged,
}

/// Reads the first frame.
pub(super) fn decode(bytes: &[u8]) -> Decoded<'_> {
    let (Some(len), Some(sum), Some(sequence)) = (
        part::<4>(bytes, 0),
        part::<4>(bytes, 4),
        part::<8>(bytes, 8),
    ) else {
        return Decoded::Incomplete { needed: HEAD };
    };
    let payload_len = usize::try_from(u32::from_le_bytes(len)).unwrap_or(usize::MAX);
    if payload_len > PAYLOAD_MAX {
        return Decoded::Damaged;
    }
    let needed = HEAD.saturating_add(payload_len);
    let Some(payload) = bytes.get(HEAD..needed) else {
        return Decoded::Incomplete { needed };
    };
    if checksum(&len, &sequence, payload) != u32::from_le_bytes(sum) {
        return Decoded::Damaged;
    }
    Decoded::Frame {
        sequence: u64::from_le_bytes(sequence),
        payload,
        len: needed,
    }
}

fn checksum(len: &[u8], sequence: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(
        crc32c::crc32c_append(crc32c::crc32c(len), sequence),
        payload,
    )
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut out = Vec::new();
        while let Decoded::Frame {
            sequence,
            payload,
            len,
        } = decode(bytes)
        {
            out.push((sequence, payload.to_vec()));
            bytes = &bytes[len..];
        }
        out
    }

    #[test]
    fn law_19_a_cut_at_any_byte_leaves_a_prefix() {
        let payloads: Vec<Vec<u8>> = vec![vec![], vec![0; 20], b"batch".to_vec(), vec![255; 70]];
        let (mut bytes, mut ends) = (Vec::new(), vec![0]);
        for (sequence, payload) in (1..).zip(&payloads) {
            encode(sequence, payload, &mut bytes);
            ends.push(bytes.len());
        }
        for cut in 0..=bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            let expected: Vec<_> = (1..).zip(payloads.iter().take(whole).cloned()).collect();
            assert_eq!(frames(&bytes[..cut]), expected, "cut at {cut}");
            let zeros = [&bytes[..cut], &[0; 64]].concat();
            assert!(
                frames(&zeros).len() <= whole + 1,
                "a tail of zeros is no batch"
            );
        }
    }

    proptest! {
        #[test]
        fn law_19_damage_is_noticed(payload in prop::collection::vec(any::<u8>(), 0..50), at in 0_usize..66, bit in 0_u8..8) {
            let mut bytes = Vec::new();
            encode(7, &payload, &mut bytes);
            let at = at.checked_rem(bytes.len()).unwrap();
            bytes[at] ^= 1 << bit;
            prop_assert!(frames(&bytes).is_empty());
        }
    }
}
