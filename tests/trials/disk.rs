//! A disk that can lose its power: what the program wrote, named and synced, and what of it may be left.
//!
//! Nothing is taken for granted that a sync has not promised. What was written to a file and not synced is lost,
//! whole or in part, or stays as blocks of zeros; a name that was made, moved or removed in a folder that was not
//! synced since may be as before or as after, each name for itself, but the changes of one name in their
//! order. Syncing a file says nothing of its name, and syncing a folder nothing of what its files hold; syncing the
//! whole file system (`syncfs`) says all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::pool::Random;
use crate::tracer::{Call, Verdict, Watcher};

use nix::libc;
use nix::unistd::Pid;

type Id = usize;

/// The folder that is looked at.
pub const ROOT: Id = 0;

/// A change, or a promise.
#[derive(Clone, Debug)]
pub enum Event {
    /// A file or a folder that had not been there.
    Make(Id, Kind),
    /// What a file holds now.
    Fill(Id, Arc<Vec<u8>>),
    /// Names that change in one step in one folder: what each means now.
    Name(Id, Vec<(String, Option<Id>)>),
    /// A file is synced.
    SyncFile(Id),
    /// The names in a folder are.
    SyncFolder(Id),
    /// All that was written and named so far is.
    SyncAll,
}

/// What a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A folder.
    Folder,
}

#[derive(Clone, Debug)]
enum Thing {
    File {
        now: Arc<Vec<u8>>,
        synced: Arc<Vec<u8>>,
    },
    Folder {
        now: BTreeMap<String, Id>,
        synced: BTreeMap<String, Id>,
        /// What changed since, in order.
        since: Vec<Vec<(String, Option<Id>)>>,
    },
}

/// The disk at some point.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    things: Vec<Option<Thing>>,
}

/// What survives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing that was not synced.
    All,
    /// Everything.
    None,
    /// Contents, but no name that was not synced.
    Names,
    /// Names, but no content that was not synced.
    Contents,
    /// By chance.
    Chance,
}

/// What is left after a loss.
#[derive(Debug, Default)]
pub struct Left {
    /// Files with what is in them, and folders.
    pub files: BTreeMap<PathBuf, Option<Vec<u8>>>,
    /// The files that hold something else than was written to them.
    pub torn: BTreeSet<PathBuf>,
}

impl Disk {
    /// Does what an event says.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Make(id, kind) => {
                let thing = match kind {
                    Kind::File => Thing::File {
                        now: Arc::default(),
                        synced: Arc::default(),
                    },
                    Kind::Folder => Thing::Folder {
                        now: BTreeMap::new(),
                        synced: BTreeMap::new(),
                        since: Vec::new(),
                    },
                };
                if self.things.len() <= *id {
                    self.things.resize(id + 1, None);
                }
                self.things[*id] = Some(thing);
            }
            Event::Fill(id, bytes) => {
                if let Some(Thing::File { now, .. }) = self.thing(*id) {
                    *now = bytes.clone();
                }
            }
            Event::Name(id, changes) => {
                if let Some(Thing::Folder { now, since, .. }) = self.thing(*id) {
                    rename(now, changes);
                    since.push(changes.clone());
                }
            }
            Event::SyncFile(id) => {
                if let Some(Thing::File { now, synced }) = self.thing(*id) {
                    *synced = now.clone();
                }
            }
            Event::SyncFolder(id) => {
                if let Some(Thing::Folder { now, synced, since }) = self.thing(*id) {
                    *synced = now.clone();
                    since.clear();
                }
            }
            Event::SyncAll => self.settle(),
        }
    }

    /// Where a folder is.
    pub fn path_of(&self, folder: Id) -> Option<PathBuf> {
        let mut known = vec![(ROOT, PathBuf::new())];
        while let Some((id, path)) = known.pop() {
            if id == folder {
                return Some(path);
            }
            if let Some(Thing::Folder { now, .. }) = self.things.get(id).and_then(Option::as_ref) {
                known.extend(now.iter().map(|(name, id)| (*id, path.join(name))));
            }
        }
        None
    }

    /// Whether it is a file.
    pub fn is_file(&self, id: Id) -> bool {
        matches!(self.things.get(id), Some(Some(Thing::File { .. })))
    }

    fn thing(&mut self, id: Id) -> Option<&mut Thing> {
        self.things.get_mut(id)?.as_mut()
    }

    /// Everything is on the disk.
    pub fn settle(&mut self) {
        for thing in self.things.iter_mut().flatten() {
            match thing {
                Thing::File { now, synced } => *synced = now.clone(),
                Thing::Folder { now, synced, since } => {
                    *synced = now.clone();
                    since.clear();
                }
            }
        }
    }

    /// The files that are left after a loss, and the folders (which hold nothing here).
    pub fn survivors(&self, loss: Loss, random: &mut Random) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        self.left_after(loss, random).files
    }

    /// What is left after a loss, and which files of it are not what was written.
    pub fn left_after(&self, loss: Loss, random: &mut Random) -> Left {
        let mut left = Left::default();
        self.survive(ROOT, Path::new(""), loss, random, &mut left);
        left
    }

    fn survive(&self, id: Id, path: &Path, loss: Loss, random: &mut Random, left: &mut Left) {
        match self.things.get(id).and_then(Option::as_ref) {
            None => {}
            Some(Thing::File { now, synced }) => {
                let bytes = content(now, synced, loss, random);
                if bytes != **now {
                    left.torn.insert(path.to_path_buf());
                }
                left.files.insert(path.to_path_buf(), Some(bytes));
            }
            Some(Thing::Folder { synced, since, .. }) => {
                if id != ROOT {
                    left.files.insert(path.to_path_buf(), None);
                }
                for (name, id) in names(synced, since, loss, random) {
                    self.survive(id, &path.join(name), loss, random, left);
                }
            }
        }
    }
}

