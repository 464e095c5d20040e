//! Blobs, good and bad.

use super::*;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use std::io::Write;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn read(blob: &[u8]) -> Result<(Vec<u8>, LayerSummary), Error> {
    let mut reader = LayerReader::new(blob)?;
    let mut archive = Vec::new();
    reader.read_to_end(&mut archive).map_err(|e| Error::from_io(Operation::Unpack, e))?;
    Ok((archive, reader.finish()?))
}

#[test]
fn several_members_are_one_stream() {
    let blob = [gzip(b"one "), gzip(b""), gzip(b"two")].concat();
    let (archive, summary) = read(&blob).unwrap();
    assert_eq!(archive, b"one two");
    let expected = LayerSummary {
        compression: Compression::Gzip,
        blob_digest: Digest::of(&blob),
        blob_size: blob.len() as u64,
        diff_id: Digest::of(b"one two"),
        size: 7,
    };
    assert_eq!(summary, expected);
    assert_eq!(LayerReader::new(&blob[..]).unwrap().finish().unwrap(), expected, "without reading");
}

/// A frame of zstd with three bytes, as they are, and a window whose size is told by one byte: three bits of mantissa below the exponent, from 10.
#[cfg(feature = "zstd")]
fn frame(window: u8) -> Vec<u8> {
    [&[0x28, 0xb5, 0x2f, 0xfd, 0, window, 3 << 3 | 1, 0, 0][..], b"abc"].concat()
}

#[test]
#[cfg(feature = "zstd")]
fn frames_and_what_is_skipped_are_one_stream() {
    let skippable = |number: u8, data: &[u8]| {
        let length = u32::try_from(data.len()).unwrap().to_le_bytes();
        [&[0x50 | number, 0x2a, 0x4d, 0x18][..], &length, data].concat()
    };
    let (small, largest) = (frame(0), frame((27 - 10) << 3));
    for blob in [
        small.clone(),
        largest.clone(),
        [skippable(0, b"a note"), small.clone()].concat(),
        [skippable(15, b""), skippable(3, &[0; 5000]), small.clone()].concat(),
        [small.clone(), skippable(7, b"at the end")].concat(),
    ] {
        let (archive, summary) = read(&blob).unwrap();
        assert_eq!((&archive[..], summary.compression), (&b"abc"[..], Compression::Zstd));
        assert_eq!((summary.blob_digest, summary.blob_size), (Digest::of(&blob), blob.len() as u64));
    }
    let (archive, _) = read(&[small.clone(), skippable(1, b"x"), largest].concat()).unwrap();
    assert_eq!(archive, b"abcabc");
    // Cut off, or followed by something else.
    for blob in [&small[..8], &[&small[..], b"garbage"].concat(), &skippable(0, b"x")[..6]] {
        assert_eq!(read(blob).unwrap_err().kind(), ErrorKind::Corrupt, "{blob:?}");
    }
}

/// One that wants more memory than we have said, by an eighth and by far.
#[test]
#[cfg(feature = "zstd")]
fn windows_have_a_bound() {
    for window in [(27 - 10) << 3 | 1, (28 - 10) << 3, 0xff] {
        let error = read(&frame(window)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{window:x}: {error}");
        let decoder = zstd::stream::read::Decoder::with_buffer(&frame(window)[..]).and_then(|mut decoder| {
            // The defence.
            decoder.window_log_max(28)?;
            decoder.read_to_end(&mut Vec::new())
        });
        assert_eq!(decoder.ok(), (window != 0xff).then_some(3), "{window:x}");
    }
}

#[test]
fn nothing_is_a_layer_too() {
    let (archive, summary) = read(b"").unwrap();
    assert_eq!((archive, summary.diff_id), (Vec::new(), Digest::of(b"")));
}

#[test]
fn damage_is_found() {
    let good = gzip(&[7; 5000]);
    let says = |blob: &[u8]| read(blob).map(drop).unwrap_err();
    for length in [2, 4, 9, good.len() / 2, good.len() - 8, good.len() - 1] {
        let error = says(&good[..length]);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "cut at {length}: {error}");
    }
    for garbage in [&b"\0"[..], b"garbage", &[0x1f, 0x8b], &[0; 512]] {
        let error = says(&[&good, garbage].concat());
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{garbage:?}: {error}");
    }
    let mut flipped = good.clone();
    let checksum = flipped.len() - 6;
    flipped[checksum] ^= 1;
    assert_eq!(says(&flipped).kind(), ErrorKind::Corrupt);
    for zstd in [&[0x28, 0xb5, 0x2f, 0xfd, 0, 0][..], &[0x5a, 0x2a, 0x4d, 0x18, 0]] {
        let expected = if cfg!(feature = "zstd") { ErrorKind::Corrupt } else { ErrorKind::Unsupported };
        assert_eq!(says(zstd).kind(), expected);
    }
}

#[test]
fn a_bomb_is_stopped() {
    let bomb = gzip(&vec![0; 4 << 20]);
    let error = LayerReader::new(&bomb[..]).unwrap().limit(1 << 20).finish().unwrap_err();
    assert_eq!(error.to_string(), "read the layer: more than 1048576 bytes in the archive");
}

#[test]
fn an_error_of_the_blob_comes_through() {
    struct Broken(Vec<u8>);
    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()));
            }
            let count = self.0.len().min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0.drain(..count);
            Ok(count)
        }
    }
    for blob in [gzip(&[7; 5000])[..20].to_vec(), vec![7; 20], Vec::new()] {
        let error = LayerReader::new(Broken(blob)).and_then(LayerReader::finish).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "{error}");
    }
}

proptest! {
    #[test]
    fn any_bytes_and_any_piece_size(bytes in proptest::collection::vec(any::<u8>(), 0..300), piece in 1_usize..50, zip: bool) {
        let blob = if zip { gzip(&bytes) } else { bytes.clone() };
        let Ok(mut reader) = LayerReader::new(&blob[..]) else { return Ok(()) };
        let (mut archive, mut buffer) = (Vec::new(), vec![0; piece]);
        while let Ok(count @ 1..) = reader.read(&mut buffer) {
            archive.extend_from_slice(&buffer[..count]);
        }
        if let Ok(summary) = reader.finish() {
            prop_assert_eq!(summary.blob_digest, Digest::of(&blob));
            prop_assert_eq!(summary.blob_size, blob.len() as u64);
            prop_assert_eq!(summary.size, archive.len() as u64);
            prop_assert_eq!(summary.diff_id, Digest::of(&archive));
            if zip {
                prop_assert_eq!(archive, bytes);
            }
        } else {
            prop_assert!(!zip);
        }
    }
}
