//! Keys: encrypted keystore files, opened once, never printed.
//!
//! Two keys with different powers: the *attester* signs statements, the *sender* pays gas. The sender's key has no
//! authority over money.

use std::{
    fmt,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use alloy::{
    primitives::{Address, B256, Signature},
    signers::{SignerSync, local::PrivateKeySigner},
};
use k256::{
    ecdsa::SigningKey,
    elliptic_curve::rand_core::{OsRng, RngCore},
};
use ledger::manifest::Secret;

pub use self::remote::RemoteKey;
use crate::{
    Error, Result,
    config::Config,
    files::{Access, rename_whole, write_whole},
};

mod remote;

/// Environment variable that may hold the password instead of a file.
pub const PASSWORD_VARIABLE: &str = "QUITTANCE_PASSWORD";

/// The opened keys of an installation.
#[derive(Clone)]
pub struct Keys {
    /// Signs statements.
    pub attester: SigningKey,
    /// Signs transactions.
    pub sender: TxKey,
    /// Salts workload ids.
    pub secret: Secret,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("sender", &self.sender.address()).finish_non_exhaustive()
    }
}

/// The key of the sending account: opened here, or held by another process.
#[derive(Clone)]
pub enum TxKey {
    /// From a keystore file.
    Local(PrivateKeySigner),
    /// In a process on this machine that signs digests.
    Remote(RemoteKey),
}

impl fmt::Debug for TxKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TxKey({})", self.address())
    }
}

impl TxKey {
    /// The account's address.
    pub const fn address(&self) -> Address {
        match self {
            Self::Local(key) => key.address(),
            Self::Remote(key) => key.address(),
        }
    }

    /// Signs a digest. What comes back is the account's own signature with low s, or an error.
    pub async fn sign(&self, digest: B256) -> Result<Signature> {
        let signature = match self {
            Self::Local(key) => {
                key.sign_hash_sync(&digest).map_err(|error| Error::Signer(error.to_string()))?
            }
            Self::Remote(key) => key.sign(digest).await?,
        };
        check(&signature, digest, self.address())?;
        Ok(signature)
    }
}

/// Refuses a signature that is not the account's, or that nodes would refuse.
fn check(signature: &Signature, digest: B256, address: Address) -> Result<()> {
    if signature.normalize_s().is_some() {
        return Err(Error::Signer("its signature has a high s, which nodes refuse".into()));
    }
    match signature.recover_address_from_prehash(&digest) {
        Ok(signer) if signer == address => Ok(()),
        Ok(signer) => {
            Err(Error::Signer(format!("it signed with the key of {signer} instead of {address}")))
        }
        Err(_) => Err(Error::Signer("its signature is none".into())),
    }
}

/// A password for new keys.
pub enum Password {
    /// The operator keeps it and gives it each time; it is written nowhere.
    Given(String),
    /// It is written into the password file.
    Stored(String),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

impl Keys {
    /// Opens the key files that the configuration names.
    pub fn open(config: &Config) -> Result<Self> {
        let password = password(&config.path(&config.files.password))?;
        let open = |file: &Path| {
            let path = config.path(file);
            refuse_readable(&path)?;
            let failed = |error: &dyn fmt::Display| key_error(&path, error);
            PrivateKeySigner::decrypt_keystore(&path, &password).map_err(|error| failed(&error))
        };
        let attester = open(&config.files.attester)?;
        let sender = match &config.signer {
            Some(signer) => TxKey::Remote(RemoteKey::new(signer)?),
            None => TxKey::Local(open(&config.files.sender)?),
        };
        Ok(Self { attester: attester.credential().clone(), sender, secret: secret(config)? })
    }

