//! Reads and writes many files. JS class `BatchFileProcessor`.
//!
//! A failure belongs to its file; the others are read or written all the same. Only regular files are opened: a FIFO or a
//! device could block for ever.

use std::fs::{self, File, Metadata, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a file was not read or written.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// The system refused.
    Io(io::Error),
    /// It lies outside the root, by its path or by a link on the way.
    Outside,
    /// It has more bytes than the limit.
    TooLarge {
        /// Bytes that it has, or more.
        bytes: u64,
    },
    /// It is a directory, a FIFO, a device or a socket.
    NotAFile,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A directory that everything has to lie in.
#[derive(Debug, Clone)]
pub struct Root {
    path: PathBuf,
    /// The same without links in it.
    real: PathBuf,
}

impl Root {
    /// The directory at `path`, whatever links lead there.
    pub fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_path_buf(), real: fs::canonicalize(path)? })
    }

    /// Whether `path` lies inside by its name, whether there is something or not.
    fn names(&self, path: &Path) -> Result<(), Failure> {
        if path.starts_with(&self.path) { Ok(()) } else { Err(Failure::Outside) }
    }

    /// The path that `path` stands for once its links are followed, if that lies inside.
    fn holds(&self, path: &Path) -> Result<PathBuf, Failure> {
        let real = fs::canonicalize(path)?;
        if real.starts_with(&self.real) { Ok(real) } else { Err(Failure::Outside) }
    }
}

/// The contents of files, one after the other: in `room` as long as there is enough of it, which spares the memory of
/// their own that all later ones go to.
#[derive(Debug)]
pub struct Contents<'a> {
    room: &'a mut [u8],
    filled: usize,
    /// Files that are in the room, or failed before one was not.
    pub in_room: usize,
    /// What is not in the room.
    pub beside: Vec<u8>,
    full: bool,
}

impl<'a> Contents<'a> {
    /// None yet.
    pub fn new(room: &'a mut [u8]) -> Self {
        Self { room, filled: 0, in_room: 0, beside: Vec::new(), full: false }
    }

    /// Adds the content of a file and gives its length in bytes. One that cannot be read adds nothing.
    pub fn read(&mut self, path: &Path, root: Option<&Root>, max_bytes: u64) -> Result<usize, Failure> {
        let read = self.add(path, root, max_bytes);
        self.in_room += usize::from(!self.full);
        read
    }

    fn add(&mut self, path: &Path, root: Option<&Root>, max_bytes: u64) -> Result<usize, Failure> {
        let (mut file, size) = open_within(path, root, max_bytes)?;
        let rest = &mut self.room[self.filled..];
        // Those that say 0 bytes, as in `/proc`, may have any number.
        self.full |= size == 0 || size > rest.len() as u64;
        if self.full {
            return read_beside(&mut file, size, max_bytes, &mut self.beside);
        }
        let length = fill(&mut file, &mut rest[..size as usize])?;
        self.filled += length;
        Ok(length)
    }
}

/// A regular file inside the root, and the bytes that it says to have: no more than `max_bytes`.
fn open_within(path: &Path, root: Option<&Root>, max_bytes: u64) -> Result<(File, u64), Failure> {
    root.map_or(Ok(()), |root| root.names(path))?;
    let file = open_to_read(path)?;
    let metadata = file.metadata()?;
    if let Some(root) = root {
        // What was opened is what the path says now, so that a link that changes in between gains nothing.
        let real = root.holds(path)?;
        if !same_file(&metadata, &fs::metadata(real)?) {
            return Err(Failure::Outside);
        }
    }
    match metadata.len() {
        _ if !metadata.is_file() => Err(Failure::NotAFile),
        bytes if bytes > max_bytes => Err(Failure::TooLarge { bytes }),
        bytes => Ok((file, bytes)),
    }
}

/// Appends what a file has and gives its length: as many bytes as it said, or all up to its end where it said 0.
fn read_beside(file: &mut File, size: u64, max_bytes: u64, into: &mut Vec<u8>) -> Result<usize, Failure> {
    let start = into.len();
    let no_memory = |_| io::Error::from(io::ErrorKind::OutOfMemory);
    let read = if size == 0 {
        file.take(max_bytes.saturating_add(1)).read_to_end(into)
    } else {
        usize::try_from(size).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory)).and_then(|size| {
            into.try_reserve(size).map_err(no_memory)?;
            into.resize(start + size, 0);
            fill(file, &mut into[start..])
        })
    };
    let read = read.map_err(Failure::Io).and_then(|length| match length as u64 {
        bytes if bytes > max_bytes => Err(Failure::TooLarge { bytes }),
        _ => Ok(length),
    });
    into.truncate(start + *read.as_ref().unwrap_or(&0));
    read
}

