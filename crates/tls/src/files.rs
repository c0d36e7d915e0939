//! The contents of all configured files. The master reads them; workers, which may not be allowed to, get them from the master.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::{error::TlsError, options::TlsOptions};

/// The content of each file by its path. Erased when dropped, because it includes private keys.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TlsFiles(BTreeMap<PathBuf, Zeroizing<Vec<u8>>>);

impl TlsFiles {
    /// Reads every file that the options name.
    ///
    /// # Errors
    ///
    /// If one cannot be read.
    pub fn read(options: &TlsOptions) -> Result<Self, TlsError> {
        let mut files = BTreeMap::new();
        for (setting, path) in options.paths() {
            let content = fs::read(path)
                .map_err(|error| TlsError(format!("{setting} '{}': {error}", path.display())))?;
            files.insert(path.to_owned(), Zeroizing::new(content));
        }
        Ok(Self(files))
    }

    #[cfg(test)]
    pub(crate) fn of<const N: usize>(files: [(&str, Vec<u8>); N]) -> Self {
        Self(files.into_iter().map(|(path, content)| (path.into(), Zeroizing::new(content))).collect())
    }

    pub(crate) fn content(&self, path: &Path) -> &[u8] {
        self.0.get(path).map_or(&[], |content| content)
    }

    /// All files as one sequence of bytes, for another process.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::new());
        for (path, content) in &self.0 {
            for part in [path.as_os_str().as_bytes(), content] {
                bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
                bytes.extend_from_slice(part);
            }
        }
        bytes
    }

    /// The reverse of [`encode`](Self::encode). `None` if the bytes are incomplete.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (mut files, mut rest) = (BTreeMap::new(), bytes);
        while !rest.is_empty() {
            let path = OsString::from_vec(part(&mut rest)?.to_vec());
            files.insert(path.into(), Zeroizing::new(part(&mut rest)?.to_vec()));
        }
        Some(Self(files))
    }
}

/// Removes a length and as many bytes from the front.
fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk()?;
    let length = usize::try_from(u64::from_be_bytes(*length)).ok()?;
    let (part, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_gets_all_files() {
        let files = TlsFiles::of([("/a b", b"one".to_vec()), ("c", Vec::new())]);
        let bytes = files.encode();
        assert!(TlsFiles::decode(&bytes) == Some(files));
        for length in 1..bytes.len() {
            let cut = TlsFiles::decode(&bytes[..length]);
            assert!(cut.is_none_or(|cut| cut.0.len() == 1), "{length}");
        }
    }
}
