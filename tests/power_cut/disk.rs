//! A model of a disk behind a file system cache: data written since the last sync of a file may be
//! present, missing or torn, and so may changes of names since the last sync of their folder.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{fmt, fs, str};

use ring::digest::{Context, SHA256};

/// The unit that a disk writes atomically.
const SECTOR: usize = 512;

/// One step of a recorded history.
#[derive(Debug, Clone)]
pub enum Step {
    Create {
        inode: u64,
        path: String,
    },
    Write {
        inode: u64,
        offset: usize,
        data: Vec<u8>,
    },
    Truncate {
        inode: u64,
        length: usize,
    },
    Sync {
        inode: u64,
    },
    SyncFolder {
        path: String,
    },
    Rename {
        from: String,
        to: String,
    },
    Unlink {
        path: String,
    },
    MakeFolder {
        path: String,
    },
    /// A message of the process about itself.
    Mark(String),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Create { path, .. } => write!(f, "create {path}"),
            Step::Write { offset, data, .. } => write!(f, "write {} at {offset}", data.len()),
            Step::Truncate { length, .. } => write!(f, "truncate to {length}"),
            Step::Sync { .. } => f.write_str("sync"),
            Step::SyncFolder { .. } => f.write_str("sync of the folder"),
            Step::Rename { from, to } => write!(f, "rename {from} to {to}"),
            Step::Unlink { path } => write!(f, "unlink {path}"),
            Step::MakeFolder { path } => write!(f, "mkdir {path}"),
            Step::Mark(_) => f.write_str("mark"),
        }
    }
}

/// Parses the log of the recorder.
pub fn read_log(log: &[u8]) -> Vec<Step> {
    let (mut steps, mut rest) = (Vec::new(), log);
    // The system reuses the inode numbers of removed files: here each file has a unique number.
    let mut files: HashMap<u64, u64> = HashMap::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap();
        let words: Vec<&str> = str::from_utf8(&rest[..end]).unwrap().split(' ').collect();
        rest = &rest[end + 1..];
        let number = |word: &str| word.parse::<u64>().unwrap();
        let mut data = |length: &str| {
            let (data, after) = rest.split_at(length.parse().unwrap());
            rest = after;
            data.to_vec()
        };
        if let ["create", inode, _] = words[..] {
            files.insert(number(inode), u64::MAX - steps.len() as u64);
        }
        let file = |inode: &str| files.get(&number(inode)).copied().unwrap_or(number(inode));
        steps.push(match words[..] {
            ["create", inode, path] => Step::Create { inode: file(inode), path: path.to_owned() },
            ["write", inode, offset, length] => Step::Write {
                inode: file(inode),
                offset: offset.parse().unwrap(),
                data: data(length),
            },
            ["truncate", inode, length] => {
                Step::Truncate { inode: file(inode), length: length.parse().unwrap() }
            }
            ["sync", inode] => Step::Sync { inode: file(inode) },
            ["syncdir", path] => Step::SyncFolder { path: path.to_owned() },
            ["rename", from, to] => Step::Rename { from: from.to_owned(), to: to.to_owned() },
            ["unlink", path] => Step::Unlink { path: path.to_owned() },
            ["mkdir", path] => Step::MakeFolder { path: path.to_owned() },
            ["mark", length] => Step::Mark(String::from_utf8(data(length)).unwrap()),
            _ => panic!("the recorder wrote {words:?}"),
        });
    }
    steps
}

/// A change of a file's content since its last sync.
#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    Truncate { length: usize },
}

/// The part of a change that has reached the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    All,
    Nothing,
    FirstSectors,
    LastSectors,
    /// The file has grown, and contains zeros there.
    Length,
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>, part: Part) {
        match self {
            Change::Truncate { length } if part == Part::All => content.resize(*length, 0),
            Change::Truncate { .. } => {}
            Change::Write { offset, data } => {
                // The sector boundary nearest to the middle.
                let middle = (offset + data.len() / 2) / SECTOR * SECTOR;
                let middle = middle.saturating_sub(*offset).min(data.len());
                let kept = match part {
                    Part::All => 0..data.len(),
                    Part::Nothing => return,
                    Part::FirstSectors => 0..middle,
                    Part::LastSectors => middle..data.len(),
                    Part::Length => 0..0,
                };
                let (begin, end) = (offset + kept.start, offset + kept.end);
                let grown = if part == Part::Length { offset + data.len() } else { end };
                if content.len() < grown {
                    content.resize(grown, 0);
                }
                content[begin..end].copy_from_slice(&data[kept]);
            }
        }
    }

    fn can_tear(&self) -> bool {
        matches!(
            self,
            Change::Write { offset, data }
                if offset / SECTOR != (offset + data.len() - 1) / SECTOR
        )
    }
}

