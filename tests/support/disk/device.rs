//! A disk that can lose its power: a block device in memory with a write cache, as drives have one.
//!
//! The device is one file of a file system in user space (FUSE, spoken here with `/dev/fuse` itself), and a loop device
//! lies on that file. So each write of the kernel to the block device comes by here, and each flush too. A write is
//! answered when it is in the cache, a flush when nothing is in the cache any more: the promise of a real drive and no
//! more than that. [`Device::cut`] says what would be on the disk if the power went now.
//!
//! Why such a cut is faithful:
//! - It is taken at one instant. Writes, flushes and cuts take the same lock, so an image never mixes two moments, as a
//!   copy of a file that is being written does.
//! - What the kernel was told to be durable is in it, because a flush moves the cache to the medium under that lock
//!   before it is answered. The file is opened for direct I/O: there is no page cache between the loop device and here.
//! - What was not flushed need not be in it. Of the writes since the last flush all, none, or some sectors survive, in
//!   any combination, torn in the middle of a block: a program that forgot a flush is not saved by the test's kindness.
//! - What is still in the memory of the kernel (pages that nobody synced) has not come by here and is lost.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

const PAGE: usize = 4096;
/// What a drive writes as a whole.
const SECTOR: usize = 512;
/// The largest write that the kernel is told to send.
const LARGEST: usize = 1 << 20;
/// A cache is finite: when it is full the drive writes it out by itself.
const CACHE: usize = 64 << 20;

type Pages = HashMap<u64, Arc<[u8; PAGE]>>;

/// What is on a disk without power. Parts that were never written are zeros and take no memory.
#[derive(Clone)]
pub struct Image {
    size: u64,
    pages: Pages,
}

/// What becomes of the writes that no flush has followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The cache is lost.
    Flushed,
    /// The cache was written out in the last moment.
    Written,
    /// Of each sector chance decides, by this seed; one in so many is lost.
    Torn { seed: u64, one_in: u64 },
}

#[derive(Default)]
struct Platter {
    /// What a read tells.
    seen: Pages,
    /// What a cut leaves for sure.
    durable: Pages,
    touched: HashSet<u64>,
    /// The writes since the last flush, in order.
    cache: Vec<(u64, Arc<[u8]>)>,
    cached: usize,
    flushes: u64,
    /// Flushes are answered and not done.
    is_lying: bool,
}

impl Image {
    /// An empty disk of so many bytes, a multiple of 4096.
    pub fn blank(size: u64) -> Self {
        assert_eq!(size % PAGE as u64, 0, "whole pages");
        Self { size, pages: Pages::new() }
    }
}

fn store(pages: &mut Pages, offset: u64, bytes: &[u8]) {
    let mut at = offset;
    let mut rest = bytes;
    while !rest.is_empty() {
        let (page, from) = (at / PAGE as u64, (at % PAGE as u64) as usize);
        let (part, left) = rest.split_at(rest.len().min(PAGE - from));
        let page = pages.entry(page).or_insert_with(|| Arc::new([0; PAGE]));
        Arc::make_mut(page)[from..from + part.len()].copy_from_slice(part);
        (at, rest) = (at + part.len() as u64, left);
    }
}

impl Platter {
    fn read(&self, offset: u64, size: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(size);
        while bytes.len() < size {
            let at = offset + bytes.len() as u64;
            let from = (at % PAGE as u64) as usize;
            let length = (size - bytes.len()).min(PAGE - from);
            match self.seen.get(&(at / PAGE as u64)) {
                Some(page) => bytes.extend_from_slice(&page[from..from + length]),
                None => bytes.resize(bytes.len() + length, 0),
            }
        }
        bytes
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        store(&mut self.seen, offset, bytes);
        let last = offset + bytes.len().max(1) as u64 - 1;
        self.touched.extend(offset / PAGE as u64..=last / PAGE as u64);
        self.cache.push((offset, bytes.into()));
        self.cached += bytes.len();
        if self.cached > CACHE {
            self.write_out();
        }
    }

    fn flush(&mut self) {
        self.flushes += 1;
        if !self.is_lying {
            self.write_out();
        }
    }

    fn write_out(&mut self) {
        for page in self.touched.drain() {
            if let Some(bytes) = self.seen.get(&page) {
                self.durable.insert(page, Arc::clone(bytes));
            }
        }
        self.cache.clear();
        self.cached = 0;
    }
}

/// A disk under power. Dropped, it is gone with everything on it.
pub struct Device {
    /// The file that a loop device is to lie on.
    file: PathBuf,
    size: u64,
    platter: Arc<Mutex<Platter>>,
    service: Option<JoinHandle<()>>,
}

