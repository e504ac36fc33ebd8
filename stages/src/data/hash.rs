//! What is known of a file before it is there: its size, and a hash of its bytes.

use std::fmt;
use std::io::{BufReader, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use taper_cache::Digest;

/// A hash of a file's bytes, in lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hash {
    /// SHA-256.
    Sha256(String),
    /// The id that git gives a blob: SHA-1 of `blob SIZE`, a zero byte and the bytes.
    Git(String),
    /// BLAKE3-256.
    B3(String),
}

impl Hash {
    /// Its digits.
    pub fn digits(&self) -> &str {
        match self {
            Self::Sha256(digits) | Self::Git(digits) | Self::B3(digits) => digits,
        }
    }

    /// Whether its digits are as many as they should be.
    pub fn is_whole(&self) -> bool {
        let length = match self {
            Self::Git(_) => 40,
            Self::Sha256(_) | Self::B3(_) => 64,
        };
        let fine = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        self.digits().len() == length && self.digits().bytes().all(fine)
    }

    /// The hash of the same sort of a file.
    ///
    /// # Errors
    /// Those of reading.
    pub fn of_file(&self, path: &Path) -> std::io::Result<Self> {
        let file = fs_err::File::open(path)?;
        let size = file.metadata()?.len();
        let mut file = BufReader::with_capacity(1 << 18, file);
        Ok(match self {
            Self::Sha256(_) => Self::Sha256(digits_of(&mut file, Sha256::new())?),
            Self::Git(_) => {
                let head = format!("blob {size}\0");
                Self::Git(digits_of(&mut file, Sha1::new_with_prefix(head))?)
            }
            Self::B3(_) => Self::B3(Digest::of_reader(file)?.0.to_string()),
        })
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Sha256(_) => "sha256",
            Self::Git(_) => "git blob",
            Self::B3(_) => "b3",
        };
        write!(f, "{name} {}", self.digits())
    }
}

fn digits_of<H: sha2::Digest>(reader: &mut impl Read, mut hasher: H) -> std::io::Result<String> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        match reader.read(&mut buffer)? {
            0 => break,
            length => hasher.update(&buffer[..length]),
        }
    }
    let digits = hasher.finalize();
    Ok(digits.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What a file has to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Its size in bytes.
    pub size: Option<u64>,
    /// A hash of its bytes.
    pub hash: Option<Hash>,
}

impl Expected {
    /// What of the file at `path` is not as expected, in words; `None` where all is.
    ///
    /// # Errors
    /// Those of reading.
    pub fn fault(&self, path: &Path) -> std::io::Result<Option<String>> {
        let size = fs_err::metadata(path)?.len();
        if let Some(expected) = self.size.filter(|expected| *expected != size) {
            return Ok(Some(format!("it has {size} bytes, not {expected}")));
        }
        if let Some(expected) = &self.hash {
            let got = expected.of_file(path)?;
            if got != *expected {
                return Ok(Some(format!(
                    "its hash is {got}, not {}",
                    expected.digits()
                )));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_usual_tools() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("file");
        fs_err::write(&path, "hello\n").expect("written");
        let hash = |sort: Hash| sort.of_file(&path).expect("read").digits().to_owned();
        assert_eq!(
            hash(Hash::Git(String::new())),
            "ce013625030ba8dba906f756967f9e9ca394464a"
        );
        assert_eq!(
            hash(Hash::Sha256(String::new())),
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
        );
        let expected = Expected {
            size: Some(6),
            hash: Some(Hash::B3(Digest::of(b"hello\n").to_string())),
        };
        assert_eq!(expected.fault(&path).expect("read"), None);
        let expected = Expected {
            size: Some(7),
            hash: None,
        };
        assert_eq!(
            expected.fault(&path).expect("read").as_deref(),
            Some("it has 6 bytes, not 7")
        );
    }
}
