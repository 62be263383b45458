//! Backups as an encrypted stream of chunks.
//!
//! Header: suite `0x01` (1) | salt (32) | commitment (32). HKDF-SHA-256 over the backup key, the salt and
//! `"keymoat/v1/backup-stream" ‖ AAD` gives the AEAD key and the commitment, as in `envelope`. Chunks of 64
//! KiB follow, each AES-256-GCM with its counter (u64) and a byte that is 1 for the last one in nonce and
//! additional data: STREAM (Hoang, Reyhanitabar, Rogaway, Vizár, CRYPTO 2015). A stream that is cut,
//! continued or reordered does not open.
//!
//! What an opener has given out is authentic but may be incomplete until `finish` succeeds; whoever restores
//! commits nothing before that.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::argon::{Argon2Params, PassphraseError};
use crate::canonical::Canonical;
use crate::envelope::{SUITE_1, TAG_LEN};
use crate::kdf::hkdf_sha256;
use crate::keys::{InstanceKey, KEY_LEN};
use crate::locked::Locked;
use crate::random;
use crate::sensitive::SecretBytes;

/// The key of backups.
pub struct BackupKey(Locked);

/// Encrypts a backup piece by piece.
pub struct BackupSealer {
    stream: Stream,
    buffer: Zeroizing<Vec<u8>>,
}

/// Decrypts a backup piece by piece.
pub struct BackupOpener {
    stream: Stream,
    buffer: Vec<u8>,
    failed: bool,
}

/// The length of the header in front of the chunks, in bytes.
pub const BACKUP_HEADER_LEN: usize = 1 + 32 + 32;

/// Why a backup was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// The header is not all there.
    #[error("the backup is cut short in its header")]
    Truncated,
    /// The header names no suite that this version knows.
    #[error("the backup has suite {0}, which this version does not know; a newer version wrote it")]
    UnknownSuite(u8),
    /// The key or the description of the backup is not the right one.
    #[error("the backup does not belong to this key, or its header was altered")]
    WrongKey,
    /// A chunk does not belong where it stands.
    #[error("the backup was cut, extended, reordered or altered at or after byte {0} of its content")]
    Altered(u64),
}

impl BackupKey {
    /// Derives the key of backups that the same instance restores.
    pub fn from_instance(instance: &InstanceKey) -> Self {
        /// HKDF label.
        const LABEL: &str = "keymoat/v1/backup";
        Self(Locked::copy_of(&instance.derive(LABEL, &[])))
    }

    /// Derives the key of backups that anybody with the passphrase restores.
    ///
    /// # Errors
    /// [`PassphraseError`].
    pub fn from_passphrase(passphrase: &SecretBytes, params: &Argon2Params) -> Result<Self, PassphraseError> {
        /// HKDF label: a passphrase used for a master key too gives another key here.
        const LABEL: &str = "keymoat/v1/backup-passphrase";
        let stretched = params.derive(passphrase)?;
        Ok(Self(Locked::init(|slot| hkdf_sha256(stretched.as_slice(), &[], &[LABEL.as_bytes()], slot))))
    }
}

/// Encrypts a whole backup that is at hand.
pub fn seal_backup(key: &BackupKey, header_aad: &[u8], content: &[u8]) -> Vec<u8> {
    let (mut sealer, mut out) = BackupSealer::new(key, header_aad);
    out.extend(sealer.push(content));
    out.extend(sealer.finish());
    out
}

