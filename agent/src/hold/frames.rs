//! Where one WebSocket frame ends and the next begins (RFC 6455, 5.2), so that
//! a connection can be closed between two.

/// Follows the bytes of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Frames {
    /// What has been seen of the current frame's header.
    header: Vec<u8>,
    /// Bytes of the payload that are still to come.
    payload: u64,
}

/// "Service restart": come again. An unmasked close frame, as servers send.
pub(super) const COME_AGAIN: [u8; 4] = [0x88, 0x02, 0x03, 0xF4];

impl Frames {
    /// The next bytes went by.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.payload > 0 {
                let taken = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
                self.payload -= taken as u64;
                bytes = bytes.get(taken..).unwrap_or_default();
                continue;
            }
            self.header.push(*first);
            bytes = rest;
            if let Some(payload) = complete(&self.header) {
                self.payload = payload;
                self.header.clear();
            }
        }
    }

    /// Between two frames.
    pub(super) fn at_boundary(&self) -> bool {
        self.payload == 0 && self.header.is_empty()
    }
}

/// The payload's length, once the header is whole.
fn complete(header: &[u8]) -> Option<u64> {
    let second = *header.get(1)?;
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let (more, length) = match second & 0x7f {
        126 => (2, None),
        127 => (8, None),
        short => (0, Some(u64::from(short))),
    };
    if header.len() < 2 + more + mask {
        return None;
    }
    let long = header.get(2..2 + more)?.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
    Some(length.unwrap_or(long))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80_u8 } else { 0 };
        let mut bytes = vec![0x82];
        match length {
            0..=125 => bytes.push(mask | length as u8),
            126..=65_535 => {
                bytes.push(mask | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        if masked {
            bytes.extend([1, 2, 3, 4]);
        }
        // Bytes that look like headers.
        bytes.extend(std::iter::repeat_n(0x81, length));
        bytes
    }

    #[test]
    fn boundaries_are_where_frames_end_however_the_bytes_come() {
        let lengths = [0, 1, 125, 126, 127, 65_535, 65_536, 70_000];
        for masked in [false, true] {
            for chunk in [1, 2, 3, 7, 4_096, 1 << 20] {
                let mut frames = Frames::default();
                let (mut sent, mut ends) = (0, Vec::new());
                let mut all = Vec::new();
                for length in lengths {
                    all.extend(frame(length, masked));
                    ends.push(all.len());
                }
                for part in all.chunks(chunk) {
                    assert_eq!(frames.at_boundary(), sent == 0 || ends.contains(&sent), "{sent}");
                    frames.feed(part);
                    sent += part.len();
                }
                assert!(frames.at_boundary());
                frames.feed(&COME_AGAIN);
                assert!(frames.at_boundary());
            }
        }
    }
}
