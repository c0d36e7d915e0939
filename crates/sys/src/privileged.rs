//! Opening files as root in directories that somebody else may control.
//!
//! The user that the workers run as often owns the directory of the log. Without care, a worker that replaces its log by a symbolic
//! link would have root write to, or give away, any file. So the kernel checks the rights of that user wherever it can
//! ([`Credentials::run_as`]). Where root has to open a file itself, it follows symbolic links only in directories that nobody else can
//! write to, and changes the owner only of what it has just created.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Component, Path},
};

use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fchown, fstat, fstatfs, open, openat,
        readlinkat,
    },
    io::Errno,
    process::geteuid,
};

use crate::credentials::Credentials;

/// As many symbolic links as the kernel follows in one path.
const MAX_LINKS: usize = 40;
/// How often a file may appear and disappear while it is opened.
const MAX_ATTEMPTS: usize = 8;
/// `PROC_SUPER_MAGIC` of statfs(2).
const PROC_FILE_SYSTEM: u64 = 0x9fa0;

/// Opens a file to append to it. A new file belongs to `owner`; an existing file keeps its owner.
pub fn open_to_append(
    path: &Path,
    flags: OFlags,
    mode: Mode,
    owner: Option<&Credentials>,
) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOCTTY;
    let open_by_path = || Ok(open(path, flags | OFlags::CREATE, mode)?);
    if !geteuid().is_root() {
        return open_by_path();
    }
    if let Some(owner) = owner.filter(|owner| owner.gives_up_root()) {
        match owner.run_as(open_by_path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            opened => return opened,
        }
    }
    open_as_root(&DirectoryEntry::find(path)?, flags, mode, owner)
}

/// Reads a file of settings. As root, only one that nobody else can change.
pub fn read_settings(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    let found = fstat(&file)?;
    if geteuid().is_root()
        && let Some(other) = who_can_change(&found)
    {
        return Err(io::Error::other(format!(
            "{other} can change this file, so root does not read it: 'chown root' and 'chmod go-w' make it root's alone"
        )));
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(text)
}

/// Who can change a file, besides root and the user who has become root by sudo.
fn who_can_change(file: &Stat) -> Option<String> {
    let caller = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok());
    if file.st_uid != 0 && Some(file.st_uid) != caller {
        return Some(format!("user {}", file.st_uid));
    }
    if file.st_mode & 0o002 != 0 {
        return Some("everybody".into());
    }
    (file.st_mode & 0o020 != 0 && file.st_gid != 0).then(|| format!("group {}", file.st_gid))
}