fn rename(names: &mut BTreeMap<String, Id>, changes: &[(String, Option<Id>)]) {
    for (name, id) in changes {
        match id {
            Some(id) => names.insert(name.clone(), *id),
            None => names.remove(name),
        };
    }
}

/// What a folder holds: of what is not synced, some; of each name's changes the first ones.
fn names(
    synced: &BTreeMap<String, Id>,
    since: &[Vec<(String, Option<Id>)>],
    loss: Loss,
    random: &mut Random,
) -> BTreeMap<String, Id> {
    let mut names = synced.clone();
    let mut lost = BTreeSet::new();
    // Whole folders are often lost or kept; now and then it is each name for itself.
    let often = [1, 2, 8][random.below(3)];
    for changes in since {
        let survives = match loss {
            Loss::None | Loss::Contents => true,
            Loss::All | Loss::Names => false,
            Loss::Chance => !random.once_in(often),
        };
        if survives && changes.iter().all(|(name, _)| !lost.contains(name)) {
            rename(&mut names, changes);
        } else {
            lost.extend(changes.iter().map(|(name, _)| name.clone()));
        }
    }
    names
}

/// What a file holds: what was synced, or something of what was written since.
fn content(now: &Arc<Vec<u8>>, synced: &Arc<Vec<u8>>, loss: Loss, random: &mut Random) -> Vec<u8> {
    if now == synced {
        return now.to_vec();
    }
    match loss {
        Loss::None | Loss::Names => now.to_vec(),
        Loss::All | Loss::Contents => synced.to_vec(),
        Loss::Chance => match random.below(6) {
            0 => now.to_vec(),
            1 => synced.to_vec(),
            2 => Vec::new(),
            // Its size reached the disk, and its blocks did not.
            3 => vec![0; now.len()],
            4 => now[..random.below(now.len().max(1))].to_vec(),
            _ => {
                let mut bytes = now.to_vec();
                let block = random.below(bytes.len().div_ceil(512).max(1)) * 512;
                let end = (block + 512).min(bytes.len());
                bytes[block..end].fill(0);
                bytes
            }
        },
    }
}

/// Writes down what the program does to the disk.
pub struct Scribe {
    folder: PathBuf,
    /// All that happened, in order.
    pub events: Vec<Event>,
    /// What there was before.
    pub start: Disk,
    /// How the events say that it is now, to be compared with what is.
    now: Disk,
    next: Id,
    /// Open files are known by their numbers on the real disk.
    numbers: BTreeMap<u64, Id>,
    /// What the first path of the call that each thread is making meant before it.
    before: BTreeMap<Pid, Option<Id>>,
}