/// Reads until `into` is full, or the file ends before that; how many bytes there were.
fn fill(file: &mut File, into: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match file.read(&mut into[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// How files are written.
#[derive(Debug, Clone, Copy)]
pub struct WriteOptions {
    /// Under a temporary name in the same directory first, which then takes the place of the old file: nobody ever reads
    /// a part.
    pub atomic: bool,
    /// Whether the bytes are on the disk when the call returns, and so survive a loss of power.
    pub fsync: bool,
    /// Whether directories that are missing are made.
    pub create_directories: bool,
}

/// Writes a file. A link is followed, an old file's permissions stay.
pub fn write(path: &Path, root: Option<&Root>, bytes: &[u8], options: WriteOptions) -> Result<(), Failure> {
    root.map_or(Ok(()), |root| root.names(path))?;
    let parent = parent_of(path);
    if options.create_directories {
        create_directories(parent, root)?;
    }
    if let Some(root) = root {
        root.holds(parent)?;
    }
    let target = match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => root.map_or_else(|| Ok(fs::canonicalize(path)?), |root| root.holds(path))?,
        _ => path.to_path_buf(),
    };
    let old = match fs::metadata(&target) {
        Ok(old) if old.is_file() => Some(old),
        Ok(_) => return Err(Failure::NotAFile),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    if options.atomic {
        replace(&target, bytes, old.as_ref(), options.fsync)
    } else {
        overwrite(&target, bytes, options.fsync)
    }
    .map_err(Failure::Io)
}

fn overwrite(path: &Path, bytes: &[u8], fsync: bool) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    if fsync { file.sync_all() } else { Ok(()) }
}

fn replace(path: &Path, bytes: &[u8], old: Option<&Metadata>, fsync: bool) -> io::Result<()> {
    let parent = parent_of(path);
    let part = parent.join(temporary_name());
    let written = (|| {
        let mut file = new_file(&part, old)?;
        file.write_all(bytes)?;
        if let Some(old) = old {
            file.set_permissions(old.permissions())?;
        }
        if fsync {
            file.sync_all()?;
        }
        drop(file);
        fs::rename(&part, path)
    })();
    if written.is_err() {
        fs::remove_file(&part).ok();
        return written;
    }
    if fsync {
        // The name survives a loss of power once the directory is written, which some systems have no way to ask for.
        File::open(parent).and_then(|directory| directory.sync_all()).ok();
    }
    Ok(())
}

/// A file that nobody may read who may not read the old one, from its beginning on.
#[cfg(unix)]
fn new_file(path: &Path, old: Option<&Metadata>) -> io::Result<File> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let mode = old.map_or(0o666, |old| old.permissions().mode() & 0o777);
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

#[cfg(not(unix))]
fn new_file(path: &Path, _old: Option<&Metadata>) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// A name that no other writer has, in this process, in another one, or on another machine that shares the directory. It
/// does not hold the file's own, which may be as long as names can be.
fn temporary_name() -> String {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let random = PROCESS.get_or_init(|| RandomState::new().hash_one(process::id()));
    format!(".embedcore-{random:016x}-{}.part", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes directories, none of them outside the root.
fn create_directories(path: &Path, root: Option<&Root>) -> Result<(), Failure> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(root) = root
        && let Some(there) = path.ancestors().find(|ancestor| ancestor.exists())
    {
        root.holds(there)?;
    }
    fs::create_dir_all(path).map_err(Failure::Io)
}

#[cfg(unix)]
fn open_to_read(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    // A FIFO without a writer would block the call.
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

#[cfg(not(unix))]
fn open_to_read(path: &Path) -> io::Result<File> {
    File::open(path)
}

#[cfg(unix)]
fn same_file(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(not(unix))]
fn same_file(one: &Metadata, other: &Metadata) -> bool {
    one.len() == other.len() && one.modified().ok() == other.modified().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: WriteOptions = WriteOptions { atomic: true, fsync: false, create_directories: true };

    /// Read to wherever there is room.
    fn content(path: &Path, root: Option<&Root>, max: u64) -> Result<Vec<u8>, Failure> {
        let mut room = [1; 1 << 10];
        let mut contents = Contents::new(&mut room);
        let read = contents.read(path, root, max);
        let (in_room, beside) = (contents.in_room, contents.beside);
        assert!(read.is_ok() || beside.is_empty(), "a failed read leaves nothing behind");
        read.map(|length| if in_room == 1 { room[..length].to_vec() } else { beside })
    }

    #[test]
    fn what_does_not_fit_into_the_room_is_beside_it_and_all_that_follows() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, bytes) in [("a", &b"aaa"[..]), ("b", b"bb"), ("empty", b"")] {
            write(&path(name), None, bytes, OPTIONS).unwrap();
        }
        let mut room = [0; 6];
        let mut contents = Contents::new(&mut room);
        let lengths: Vec<_> =
            ["a", "none", "b", "b", "a", "empty", "b"].map(|name| contents.read(&path(name), None, 9).ok()).to_vec();
        assert_eq!(lengths, [Some(3), None, Some(2), Some(2), Some(3), Some(0), Some(2)]);
        assert_eq!((contents.in_room, &contents.beside[..]), (3, &b"bbaaabb"[..]));
        assert_eq!(&room[..5], b"aaabb");
    }

    #[test]
    fn what_was_written_is_read_and_no_temporary_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er").join("n".repeat(255));
        for atomic in [true, false] {
            for bytes in [vec![], b"text".to_vec(), vec![7; 1 << 20]] {
                write(&path, None, &bytes, WriteOptions { atomic, fsync: true, ..OPTIONS }).unwrap();
                assert_eq!(content(&path, None, 1 << 20).unwrap(), bytes);
            }
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn files_beyond_the_limit_are_refused_with_their_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write(&path, None, &[1; 100], OPTIONS).unwrap();
        assert!(matches!(content(&path, None, 99), Err(Failure::TooLarge { bytes: 100 })));
        assert_eq!(content(&path, None, 100).unwrap().len(), 100);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn files_that_do_not_know_their_size_are_read_to_the_end() {
        assert!(content(Path::new("/proc/self/status"), None, 1 << 20).unwrap().starts_with(b"Name:"));
        assert!(matches!(content(Path::new("/proc/self/status"), None, 10), Err(Failure::TooLarge { .. })));
        assert!(matches!(content(Path::new("/dev/zero"), None, 10), Err(Failure::NotAFile)));
    }

    #[cfg(unix)]
    #[test]
    fn links_that_lead_out_of_the_root_are_refused() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("inside");
        fs::create_dir(&inside).unwrap();
        fs::write(folder.path().join("secret"), "secret").unwrap();
        symlink(folder.path().join("secret"), inside.join("file")).unwrap();
        symlink(folder.path(), inside.join("folder")).unwrap();
        fs::write(inside.join("good"), "good").unwrap();
        symlink("good", inside.join("alias")).unwrap();
        let root = Root::new(&inside).unwrap();
        for path in ["file", "folder/secret", "../secret"] {
            assert!(matches!(content(&inside.join(path), Some(&root), 99), Err(Failure::Outside)), "{path}");
            assert!(matches!(write(&inside.join(path), Some(&root), b"x", OPTIONS), Err(Failure::Outside)), "{path}");
        }
        assert!(matches!(write(&inside.join("folder/new/file"), Some(&root), b"x", OPTIONS), Err(Failure::Outside)));
        assert!(!folder.path().join("new").exists());
        assert_eq!(fs::read_to_string(folder.path().join("secret")).unwrap(), "secret");
        write(&inside.join("alias"), Some(&root), b"better", OPTIONS).unwrap();
        assert_eq!(content(&inside.join("good"), Some(&root), 99).unwrap(), b"better");
    }

    #[cfg(unix)]
    #[test]
    fn permissions_of_an_old_file_stay() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        write(&path, None, b"new", OPTIONS).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o750);
    }

    #[test]
    fn directories_are_neither_read_nor_written() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(content(folder.path(), None, 99), Err(Failure::NotAFile)));
        assert!(matches!(write(folder.path(), None, b"", OPTIONS), Err(Failure::NotAFile)));
    }
}