#[derive(Debug, Clone, Default)]
struct File {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

impl File {
    fn content(&self, part: impl Fn(usize) -> Part) -> Vec<u8> {
        let mut content = self.durable.clone();
        for (index, change) in self.pending.iter().enumerate() {
            change.apply(&mut content, part(index));
        }
        content
    }
}

/// A change of names since the last sync of their folder.
#[derive(Debug, Clone)]
enum Naming {
    Put { path: String, node: Node },
    Remove { path: String },
    Rename { from: String, to: String },
}

#[derive(Debug, Clone, Copy)]
enum Node {
    File(u64),
    Folder,
}

type Names = BTreeMap<String, Node>;

impl Naming {
    fn folder(&self) -> &str {
        let (Naming::Put { path, .. }
        | Naming::Remove { path }
        | Naming::Rename { from: path, .. }) = self;
        path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    fn apply(&self, names: &mut Names) {
        match self {
            Naming::Put { path, node } => drop(names.insert(path.clone(), *node)),
            Naming::Remove { path } => drop(names.remove(path)),
            Naming::Rename { from, to } => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
        }
    }
}

/// The complete content of a disk: the content of each file, and `None` for a folder.
pub type State = BTreeMap<String, Option<Vec<u8>>>;

/// A hash that identifies a state.
pub fn digest(state: &State) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for (path, content) in state {
        let length = content.as_ref().map(Vec::len);
        context.update(format!("{path} {length:?}\n").as_bytes());
        context.update(content.as_deref().unwrap_or_default());
    }
    context.finish().as_ref().try_into().unwrap()
}

/// Writes a state into an empty folder.
pub fn write_state(state: &State, folder: &Path) {
    for (path, content) in state {
        let path = folder.join(path);
        match content {
            None => fs::create_dir_all(path).unwrap(),
            Some(content) => {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
        }
    }
}

/// The number of states that are built.
#[derive(Debug, Clone, Copy)]
pub struct Depth {
    /// How many of a file's last changes are dropped and torn individually.
    pub changes: usize,
    /// How many of the last changes of names are dropped individually.
    pub namings: usize,
    /// A cut follows one in this many writes.
    pub every_write: usize,
}

/// The disk after the steps so far.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    files: HashMap<u64, File>,
    names: Names,
    pending: Vec<Naming>,
    /// Ignores syncs, like a disk that acknowledges writes too early.
    pub ignores_syncs: bool,
}

/// SQLite recreates this file when the first process opens the database, so its content after a
/// power cut is irrelevant.
pub fn is_remade(path: &str) -> bool {
    path.ends_with("-shm")
}

impl Disk {
    /// A disk on which this folder is synced.
    pub fn of(folder: &Path) -> Disk {
        let mut disk = Disk::default();
        disk.add(folder, "");
        disk
    }