impl Scribe {
    /// That of a folder, all of which is on the disk.
    pub fn new(folder: &Path) -> Self {
        let mut scribe = Self {
            folder: folder.canonicalize().expect("there"),
            events: Vec::new(),
            start: Disk::default(),
            now: Disk::default(),
            next: ROOT,
            numbers: BTreeMap::new(),
            before: BTreeMap::new(),
        };
        let folder = scribe.folder.clone();
        scribe.find(&folder);
        for event in std::mem::take(&mut scribe.events) {
            scribe.start.apply(&event);
        }
        scribe.start.settle();
        scribe
    }

    fn tell(&mut self, event: Event) {
        self.now.apply(&event);
        self.events.push(event);
    }

    fn find(&mut self, path: &Path) -> Id {
        let id = self.next;
        self.next += 1;
        let metadata = path.symlink_metadata().expect("there");
        self.numbers.insert(metadata.ino(), id);
        if !metadata.is_dir() {
            self.tell(Event::Make(id, Kind::File));
            let bytes = fs_err::read(path).expect("read");
            self.tell(Event::Fill(id, Arc::new(bytes)));
            return id;
        }
        self.tell(Event::Make(id, Kind::Folder));
        for entry in fs_err::read_dir(path).expect("listed") {
            let entry = entry.expect("an entry");
            let inside = self.find(&entry.path());
            let name = entry.file_name().to_string_lossy().into_owned();
            self.tell(Event::Name(id, vec![(name, Some(inside))]));
        }
        id
    }

    /// What a path means on the disk, as far as the events say.
    fn id_of(&mut self, path: &Path) -> Option<Id> {
        let below = path.strip_prefix(&self.folder).ok()?.to_path_buf();
        let mut id = ROOT;
        for part in below.iter() {
            match self.now.thing(id)? {
                Thing::Folder { now, .. } => id = *now.get(part.to_str()?)?,
                Thing::File { .. } => return None,
            }
        }
        Some(id)
    }

    /// The folder of a path, and its name there.
    fn place_of(&mut self, path: &Path) -> Option<(Id, String)> {
        let name = path.file_name()?.to_string_lossy().into_owned();
        Some((self.id_of(path.parent()?)?, name))
    }

    fn name(&mut self, path: &Path, id: Option<Id>) {
        if let Some((folder, name)) = self.place_of(path) {
            self.tell(Event::Name(folder, vec![(name, id)]));
        }
    }

    fn make(&mut self, path: &Path, kind: Kind) -> Id {
        let id = self.next;
        self.next += 1;
        self.tell(Event::Make(id, kind));
        self.name(path, Some(id));
        id
    }

    fn remember(&mut self, path: &Path, id: Id) {
        if let Ok(metadata) = path.symlink_metadata() {
            self.numbers.insert(metadata.ino(), id);
        }
    }

    /// The file that a call is about by its descriptor, and where to read it.
    fn open_file(&self, call: &Call) -> Option<(Id, PathBuf)> {
        let which = match call.name {
            "copy_file_range" | "splice" => call.arguments[2],
            _ => call.arguments[0],
        };
        let path = PathBuf::from(format!("/proc/{}/fd/{}", call.thread, which as i32));
        let number = path.metadata().ok()?.ino();
        Some((*self.numbers.get(&number)?, path))
    }

    fn moved(&mut self, from: &Path, to: &Path) {
        let id = self.id_of(from);
        let (Some((old, old_name)), Some((new, new_name))) =
            (self.place_of(from), self.place_of(to))
        else {
            // In from outside: as good as made here.
            if let (None, Some(_)) = (self.place_of(from), self.place_of(to)) {
                let id = self.make(to, Kind::File);
                self.fill(id, to);
            }
            return;
        };
        if old == new {
            self.tell(Event::Name(old, vec![(old_name, None), (new_name, id)]));
        } else {
            self.tell(Event::Name(new, vec![(new_name, id)]));
            self.tell(Event::Name(old, vec![(old_name, None)]));
        }
    }