/// Decrypts a whole backup that is at hand.
///
/// # Errors
/// [`BackupError`].
pub fn open_backup(key: &BackupKey, header_aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, BackupError> {
    let (header, chunks) = sealed.split_at_checked(BACKUP_HEADER_LEN).ok_or(BackupError::Truncated)?;
    let mut opener = BackupOpener::new(key, header_aad, header)?;
    let mut content = opener.push(chunks)?;
    content.extend(opener.finish()?);
    Ok(content)
}

impl BackupSealer {
    /// Starts a backup; gives the header to write first. `header_aad` describes the backup (instance,
    /// schema, tree head, Argon2 parameters), is not part of the header and must be given again to open it.
    pub fn new(key: &BackupKey, header_aad: &[u8]) -> (Self, Vec<u8>) {
        Self::with_salt(key, header_aad, &random::bytes())
    }

    /// Takes the next piece of content; gives the bytes to write, which may be none.
    pub fn push(&mut self, mut content: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity((self.buffer.len() + content.len()) / CHUNK_LEN * SEALED_CHUNK_LEN);
        while !content.is_empty() {
            // A full chunk waits until it is known whether it is the last one.
            if self.buffer.len() == CHUNK_LEN {
                self.seal_chunk(false, &mut out);
            }
            let (now, later) = content.split_at(content.len().min(CHUNK_LEN - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            content = later;
        }
        out
    }

    /// Ends the backup; gives the last bytes to write.
    pub fn finish(mut self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.buffer.len() + TAG_LEN);
        self.seal_chunk(true, &mut out);
        out
    }

    pub(crate) fn with_salt(key: &BackupKey, header_aad: &[u8], salt: &[u8; 32]) -> (Self, Vec<u8>) {
        let (stream, commitment) = Stream::new(key, header_aad, salt);
        let mut header = Vec::with_capacity(BACKUP_HEADER_LEN);
        header.push(SUITE_1);
        header.extend_from_slice(salt);
        header.extend_from_slice(&commitment);
        (Self { stream, buffer: Zeroizing::new(Vec::with_capacity(CHUNK_LEN)) }, header)
    }

    fn seal_chunk(&mut self, last: bool, out: &mut Vec<u8>) {
        let (nonce, aad) = self.stream.next(last);
        let tag = self
            .stream
            .aead
            .seal_in_place_separate_tag(nonce, Aad::from(aad), &mut self.buffer)
            .expect("a chunk is far below the 64 GiB that AES-GCM takes");
        out.extend_from_slice(&self.buffer);
        out.extend_from_slice(tag.as_ref());
        self.buffer.clear();
    }
}

impl BackupOpener {
    /// Starts to open a backup by its header of [`BACKUP_HEADER_LEN`] bytes.
    ///
    /// # Errors
    /// [`BackupError`], [`BackupError::WrongKey`] before any content is looked at.
    pub fn new(key: &BackupKey, header_aad: &[u8], header: &[u8]) -> Result<Self, BackupError> {
        let (suite, rest) = header.split_first().ok_or(BackupError::Truncated)?;
        if *suite != SUITE_1 {
            return Err(BackupError::UnknownSuite(*suite));
        }
        let (salt, presented) = rest.split_first_chunk().ok_or(BackupError::Truncated)?;
        let presented: &[u8; 32] = presented.try_into().map_err(|_| BackupError::Truncated)?;
        let (stream, commitment) = Stream::new(key, header_aad, salt);
        if !bool::from(commitment.ct_eq(presented)) {
            return Err(BackupError::WrongKey);
        }
        Ok(Self { stream, buffer: Vec::with_capacity(SEALED_CHUNK_LEN), failed: false })
    }

    /// Takes the next bytes; gives the content that they complete, which may be none.
    ///
    /// # Errors
    /// [`BackupError::Altered`], now and for every later call.
    pub fn push(&mut self, mut sealed: &[u8]) -> Result<Vec<u8>, BackupError> {
        let mut content = Vec::with_capacity(self.buffer.len() + sealed.len());
        while !sealed.is_empty() {
            if self.buffer.len() == SEALED_CHUNK_LEN {
                self.open_chunk(false, &mut content)?;
            }
            let (now, later) = sealed.split_at(sealed.len().min(SEALED_CHUNK_LEN - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            sealed = later;
        }
        Ok(content)
    }

    /// Ends the backup; only now is it known to be whole.
    ///
    /// # Errors
    /// [`BackupError::Altered`].
    pub fn finish(mut self) -> Result<Vec<u8>, BackupError> {
        let mut content = Vec::new();
        self.open_chunk(true, &mut content)?;
        Ok(content)
    }

    fn open_chunk(&mut self, last: bool, content: &mut Vec<u8>) -> Result<(), BackupError> {
        let chunk = self.stream.counter;
        let altered = BackupError::Altered(chunk.saturating_mul(CHUNK_LEN as u64));
        if self.failed {
            return Err(altered);
        }
        let (nonce, aad) = self.stream.next(last);
        let opened = self.stream.aead.open_in_place(nonce, Aad::from(aad), &mut self.buffer);
        match opened {
            // An empty last chunk stands only for an empty backup, so that each content has one form.
            Ok(opened) if !opened.is_empty() || chunk == 0 => content.extend_from_slice(opened),
            _ => {
                self.failed = true;
                return Err(altered);
            }
        }
        self.buffer.clear();
        Ok(())
    }
}

/// The AEAD key of one backup and the position in it.
struct Stream {
    aead: LessSafeKey,
    counter: u64,
}

impl Stream {
    fn new(key: &BackupKey, header_aad: &[u8], salt: &[u8; 32]) -> (Self, [u8; 32]) {
        let aad = Canonical::new("keymoat/backup/1").field(header_aad).finish();
        let mut okm = Zeroizing::new([0u8; 64]);
        // EXPOSE: only the key of this one stream, derived from it, leaves.
        key.0.expose(|key| hkdf_sha256(key, salt, &[STREAM_LABEL.as_bytes(), &aad], okm.as_mut_slice()));
        let aead =
            LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &okm[..KEY_LEN]).expect("AES-256 takes 32 bytes"));
        let mut commitment = [0; 32];
        commitment.copy_from_slice(&okm[KEY_LEN..]);
        (Self { aead, counter: 0 }, commitment)
    }

    /// Nonce and additional data of the next chunk: its counter and whether it is the last.
    fn next(&mut self, last: bool) -> (Nonce, [u8; 9]) {
        let mut aad = [0; 9];
        aad[..8].copy_from_slice(&self.counter.to_be_bytes());
        aad[8] = u8::from(last);
        let mut nonce = [0; NONCE_LEN];
        nonce[NONCE_LEN - 9..].copy_from_slice(&aad);
        self.counter = self.counter.checked_add(1).expect("2^64 chunks are more than any disk holds");
        (Nonce::assume_unique_for_key(nonce), aad)
    }
}

impl fmt::Debug for BackupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BackupKey([redacted])")
    }
}

