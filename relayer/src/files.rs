//! Files that are there whole or not at all, whenever the process is killed or the power is cut.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::{Error, Result};

/// Who may use a file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Access {
    /// Its owner only.
    Owner,
    /// Whoever the process lets use what it writes.
    Usual,
}

impl Access {
    const fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Usual => 0o666,
        }
    }
}

/// Writes a file, and the folder that it is in: under another name first, then synced, renamed, and its folder synced.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], access: Access) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(Error::file(folder))?;
    let mut draft = path.as_os_str().to_owned();
    draft.push(".draft");
    let draft = Path::new(&draft);
    let mut open = OpenOptions::new();
    open.write(true).create(true).truncate(true).mode(access.mode());
    let mut file = open.open(draft).map_err(Error::file(draft))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(Error::file(draft))?;
    fs::rename(draft, path).map_err(Error::file(path))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::file(folder))
}
