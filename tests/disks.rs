//! The disks that other tests stand on: a power cut leaves one instant and what was synced, and a full disk is full.

use crate::support::disk::{Cut, Disk, Image, granted};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

fn counter(disk: &Disk, name: &str) -> u64 {
    let text = std::fs::read_to_string(disk.path().join(name)).expect("a file that was synced before the cut");
    text.trim().parse().expect("one number, whole")
}

/// Two files in turn, each synced before the other is written: at no instant are they more than one apart. An image that
/// mixes two moments shows them apart, and one that lacks what was synced shows them behind.
#[test]
#[allow(clippy::disallowed_methods, reason = "threads that write to a disk, and no runtime")]
fn a_cut_is_one_instant_and_has_what_was_synced() {
    if !granted("a_cut_is_one_instant_and_has_what_was_synced") {
        return;
    }
    let disk = Disk::with_power(32);
    let [one, two] = ["one", "two"].map(|name| File::create(disk.path().join(name)).expect("a file"));
    let (synced, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let write = |file: &File, count: u64| {
        file.write_all_at(format!("{count:020}").as_bytes(), 0).expect("room");
        file.sync_data().expect("a disk");
    };
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for count in 1.. {
                write(&one, count);
                write(&two, count);
                synced.store(count, Ordering::SeqCst);
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        while synced.load(Ordering::SeqCst) < 5 {
            std::thread::yield_now();
        }
        for round in 0..16_u64 {
            std::thread::sleep(Duration::from_micros(round * 777));
            let kind = match round % 4 {
                0 => Cut::Flushed,
                1 => Cut::Written,
                _ => Cut::Torn { seed: round, one_in: 2 },
            };
            let before = synced.load(Ordering::SeqCst);
            let image = disk.device().cut(kind);
            seen.push((kind, before, image, synced.load(Ordering::SeqCst)));
        }
        is_over.store(true, Ordering::SeqCst);
        writer.join().expect("the writer");
    });
    assert!(seen[15].1 > seen[0].1 + 10, "the writer went on while images were cut");
    for (kind, before, image, after) in seen {
        let left = Disk::from_image(image).expect("ext4 replays its journal");
        let (one, two) = (counter(&left, "one"), counter(&left, "two"));
        assert!(one == two || one == two + 1, "{kind:?}: {one} and {two} never stood there together");
        assert!(two >= before && one <= after + 2, "{kind:?}: {two} of {before}…{after}");
    }
}

/// Without this a power cut would prove nothing: what nobody synced is lost, and so is what a lying drive called synced.
#[test]
fn a_cut_loses_what_was_not_synced() {
    if !granted("a_cut_loses_what_was_not_synced") {
        return;
    }
    let disk = Disk::with_power(32);
    let put = |name: &str| {
        let mut file = File::create(disk.path().join(name)).expect("a file");
        file.write_all(b"here").expect("room");
        file
    };
    let is_there = |image: Image, name: &str| Disk::from_image(image).is_ok_and(|left| left.path().join(name).exists());
    put("synced").sync_all().expect("a disk");
    put("forgotten");
    let image = disk.device().cut(Cut::Written);
    assert!(is_there(image.clone(), "synced") && !is_there(image, "forgotten"));
    let flushes = disk.device().flushes();
    disk.device().lie();
    put("trusted").sync_all().expect("a disk that says yes");
    assert!(disk.device().flushes() > flushes, "each sync reaches the device as a flush");
    assert!(is_there(disk.device().cut(Cut::Written), "trusted"), "it is in the cache");
    assert!(!is_there(disk.device().cut(Cut::Flushed), "trusted"), "and nowhere else");
}

#[test]
fn a_full_disk_is_full_until_there_is_room() {
    if !granted("a_full_disk_is_full_until_there_is_room") {
        return;
    }
    let disk = Disk::new(16);
    let write = |name: &str| std::fs::write(disk.path().join(name), vec![1; 256 << 10]);
    let all = disk.free();
    disk.fill(1 << 20);
    assert!((1 << 20..(1 << 20) + 64 * 1024).contains(&disk.free()), "{} left", disk.free());
    write("fits").expect("a quarter of what is left");
    disk.fill(0);
    assert!(disk.free() < 4096, "{} left", disk.free());
    assert_eq!(write("does not").expect_err("a full disk").kind(), ErrorKind::StorageFull);
    disk.make_room();
    assert!(disk.free() > all / 2);
    write("fits again").expect("room");
    let (mount, block) = (disk.path().to_owned(), disk.block_device().to_owned());
    drop(disk);
    assert!(!mount.exists(), "unmounted and removed");
    let mounts = std::fs::read_to_string("/proc/mounts").expect("mounts");
    assert!(!mounts.contains(&mount.display().to_string()), "{block} is let go");
}