    /// Writes key files into their places, encrypted, readable by their owner only. Existing files are never replaced.
    pub fn create(
        config: &Config,
        attester: &B256,
        sender: &B256,
        secret: &B256,
        password: &Password,
    ) -> Result<()> {
        let (Password::Given(text) | Password::Stored(text)) = password;
        for (file, key) in [(&config.files.attester, attester), (&config.files.sender, sender)] {
            encrypt(&config.path(file), key, text)?;
        }
        write_new(&config.path(&config.files.secret), &format!("{secret}\n"))?;
        match password {
            Password::Given(_) => Ok(()),
            Password::Stored(text) => {
                write_new(&config.path(&config.files.password), &format!("{text}\n"))
            }
        }
    }
}

/// 32 bytes from the system's random source.
pub fn random() -> B256 {
    let mut bytes = [0; 32];
    OsRng.fill_bytes(&mut bytes);
    B256::new(bytes)
}

/// The password in the environment variable, if that is set. An empty one encrypts nothing that others could not open.
pub(crate) fn given_password() -> Result<Option<String>> {
    let Some(password) = std::env::var_os(PASSWORD_VARIABLE) else { return Ok(None) };
    let refused = |problem: &str| {
        let reason = format!("{PASSWORD_VARIABLE} {problem}; set it to the password or unset it");
        Err(Error::Key { path: "password".into(), reason })
    };
    match password.into_string() {
        Ok(password) if password.is_empty() => refused("is empty"),
        Ok(password) => Ok(Some(password)),
        Err(_) => refused("is not UTF-8"),
    }
}

fn password(path: &Path) -> Result<String> {
    if let Some(password) = given_password()? {
        return Ok(password);
    }
    if path.exists() {
        refuse_readable(path)?;
    }
    let text = fs::read_to_string(path).map_err(|_| {
        key_error(path, &format!("set {PASSWORD_VARIABLE} or put the password into this file"))
    })?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(key_error(
            path,
            &format!("it is empty; put the password into it or set {PASSWORD_VARIABLE}"),
        )),
        password => Ok(password.to_owned()),
    }
}

fn encrypt(path: &Path, key: &B256, password: &str) -> Result<()> {
    let (Some(folder), Some(name)) =
        (path.parent(), path.file_name().and_then(|name| name.to_str()))
    else {
        return Err(key_error(path, &"it must name a file in a folder"));
    };
    refuse_existing(path)?;
    fs::create_dir_all(folder).map_err(Error::file(folder))?;
    // Under another name first: what a power cut leaves of a key is not taken for it, nor refused for being there already.
    let draft = format!("{name}.draft");
    PrivateKeySigner::encrypt_keystore(folder, &mut OsRng, key, password, Some(&draft))
        .map_err(|error| key_error(path, &error))?;
    let draft = folder.join(draft);
    fs::set_permissions(&draft, Permissions::from_mode(0o600)).map_err(Error::file(&draft))?;
    rename_whole(&draft, path)
}

/// The secret of an installation, which needs no password.
pub(crate) fn secret(config: &Config) -> Result<Secret> {
    let path = config.path(&config.files.secret);
    refuse_readable(&path)?;
    let text = fs::read_to_string(&path).map_err(Error::file(&path))?;
    let secret =
        text.trim().parse().map_err(|_| key_error(&path, &"it must be 32 bytes in hex"))?;
    Ok(Secret::new(secret))
}

/// Refuses a key file that others than its owner may read or write.
pub(crate) fn refuse_readable(path: &Path) -> Result<()> {
    let mode = fs::metadata(path).map_err(Error::file(path))?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let reason = format!("its mode is {mode:04o}; others may use it; run chmod 600 on it");
    Err(key_error(path, &reason))
}

fn refuse_existing(path: &Path) -> Result<()> {
    if path.exists() {
        Err(key_error(path, &"it exists already and is not replaced"))
    } else {
        Ok(())
    }
}

/// Writes a new file, readable by its owner only.
pub(crate) fn write_new(path: &Path, content: &str) -> Result<()> {
    refuse_existing(path)?;
    write_whole(path, content.as_bytes(), Access::Owner)
}

pub(crate) fn key_error(path: &Path, reason: &dyn fmt::Display) -> Error {
    Error::Key { path: path.display().to_string(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keystore_that_cannot_be_written_to_its_end_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys/sender.json");
        fs::create_dir(folder.path().join("keys")).unwrap();
        std::os::unix::fs::symlink("/dev/full", folder.path().join("keys/sender.json.draft"))
            .unwrap();
        encrypt(&path, &random(), "password").unwrap_err();
        assert!(!path.exists());
        fs::remove_file(folder.path().join("keys/sender.json.draft")).unwrap();
        encrypt(&path, &random(), "password").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path().join("keys")).unwrap().count(), 1);
        encrypt(&path, &random(), "password").unwrap_err();
    }
}