impl fmt::Debug for BackupSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackupSealer(chunk {}, [redacted])", self.stream.counter)
    }
}

impl fmt::Debug for BackupOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackupOpener(chunk {}, [redacted])", self.stream.counter)
    }
}

const STREAM_LABEL: &str = "keymoat/v1/backup-stream";
/// Large enough that the tags cost nothing, small enough that memory does not matter.
const CHUNK_LEN: usize = 64 * 1024;
const SEALED_CHUNK_LEN: usize = CHUNK_LEN + TAG_LEN;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> BackupKey {
        BackupKey(Locked::copy_of(&[3; KEY_LEN]))
    }

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
    }

    #[test]
    fn round_trips_at_every_border() {
        for len in [0, 1, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, 2 * CHUNK_LEN, 3 * CHUNK_LEN + 7] {
            let sealed = seal_backup(&key(), b"about", &content(len));
            let chunks = len.div_ceil(CHUNK_LEN).max(1);
            assert_eq!(sealed.len(), BACKUP_HEADER_LEN + len + chunks * TAG_LEN, "{len}");
            assert_eq!(open_backup(&key(), b"about", &sealed).unwrap(), content(len), "{len}");
        }
    }

    #[test]
    fn every_cut_and_extension_refuses() {
        let sealed = seal_backup(&key(), b"", &content(2 * CHUNK_LEN + 100));
        let borders = (0..3).map(|i| BACKUP_HEADER_LEN + i * SEALED_CHUNK_LEN);
        let cuts = borders.flat_map(|b| [b.saturating_sub(1), b, b + 1]).chain([0, 1, 64, sealed.len() - 1]);
        for cut in cuts {
            assert!(open_backup(&key(), b"", &sealed[..cut]).is_err(), "{cut}");
        }
        for extension in [&[0u8][..], &sealed[BACKUP_HEADER_LEN..]] {
            assert!(open_backup(&key(), b"", &[&sealed, extension].concat()).is_err());
        }
        // A whole chunk that ends on a border, cut there: the rest says that it is not the last.
        let whole = seal_backup(&key(), b"", &content(2 * CHUNK_LEN));
        let cut = &whole[..BACKUP_HEADER_LEN + SEALED_CHUNK_LEN];
        assert_eq!(open_backup(&key(), b"", cut).unwrap_err(), BackupError::Altered(0));
    }

    #[test]
    fn chunks_cannot_change_places_or_streams() {
        let sealed = seal_backup(&key(), b"", &content(3 * CHUNK_LEN));
        let (header, chunks) = sealed.split_at(BACKUP_HEADER_LEN);
        let chunk = |i: usize| &chunks[i * SEALED_CHUNK_LEN..(i + 1) * SEALED_CHUNK_LEN];
        for order in [&[1, 0, 2][..], &[0, 2], &[0, 0, 2], &[2], &[0, 1], &[0, 1, 2, 2], &[0, 1, 1, 2]] {
            let parts: Vec<&[u8]> = std::iter::once(header).chain(order.iter().map(|i| chunk(*i))).collect();
            assert!(open_backup(&key(), b"", &parts.concat()).is_err(), "{order:?}");
        }
        let other = seal_backup(&key(), b"", &content(3 * CHUNK_LEN));
        let foreign = [header, chunk(0), &other[BACKUP_HEADER_LEN + SEALED_CHUNK_LEN..]].concat();
        assert_eq!(open_backup(&key(), b"", &foreign).unwrap_err(), BackupError::Altered(CHUNK_LEN as u64));
    }

    #[test]
    fn the_header_is_checked_before_the_content() {
        let sealed = seal_backup(&key(), b"about", b"content");
        let other = BackupKey(Locked::copy_of(&[4; KEY_LEN]));
        assert_eq!(open_backup(&other, b"about", &sealed).unwrap_err(), BackupError::WrongKey);
        assert_eq!(open_backup(&key(), b"abou", &sealed).unwrap_err(), BackupError::WrongKey);
        assert_eq!(open_backup(&key(), b"about", &sealed[..20]).unwrap_err(), BackupError::Truncated);
        for bit in 0..sealed.len() * 8 {
            let mut altered = sealed.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let error = open_backup(&key(), b"about", &altered).unwrap_err();
            match bit / 8 {
                0 => assert_eq!(error, BackupError::UnknownSuite(altered[0])),
                1..BACKUP_HEADER_LEN => assert_eq!(error, BackupError::WrongKey),
                _ => assert_eq!(error, BackupError::Altered(0)),
            }
        }
        assert!(BackupOpener::new(&key(), b"about", &sealed[..BACKUP_HEADER_LEN + 1]).is_err());
    }

    #[test]
    fn a_content_has_one_number_of_chunks() {
        let (mut sealer, mut sealed) = BackupSealer::new(&key(), b"");
        sealed.extend(sealer.push(&content(CHUNK_LEN)));
        sealer.seal_chunk(false, &mut sealed);
        sealed.extend(sealer.finish());
        let error = BackupError::Altered(CHUNK_LEN as u64);
        assert_eq!(open_backup(&key(), b"", &sealed).unwrap_err(), error);
    }

    #[test]
    fn an_opener_that_failed_stays_failed() {
        let mut sealed = seal_backup(&key(), b"", &content(3 * CHUNK_LEN));
        sealed[BACKUP_HEADER_LEN] ^= 1;
        let (header, chunks) = sealed.split_at(BACKUP_HEADER_LEN);
        let mut opener = BackupOpener::new(&key(), b"", header).unwrap();
        assert!(opener.push(chunks).is_err());
        assert!(opener.push(chunks).is_err());
        assert!(opener.finish().is_err());
    }

    #[test]
    fn keys_by_origin_differ() {
        let params = Argon2Params { memory_kib: 8192, iterations: 1, ..Argon2Params::generate() };
        let phrase = SecretBytes::from_slice(b"made up");
        let instance = InstanceKey::generate();
        let keys = [
            BackupKey::from_instance(&instance),
            BackupKey::from_instance(&InstanceKey::generate()),
            BackupKey::from_passphrase(&phrase, &params).unwrap(),
        ];
        for (i, a) in keys.iter().enumerate() {
            let sealed = seal_backup(a, b"", b"x");
            for (j, b) in keys.iter().enumerate() {
                assert_eq!(open_backup(b, b"", &sealed).is_ok(), i == j);
            }
        }
        let again = BackupKey::from_passphrase(&phrase, &params).unwrap();
        assert!(open_backup(&again, b"", &seal_backup(&keys[2], b"", b"x")).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_size_of_the_pieces_does_not_matter(len in 0..150_000usize, pieces in 1..200_000usize) {
            let (mut sealer, mut sealed) = BackupSealer::with_salt(&key(), b"a", &[9; 32]);
            content(len).chunks(pieces).for_each(|piece| sealed.extend(sealer.push(piece)));
            sealed.extend(sealer.finish());
            let (mut whole_sealer, mut whole) = BackupSealer::with_salt(&key(), b"a", &[9; 32]);
            whole.extend(whole_sealer.push(&content(len)));
            whole.extend(whole_sealer.finish());
            prop_assert!(sealed == whole);
            let mut opener = BackupOpener::new(&key(), b"a", &sealed[..BACKUP_HEADER_LEN]).unwrap();
            let mut opened = Vec::new();
            for piece in sealed[BACKUP_HEADER_LEN..].chunks(pieces) {
                opened.extend(opener.push(piece).unwrap());
            }
            opened.extend(opener.finish().unwrap());
            prop_assert!(opened == content(len));
        }

        #[test]
        fn noise_never_opens_or_panics(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(open_backup(&key(), b"", &noise).is_err());
        }
    }
}