impl Device {
    /// Switches a disk on; `folder` is the caller's and gets one file. Needs root and `/dev/fuse`.
    pub fn switch_on(image: Image, folder: &Path) -> Result<Self, String> {
        let file = folder.join("device");
        File::create(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let fuse = File::options().read(true).write(true).open("/dev/fuse");
        let fuse = fuse.map_err(|error| format!("/dev/fuse: {error}"))?;
        let ours = fuse.try_clone().map_err(|error| format!("/dev/fuse: {error}"))?;
        let platter = Platter { seen: image.pages.clone(), durable: image.pages, ..Platter::default() };
        let platter = Arc::new(Mutex::new(platter));
        // The command's standard input is the connection that the file system is to speak with.
        let mount = Command::new("mount")
            .args(["-i", "-t", "fuse", "-o", "fd=0,rootmode=100000,user_id=0,group_id=0", "sotto-test"])
            .arg(&file)
            .stdin(Stdio::from(fuse))
            .output()
            .map_err(|error| format!("mount: {error}"))?;
        if !mount.status.success() {
            return Err(format!("mount -t fuse: {}", String::from_utf8_lossy(&mount.stderr).trim()));
        }
        let (size, shared) = (image.size, Arc::clone(&platter));
        let service = std::thread::spawn(move || serve(ours, size, &shared));
        Ok(Self { file, size, platter, service: Some(service) })
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.platter.lock().expect("the disk")
    }

    /// How often the kernel wanted to be sure.
    pub fn flushes(&self) -> u64 {
        self.platter().flushes
    }

    /// From now on flushes are answered and not done: what a broken drive does.
    pub fn lie(&self) {
        self.platter().is_lying = true;
    }

    /// What is on the disk if the power goes now. The disk goes on all the same.
    pub fn cut(&self, cut: Cut) -> Image {
        let (mut pages, cache) = {
            let platter = self.platter();
            (platter.durable.clone(), platter.cache.clone())
        };
        let mut dice = match cut {
            Cut::Torn { seed, .. } => seed,
            Cut::Flushed | Cut::Written => 0,
        };
        for (offset, bytes) in cache {
            for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                let survives = match cut {
                    Cut::Flushed => false,
                    Cut::Written => true,
                    Cut::Torn { one_in, .. } => !roll(&mut dice).is_multiple_of(one_in),
                };
                if survives {
                    store(&mut pages, offset + (index * SECTOR) as u64, sector);
                }
            }
        }
        Image { size: self.size, pages }
    }
}

impl Drop for Device {
    #[allow(clippy::disallowed_methods, reason = "a drop cannot wait otherwise")]
    fn drop(&mut self) {
        // Lazily: the loop device lets go of the file a moment after its file system is unmounted. While something still
        // holds it, it must be served, or that something would hang.
        let _ = Command::new("umount").arg("--lazy").arg(&self.file).status();
        let Some(service) = self.service.take() else { return };
        for _ in 0..100 {
            if service.is_finished() {
                return drop(service.join());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// SplitMix64.
fn roll(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

// The kernel's side of FUSE, as linux/fuse.h describes it: a header of 40 bytes, then the arguments; an answer has a
// header of 16. Numbers are the machine's.
const HEADER: usize = 40;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const DESTROY: u32 = 38;
const BATCH_FORGET: u32 = 42;
const NOT_THERE: i32 = -38;
/// No page cache over the file.
const DIRECT_IO: u32 = 1;
/// Big writes, several at once.
const ABILITIES: u32 = (1 << 5) | (1 << 15) | (1 << 22);

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn numbers(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

/// Answers the kernel until the file system is unmounted.
fn serve(mut fuse: File, size: u64, platter: &Mutex<Platter>) {
    let mut request = vec![0; LARGEST + 2 * PAGE];
    loop {
        let length = match fuse.read(&mut request) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // An interrupted request, which is gone.
            Err(error) if error.raw_os_error() == Some(2) => continue,
            Err(_) => return,
        };
        let (header, arguments) = request[..length].split_at(HEADER);
        let (error, body) = match u32_at(header, 4) {
            FORGET | BATCH_FORGET | INTERRUPT => continue,
            INIT => (0, greeting(arguments)),
            GETATTR | SETATTR => (0, attributes(size)),
            OPEN => (0, numbers(&[0, 0, DIRECT_IO, 0])),
            READ => {
                let (offset, wanted) = (u64_at(arguments, 8), u64::from(u32_at(arguments, 16)));
                let wanted = wanted.min(size.saturating_sub(offset));
                (0, platter.lock().expect("the disk").read(offset, wanted as usize))
            }
            WRITE => {
                let (offset, count) = (u64_at(arguments, 8), u32_at(arguments, 16));
                platter.lock().expect("the disk").write(offset, &arguments[40..40 + count as usize]);
                (0, numbers(&[count, 0]))
            }
            FSYNC => {
                platter.lock().expect("the disk").flush();
                (0, Vec::new())
            }
            FLUSH | RELEASE | DESTROY => (0, Vec::new()),
            _ => (NOT_THERE, Vec::new()),
        };
        let mut answer = numbers(&[(16 + body.len()) as u32]);
        answer.extend(i32::to_ne_bytes(error));
        answer.extend_from_slice(&header[8..16]);
        answer.extend(body);
        // A refused answer belongs to a request that nobody waits for any more.
        let _ = fuse.write(&answer);
    }
}

fn greeting(asked: &[u8]) -> Vec<u8> {
    let ahead = u32_at(asked, 8);
    let background = u32::from_ne_bytes([64, 0, 48, 0]);
    let pages = u32::from((LARGEST / PAGE) as u16);
    let mut answer = vec![7, 31, ahead, u32_at(asked, 12) & ABILITIES, background, LARGEST as u32, 1, pages];
    answer.resize(16, 0);
    numbers(&answer)
}

fn attributes(size: u64) -> Vec<u8> {
    // A second for which the answer may be kept, then the inode.
    let mut answer: Vec<u8> = [1, 0, 1, size, size / 512, 0, 0, 0].iter().flat_map(|n: &u64| n.to_ne_bytes()).collect();
    let (mode, links) = (0o100_600, 1);
    answer.extend(numbers(&[0, 0, 0, mode, links, 0, 0, 0, PAGE as u32, 0]));
    answer
}