    fn add(&mut self, folder: &Path, before: &str) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = format!("{before}{}", entry.file_name().to_str().unwrap());
            let about = entry.metadata().unwrap();
            if about.is_dir() {
                self.add(&entry.path(), &format!("{path}/"));
                self.names.insert(path, Node::Folder);
            } else {
                let durable = fs::read(entry.path()).unwrap();
                self.files.insert(about.ino(), File { durable, pending: Vec::new() });
                self.names.insert(path, Node::File(about.ino()));
            }
        }
    }

    pub fn take(&mut self, step: &Step) {
        match step {
            Step::Create { inode, path } => {
                self.files.insert(*inode, File::default());
                self.pending.push(Naming::Put { path: path.clone(), node: Node::File(*inode) });
            }
            Step::Write { inode, offset, data } => {
                self.file(*inode)
                    .pending
                    .push(Change::Write { offset: *offset, data: data.clone() });
            }
            Step::Truncate { inode, length } => {
                self.file(*inode).pending.push(Change::Truncate { length: *length });
            }
            Step::Sync { .. } | Step::SyncFolder { .. } if self.ignores_syncs => {}
            Step::Sync { inode } => {
                let file = self.file(*inode);
                file.durable = file.content(|_| Part::All);
                file.pending.clear();
            }
            Step::SyncFolder { path } => {
                for naming in std::mem::take(&mut self.pending) {
                    if naming.folder() == path {
                        naming.apply(&mut self.names);
                    } else {
                        self.pending.push(naming);
                    }
                }
            }
            Step::Rename { from, to } => {
                self.pending.push(Naming::Rename { from: from.clone(), to: to.clone() });
            }
            Step::Unlink { path } => self.pending.push(Naming::Remove { path: path.clone() }),
            Step::MakeFolder { path } => {
                self.pending.push(Naming::Put { path: path.clone(), node: Node::Folder });
            }
            Step::Mark(_) => {}
        }
    }

    fn file(&mut self, inode: u64) -> &mut File {
        self.files.get_mut(&inode).expect("the recorder saw the file from its beginning")
    }

    /// The disk as a reader sees it before the power cut.
    pub fn seen(&self) -> State {
        self.state(&self.with_names(|_| true), |_, _| Part::All)
    }

    fn with_names(&self, keeps: impl Fn(usize) -> bool) -> Names {
        let mut names = self.names.clone();
        for (index, naming) in self.pending.iter().enumerate() {
            if keeps(index) {
                naming.apply(&mut names);
            }
        }
        names
    }

    fn state(&self, names: &Names, part: impl Fn(u64, usize) -> Part) -> State {
        let mut state = State::new();
        let is_reached =
            |path: &str| path.rsplit_once('/').is_none_or(|(folder, _)| names.contains_key(folder));
        for (path, node) in names.iter().filter(|(path, _)| !is_remade(path) && is_reached(path)) {
            let content = match node {
                Node::Folder => None,
                Node::File(inode) => Some(self.files[inode].content(|index| part(*inode, index))),
            };
            state.insert(path.clone(), content);
        }
        state
    }

    /// The states in which a power cut now may leave the disk: a bounded, deterministic sample.
    pub fn after_a_cut(&self, depth: Depth) -> Vec<State> {
        let mut states = Vec::new();
        for names in self.namings(depth.namings) {
            let unsynced: BTreeSet<u64> = names
                .iter()
                .filter(|(path, _)| !is_remade(path))
                .filter_map(|(_, node)| match node {
                    Node::File(inode) if !self.files[inode].pending.is_empty() => Some(*inode),
                    _ => None,
                })
                .collect();
            // Each file with all of its changes or without them.
            let unsynced: Vec<u64> = unsynced.into_iter().collect();
            assert!(unsynced.len() < 8, "more files at once than this was made for");
            for kept in 0..1_u32 << unsynced.len() {
                let is_kept = |inode: u64| {
                    let place = unsynced.iter().position(|other| *other == inode);
                    place.is_none_or(|place| kept & (1 << place) != 0)
                };
                let whole =
                    |inode: u64, _: usize| if is_kept(inode) { Part::All } else { Part::Nothing };
                states.push(self.state(&names, whole));
            }
            // Each file with one of its last changes dropped or torn, or without all changes from
            // there on; the other files with all of their changes, or without them.
            for inode in &unsynced {
                let changes = &self.files[inode].pending;
                let first = changes.len().saturating_sub(depth.changes);
                for (index, change) in changes.iter().enumerate().skip(first) {
                    let mut parts = vec![Part::Nothing];
                    if matches!(change, Change::Write { .. }) {
                        parts.push(Part::Length);
                    }
                    if change.can_tear() {
                        parts.extend([Part::FirstSectors, Part::LastSectors]);
                    }
                    for part in parts {
                        for later in [Part::All, Part::Nothing] {
                            for others in [Part::All, Part::Nothing] {
                                let torn = |other: u64, place: usize| match place.cmp(&index) {
                                    _ if other != *inode => others,
                                    std::cmp::Ordering::Less => Part::All,
                                    std::cmp::Ordering::Equal => part,
                                    std::cmp::Ordering::Greater => later,
                                };
                                states.push(self.state(&names, torn));
                            }
                        }
                    }
                }
            }
        }
        states
    }

    /// The file names that may survive: with all unsynced changes, with none, and for each of the
    /// last changes in the database's folder, with those before it and with all others.
    fn namings(&self, depth: usize) -> Vec<Names> {
        let own: Vec<usize> = (0..self.pending.len())
            .filter(|index| self.pending[*index].folder().is_empty())
            .collect();
        let mut all = vec![self.with_names(|_| true), self.with_names(|_| false)];
        for index in &own[own.len().saturating_sub(depth)..] {
            all.push(self.with_names(|other| other < *index));
            all.push(self.with_names(|other| other != *index));
        }
        all
    }
}