/// Gives a Unix socket that root has just bound to the workers. Nothing but a new socket of root's changes its owner.
pub fn give_socket(path: &Path, owner: &Credentials) -> io::Result<()> {
    let entry = DirectoryEntry::find(&std::path::absolute(path)?)?;
    let socket = openat(
        &entry.directory,
        &entry.name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let found = fstat(&socket)?;
    let is_new = FileType::from_raw_mode(found.st_mode) == FileType::Socket
        && found.st_nlink == 1
        && found.st_uid == geteuid().as_raw();
    if !is_new {
        return Err(io::Error::other("another file has taken its place"));
    }
    let (user, group) = ids(owner);
    Ok(chownat(&socket, "", Some(user), Some(group), AtFlags::EMPTY_PATH)?)
}

fn open_as_root(
    entry: &DirectoryEntry,
    flags: OFlags,
    mode: Mode,
    owner: Option<&Credentials>,
) -> io::Result<OwnedFd> {
    let (directory, name) = (&entry.directory, &entry.name);
    if entry.is_in_proc {
        return Ok(openat(directory, name, flags, Mode::empty())?);
    }
    for _ in 0..MAX_ATTEMPTS {
        match openat(directory, name, flags | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(file) => return entry.refuse_hard_link(&file).map(|()| file),
            Err(Errno::LOOP) => return Err(untrusted_link()),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        match openat(directory, name, flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW, mode) {
            Ok(file) => {
                if let Some(owner) = owner {
                    let (user, group) = ids(owner);
                    fchown(&file, Some(user), Some(group))?;
                }
                return Ok(file);
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::other("another program creates and removes it at the same time"))
}

fn ids(owner: &Credentials) -> (Uid, Gid) {
    let (user, group) = owner.ids();
    (Uid::from_raw(user), Gid::from_raw(group))
}

/// A name in a directory that is held open, so that it cannot be exchanged any more.
struct DirectoryEntry {
    directory: OwnedFd,
    name: OsString,
    /// Nobody but root can change the directory, nor any directory on the way to it.
    is_trusted: bool,
    /// What is a link there, such as `/dev/stdout`, is the kernel's.
    is_in_proc: bool,
}

impl DirectoryEntry {
    /// Walks to the directory of an absolute path. Invariant: a symbolic link is followed only where only root could have made it.
    fn find(path: &Path) -> io::Result<Self> {
        let mut directory = open_directory(None, OsStr::new("/"))?;
        let mut is_way_trusted = true;
        let mut left = Vec::new();
        push(&mut left, path);
        let mut links = 0;
        while let Some(name) = left.pop() {
            let found = fstat(&directory)?;
            is_way_trusted &= found.st_uid == 0 && (is_roots_alone(&found) || is_sticky(&found));
            let is_trusted = is_way_trusted && is_roots_alone(&found);
            let is_in_proc = fstatfs(&directory)?.f_type.cast_unsigned() == PROC_FILE_SYSTEM;
            let is_last = left.is_empty();
            let link = match readlinkat(&directory, &name, Vec::new()) {
                Ok(target) => Some(OsString::from_vec(target.into_bytes())),
                Err(Errno::INVAL) => None,
                Err(Errno::NOENT) if is_last => None,
                Err(error) => return Err(error.into()),
            };
            match link {
                Some(_) if !is_trusted => return Err(untrusted_link()),
                Some(target) if !is_in_proc => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    if Path::new(&target).is_absolute() {
                        directory = open_directory(None, OsStr::new("/"))?;
                    }
                    push(&mut left, Path::new(&target));
                }
                _ if is_last => return Ok(Self { directory, name, is_trusted, is_in_proc }),
                _ => directory = open_directory(Some((&directory, is_in_proc)), &name)?,
            }
        }
        Err(Errno::ISDIR.into())
    }

    /// A file with a second name may be one of root's that somebody has linked here.
    fn refuse_hard_link(&self, file: &OwnedFd) -> io::Result<()> {
        let found = fstat(file)?;
        let is_regular = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
        if is_regular && found.st_nlink > 1 && !self.is_trusted {
            return Err(io::Error::other(
                "it has hard links, in a directory that not only root can write to",
            ));
        }
        Ok(())
    }
}

fn push(left: &mut Vec<OsString>, path: &Path) {
    let names = path.components().rev().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    left.extend(names);
}

fn open_directory(parent: Option<(&OwnedFd, bool)>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(match parent {
        None => open(name, flags, Mode::empty())?,
        Some((parent, follows)) => {
            let flags = if follows { flags } else { flags | OFlags::NOFOLLOW };
            openat(parent.as_fd(), name, flags, Mode::empty())?
        }
    })
}

/// Whether only root can change what lies in this directory.
fn is_roots_alone(directory: &Stat) -> bool {
    let writable_by_group = directory.st_mode & 0o020 != 0 && directory.st_gid != 0;
    directory.st_uid == 0 && !writable_by_group && directory.st_mode & 0o002 == 0
}

/// Whether others cannot move away what root has made in this directory, such as `/tmp`, though they can write to it.
fn is_sticky(directory: &Stat) -> bool {
    directory.st_mode & 0o1000 != 0
}

fn untrusted_link() -> io::Error {
    io::Error::other(
        "root does not follow a symbolic link in a directory that not only root can write to; name the file itself",
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn only_a_new_socket_changes_its_owner() {
        if !geteuid().is_root() {
            return;
        }
        let owner = Credentials::new(4321.into(), 1234.into(), vec![1234.into()]);
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let path = |name| directory.path().join(name);
        let owner_of = |name| path(name).metadata().unwrap().uid();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        std::fs::write(path("file"), "").unwrap();
        symlink("socket", path("link")).unwrap();
        assert!(give_socket(&path("file"), &owner).is_err());
        assert!(give_socket(&path("link"), &owner).is_err());
        std::fs::hard_link(path("socket"), path("second")).unwrap();
        assert!(give_socket(&path("socket"), &owner).is_err());
        assert_eq!((owner_of("socket"), owner_of("file")), (0, 0));
        std::fs::remove_file(path("second")).unwrap();
        give_socket(&path("socket"), &owner).unwrap();
        assert_eq!(owner_of("socket"), 4321);
    }

    #[test]
    fn root_follows_only_links_that_no_other_user_could_have_created() {
        if !geteuid().is_root() {
            return; // such a directory cannot be made
        }
        let directory = tempfile::tempdir().unwrap();
        let [file, link] = ["file", "link"].map(|name| directory.path().join(name));
        std::fs::write(&file, "").unwrap();
        symlink("file", &link).unwrap();
        let append = |path: &Path| open_to_append(path, OFlags::WRONLY, Mode::RUSR, None).map(drop);
        let open_to_all = |mode| {
            std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        assert!(append(&link).is_ok());
        open_to_all(0o777);
        assert!(append(&link).unwrap_err().to_string().contains("symbolic link"));
        assert!(append(&file).is_ok());
        std::fs::hard_link(&file, directory.path().join("second")).unwrap();
        assert!(append(&file).unwrap_err().to_string().contains("hard links"));
        assert_eq!(append(directory.path()).unwrap_err().raw_os_error(), Some(Errno::ISDIR.raw_os_error()));
        let new = directory.path().join("new");
        append(&new).unwrap();
        assert_eq!(new.metadata().unwrap().mode() & 0o777, 0o400);
        append(Path::new("/dev/stdout")).unwrap();
    }
}
