//! A small file system of a test's own: one that can be filled, and one whose power can be cut.
//!
//! Both are ext4 on a loop device, mounted in a private folder and gone when dropped, also when the test panics.
//! [`Disk::new`] lies on a sparse file: small, and for running full. [`Disk::with_power`] lies on a [`Device`], which
//! sees every write and every flush; its head says why an image that is cut from it is what a power cut would leave.
//! Mounting such an image replays ext4's journal, as after a real one.
//!
//! All of this needs root. A test begins with [`granted`] and returns when that says no; the refusal is printed past the
//! capture of the test's output, and is a failure where `SOTTO_TEST_REQUIRE_ALL` is 1.

mod device;

pub use device::{Cut, Device, Image};

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use tempfile::TempDir;

/// A mounted file system. Whatever uses it must end before it is dropped.
pub struct Disk {
    mount: PathBuf,
    loop_device: String,
    device: Option<Device>,
    _folder: TempDir,
}

/// Whether this machine lets a test make disks, and if not, the reason.
pub fn possible() -> Result<(), String> {
    static ANSWER: OnceLock<Result<(), String>> = OnceLock::new();
    ANSWER.get_or_init(|| Disk::on_device(Image::blank(16 << 20), true).map(drop)).clone()
}

/// Whether the test `name` may go on. If not, that is said loudly, and with `SOTTO_TEST_REQUIRE_ALL=1` it is a failure.
#[allow(clippy::disallowed_methods, reason = "whether a skipped test is a failure")]
pub fn granted(name: &str) -> bool {
    let Err(reason) = possible() else { return true };
    let must = std::env::var("SOTTO_TEST_REQUIRE_ALL").is_ok_and(|value| value == "1");
    assert!(!must, "{name} needs a disk of its own, and every test is required: {reason}");
    // Not by a macro: what those print is hidden when a test does not fail.
    let _ = writeln!(std::io::stderr(), "\nSKIPPED, NOT PASSED: {name} needs a disk of its own: {reason}");
    false
}

/// Runs a command of the system and returns what it prints.
fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {}: {}", arguments.join(" "), said.trim()))
}

fn private_folder() -> Result<TempDir, String> {
    let folder = tempfile::Builder::new().prefix("sotto-disk").tempdir().map_err(|error| error.to_string())?;
    // PostgreSQL runs as another user and must come through.
    let open = Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).map_err(|error| error.to_string())?;
    Ok(folder)
}

impl Disk {
    /// An empty file system of so many MiB (at least 8) on a sparse file. Nothing of it is kept for root.
    pub fn new(mebibytes: u64) -> Self {
        let make = || {
            let folder = private_folder()?;
            let backing = folder.path().join("backing");
            let file = File::create(&backing).map_err(|error| error.to_string())?;
            file.set_len(mebibytes << 20).map_err(|error| error.to_string())?;
            Self::on(&backing, true, None, folder)
        };
        make().expect("a file system on a file")
    }

    /// An empty file system of so many MiB (at least 8) whose power can be cut.
    pub fn with_power(mebibytes: u64) -> Self {
        Self::on_device(Image::blank(mebibytes << 20), true).expect("a file system on a device")
    }

    /// What a power cut has left, under power again.
    ///
    /// # Errors
    /// ext4 cannot be mounted.
    pub fn from_image(image: Image) -> Result<Self, String> {
        Self::on_device(image, false)
    }

    fn on_device(image: Image, is_new: bool) -> Result<Self, String> {
        let folder = private_folder()?;
        let device = Device::switch_on(image, folder.path())?;
        let file = device.file().to_owned();
        Self::on(&file, is_new, Some(device), folder)
    }

    fn on(file: &Path, is_new: bool, device: Option<Device>, folder: TempDir) -> Result<Self, String> {
        let mount = folder.path().join("mount");
        std::fs::create_dir(&mount).map_err(|error| error.to_string())?;
        let file = file.display().to_string();
        let target = mount.display().to_string();
        // Direct: a write is answered by the file and not by a page cache between the two.
        let direct = if device.is_some() { "--direct-io=on" } else { "--direct-io=off" };
        let loop_device = run("losetup", &["--find", "--show", direct, &file])?;
        let mounted = || {
            if is_new {
                run("mkfs.ext4", &["-q", "-m", "0", "-E", "nodiscard", &loop_device])?;
            }
            run("mount", &["-t", "ext4", &loop_device, &target])
        };
        let mounted = mounted();
        // It stays for as long as the file system is mounted, and goes with it.
        let _ = run("losetup", &["--detach", &loop_device]);
        mounted?;
        let disk = Self { mount, loop_device, device, _folder: folder };
        let open = Permissions::from_mode(0o777);
        std::fs::set_permissions(disk.path(), open).map_err(|error| error.to_string())?;
        Ok(disk)
    }

    /// The root of the file system.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// The block device below, as `/dev/loop0`.
    pub fn block_device(&self) -> &str {
        &self.loop_device
    }

    /// The device of [`Disk::with_power`] and [`Disk::from_image`].
    pub fn device(&self) -> &Device {
        self.device.as_ref().expect("a disk with power")
    }

    /// Bytes that are free for everybody.
    pub fn free(&self) -> u64 {
        let told = run("stat", &["--file-system", "--format", "%a %S", &self.mount.display().to_string()]);
        let told = told.expect("a file system");
        let (blocks, size) = told.split_once(' ').expect("two numbers");
        blocks.parse::<u64>().expect("a number") * size.parse::<u64>().expect("a number")
    }

    /// Takes all space but so many bytes; less is left if less was free. May be called again to take more.
    pub fn fill(&self, leave: u64) {
        let mut most = u64::MAX;
        loop {
            // Counted anew each time: others write, and ext4 takes blocks for itself to note down a long file.
            let length = self.free().saturating_sub(leave).min(most) & !4095;
            if length == 0 {
                return;
            }
            let file = self.mount.join(format!(".filler-{}", uuid::Uuid::new_v4()));
            if run("fallocate", &["--length", &length.to_string(), &file.display().to_string()]).is_err() {
                let _ = std::fs::remove_file(&file);
                most = length / 2;
            }
        }
    }

    /// Gives back what [`Disk::fill`] has taken.
    pub fn make_room(&self) {
        for entry in std::fs::read_dir(&self.mount).expect("a file system").map_while(Result::ok) {
            if entry.file_name().to_string_lossy().starts_with(".filler-") {
                std::fs::remove_file(entry.path()).expect("the filler is the test's");
            }
        }
    }
}

impl Drop for Disk {
    #[allow(clippy::disallowed_methods, reason = "a drop cannot wait otherwise")]
    fn drop(&mut self) {
        let target = self.mount.display().to_string();
        for _ in 0..50 {
            if run("umount", &[&target]).is_ok() {
                return;
            }
            // Somebody is still ending.
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let _ = run("umount", &["--lazy", &target]);
    }
}
