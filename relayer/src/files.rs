//! Files that are there whole or not at all, whenever the process is killed or the power is cut.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Seek, SeekFrom, Write},
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
    let folder = folder_of(path);
    fs::create_dir_all(folder).map_err(Error::file(folder))?;
    let mut draft = path.as_os_str().to_owned();
    draft.push(".draft");
    let draft = Path::new(&draft);
    let mut open = OpenOptions::new();
    open.write(true).create(true).truncate(true).mode(access.mode());
    let mut file = open.open(draft).map_err(Error::file(draft))?;
    file.write_all(bytes).map_err(Error::file(draft))?;
    rename_whole(draft, path)
}

/// Syncs a file that was written under another name in the same folder, gives it its name, and syncs the folder.
pub(crate) fn rename_whole(draft: &Path, path: &Path) -> Result<()> {
    File::open(draft).and_then(|file| file.sync_all()).map_err(Error::file(draft))?;
    fs::rename(draft, path).map_err(Error::file(path))?;
    let folder = folder_of(path);
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::file(folder))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Appends lines to a file, on a line of their own whatever an earlier attempt left behind, and syncs it.
pub(crate) fn append_whole(path: &Path, lines: &[u8]) -> Result<()> {
    let mut file = match OpenOptions::new().read(true).append(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return write_whole(path, lines, Access::Usual);
        }
        Err(error) => return Err(Error::file(path)(error)),
    };
    let mut append = || {
        let mut last = [b'\n'];
        if file.seek(SeekFrom::End(-1)).is_ok() {
            file.read_exact(&mut last)?;
        }
        let begin: &[u8] = if last == [b'\n'] { b"" } else { b"\n" };
        file.write_all(&[begin, lines].concat())?;
        file.sync_all()
    };
    append().map_err(Error::file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_written_to_its_end_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::os::unix::fs::symlink("/dev/full", folder.path().join("token.draft")).unwrap();
        write_whole(&path, b"0x12", Access::Owner).unwrap_err();
        assert!(!path.exists());
        fs::write(&path, "old").unwrap();
        write_whole(&path, b"new", Access::Owner).unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    }

    #[test]
    fn lines_begin_on_a_line_of_their_own_behind_one_that_was_not_finished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/lines");
        append_whole(&path, b"one\n").unwrap();
        append_whole(&path, b"two\nthr").unwrap();
        append_whole(&path, b"three\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\nthr\nthree\n");
    }

    #[test]
    fn what_a_kill_left_behind_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys/token");
        fs::create_dir_all(folder.path().join("keys")).unwrap();
        fs::write(folder.path().join("keys/token.draft"), "longer than what follows").unwrap();
        write_whole(&path, b"whole", Access::Owner).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
        assert_eq!(fs::read_dir(folder.path().join("keys")).unwrap().count(), 1);
    }
}