    fn fill(&mut self, id: Id, path: &Path) {
        if let Ok(bytes) = fs_err::read(path) {
            self.tell(Event::Fill(id, Arc::new(bytes)));
        }
    }

    /// Whether the events give what is really there.
    ///
    /// # Errors
    /// The first difference.
    pub fn agrees(&mut self) -> Result<(), String> {
        let told = self.now.survivors(Loss::None, &mut Random::new(0, 0));
        let mut real = BTreeMap::new();
        let folder = self.folder.clone();
        look(&folder, &folder, &mut real);
        for path in told.keys().chain(real.keys()) {
            if told.get(path) != real.get(path) {
                return Err(format!(
                    "{} is on the disk {}, and by the events {}",
                    path.display(),
                    describe(real.get(path)),
                    describe(told.get(path))
                ));
            }
        }
        Ok(())
    }
}

fn describe(found: Option<&Option<Vec<u8>>>) -> String {
    match found {
        None => "not there".to_owned(),
        Some(None) => "a folder".to_owned(),
        Some(Some(bytes)) => format!("a file of {} bytes", bytes.len()),
    }
}

fn look(base: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, Option<Vec<u8>>>) {
    for entry in fs_err::read_dir(folder).expect("listed") {
        let path = entry.expect("an entry").path();
        let below = path.strip_prefix(base).expect("below").to_path_buf();
        if path.is_dir() {
            found.insert(below, None);
            look(base, &path, found);
        } else {
            found.insert(below, Some(fs_err::read(&path).expect("read")));
        }
    }
}

impl Watcher for Scribe {
    fn before(&mut self, call: &Call) -> Verdict {
        let known = call.paths.first().and_then(|path| self.id_of(path));
        self.before.insert(call.thread, known);
        Verdict::Go
    }

    fn after(&mut self, call: &Call, result: i64) {
        let known = self.before.remove(&call.thread).flatten();
        if result < 0 || !call.changes {
            return;
        }
        let Some(path) = call.paths.first().cloned() else {
            return;
        };
        match call.name {
            "open" | "openat" | "creat" | "openat2" => {
                let flags = match call.name {
                    "open" => call.arguments[1],
                    "openat" => call.arguments[2],
                    _ => 0,
                };
                match known {
                    Some(id) if flags as i32 & libc::O_TRUNC != 0 => self.fill(id, &path),
                    Some(_) => {}
                    None => {
                        let id = self.make(&path, Kind::File);
                        self.remember(&path, id);
                    }
                }
            }
            "mkdir" | "mkdirat" => {
                let id = self.make(&path, Kind::Folder);
                self.remember(&path, id);
            }
            "rmdir" | "unlink" | "unlinkat" => self.name(&path, None),
            "rename" | "renameat" | "renameat2" => {
                let to = call.paths[1].clone();
                self.moved(&path, &to);
            }
            "link" | "linkat" => {
                let to = call.paths[1].clone();
                self.name(&to, known);
            }
            "fsync" | "fdatasync" => {
                if let Some((id, _)) = self.open_file(call) {
                    let is_file = matches!(self.now.thing(id), Some(Thing::File { .. }));
                    self.tell(if is_file {
                        Event::SyncFile(id)
                    } else {
                        Event::SyncFolder(id)
                    });
                }
            }
            "syncfs" => self.tell(Event::SyncAll),
            "write" | "pwrite64" | "writev" | "pwritev" | "pwritev2" | "copy_file_range"
            | "sendfile" | "splice" | "ftruncate" | "fallocate" | "ioctl" => {
                if let Some((id, file)) = self.open_file(call) {
                    self.fill(id, &file);
                }
            }
            _ => {}
        }
    }
}

/// Puts on a real disk what survived.
pub fn lay_out(survivors: &BTreeMap<PathBuf, Option<Vec<u8>>>, folder: &Path) {
    for (path, bytes) in survivors {
        let path = folder.join(path);
        match bytes {
            None => fs_err::create_dir(&path).expect("made"),
            Some(bytes) => {
                fs_err::write(&path, bytes).expect("written");
                let mode = if path.iter().any(|part| part == "blobs") {
                    0o444
                } else {
                    0o644
                };
                fs_err::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
            }
        }
    }
}
