//! What a container may use and uses, on Linux: control groups, version 1 and 2.
//!
//! A process lies in a group of each hierarchy, and all groups above limit it too, as far as they can be seen from inside
//! the container. Files that are missing or make no sense say nothing: then the host's figures count.

use std::fs;
use std::path::{Path, PathBuf};

use super::Memory;

/// v1 writes "no limit" as the largest multiple of the page size; nothing real is above an exbibyte.
const NO_LIMIT: u64 = 1 << 60;

/// The names of the files, which differ between the versions.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Version {
    One,
    Two,
}

/// The groups of this process, from its own upwards to the highest that can be seen.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Cgroup {
    memory: Option<(Version, Vec<PathBuf>)>,
    cpu: Option<(Version, Vec<PathBuf>)>,
    pids: Option<(Version, Vec<PathBuf>)>,
    /// v1 counts CPU time in a hierarchy of its own.
    cpu_time: Option<(Version, PathBuf)>,
}

impl Cgroup {
    /// Finds the groups of this process. Anywhere but on Linux there are none.
    pub fn of_this_process() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self::find(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"))
    }

    /// Reads the contents of `/proc/self/cgroup` and `/proc/self/mountinfo`.
    fn find(groups: &str, mounts: &str) -> Self {
        let folders = |controller: &str| -> Option<(Version, Vec<PathBuf>)> {
            let one = group_of(groups, Some(controller))
                .and_then(|path| mount_of(mounts, Some(controller)).map(|mount| walk(&mount, path)));
            if let Some(folders) = one {
                return Some((Version::One, folders));
            }
            let path = group_of(groups, None)?;
            Some((Version::Two, walk(&mount_of(mounts, None)?, path)))
        };
        Self {
            memory: folders("memory"),
            cpu: folders("cpu"),
            pids: folders("pids"),
            cpu_time: folders("cpuacct").and_then(|(version, folders)| Some((version, folders.into_iter().next()?))),
        }
    }

    /// The tightest limit of all groups and what is left of it. `None` without a limit below `host` bytes.
    ///
    /// Pages of files that were not used lately count as available: the kernel takes them back before it kills.
    pub fn memory(&self, host: u64) -> Option<Memory> {
        let (version, folders) = self.memory.as_ref()?;
        let (limits, usage, inactive): (&[&str], _, _) = match version {
            Version::One => (&["memory.limit_in_bytes"], "memory.usage_in_bytes", "total_inactive_file"),
            // memory.high does not kill, but whoever is above it is slowed down to a crawl.
            Version::Two => (&["memory.max", "memory.high"], "memory.current", "inactive_file"),
        };
        folders
            .iter()
            .filter_map(|folder| {
                let total = limits.iter().filter_map(|file| number(folder, file)).min()?;
                if total >= NO_LIMIT || host > 0 && total >= host {
                    return None;
                }
                let used = number(folder, usage)?;
                let reclaimable = field(folder, "memory.stat", inactive).unwrap_or(0);
                let available = total.saturating_sub(used.saturating_sub(reclaimable));
                Some(Memory { total, available })
            })
            .min_by_key(|memory| memory.available)
    }

    /// How many processes and threads the tightest limit allows. `None` without one.
    pub fn processes(&self) -> Option<u64> {
        let (_, folders) = self.pids.as_ref()?;
        folders.iter().filter_map(|folder| number(folder, "pids.max")).min()
    }

    /// How many cores the tightest quota allows. `None` without one.
    pub fn quota(&self) -> Option<f64> {
        let (version, folders) = self.cpu.as_ref()?;
        folders
            .iter()
            .filter_map(|folder| {
                let (quota, period) = match version {
                    Version::One => (number(folder, "cpu.cfs_quota_us")?, number(folder, "cpu.cfs_period_us")?),
                    Version::Two => {
                        let text = fs::read_to_string(folder.join("cpu.max")).ok()?;
                        let mut words = text.split_whitespace();
                        (words.next()?.parse().ok()?, words.next()?.parse().ok()?)
                    }
                };
                (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
            })
            .min_by(f64::total_cmp)
    }

    /// Seconds of CPU time that the group has used.
    pub fn cpu_seconds(&self) -> Option<f64> {
        let (version, folder) = self.cpu_time.as_ref()?;
        match version {
            Version::One => number(folder, "cpuacct.usage").map(|ns| ns as f64 / 1e9),
            Version::Two => field(folder, "cpu.stat", "usage_usec").map(|us| us as f64 / 1e6),
        }
    }
}

/// The path of the group: of a v1 controller, or of v2.
fn group_of<'a>(groups: &'a str, controller: Option<&str>) -> Option<&'a str> {
    groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let found = controller.map_or(controllers.is_empty(), |name| controllers.split(',').any(|one| one == name));
        found.then_some(path)
    })
}

/// Where a hierarchy is mounted, and which of its groups that is.
fn mount_of(mounts: &str, controller: Option<&str>) -> Option<(PathBuf, String)> {
    mounts.lines().find_map(|line| {
        // 31 23 0:28 /group /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let (kind, options) = (right.next()?, right.nth(1).unwrap_or_default());
        let found = match controller {
            Some(name) => kind == "cgroup" && options.split(',').any(|one| one == name),
            None => kind == "cgroup2",
        };
        found.then(|| (PathBuf::from(unescape(point)), unescape(root)))
    })
}

/// mountinfo writes spaces as \040.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
}

/// The folder of the group `path` and all above it, up to the mount.
fn walk((mount, root): &(PathBuf, String), path: &str) -> Vec<PathBuf> {
    // Inside a container the mount often *is* the group, under a path that only the host knows.
    let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
    let inside = below.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    let own = if inside { mount.join(below) } else { mount.clone() };
    own.ancestors().take_while(|folder| folder.starts_with(mount)).map(Path::to_path_buf).collect()
}

/// A file with one number. `max` and -1 are none.
fn number(folder: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()
}

/// The number of a line `name number`.
fn field(folder: &Path, file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(folder.join(file)).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1 << 30;

    fn write(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    fn two(mount: &Path, path: &str) -> Cgroup {
        let mounts = format!("29 23 0:26 / {} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n", mount.display());
        Cgroup::find(&format!("0::{path}\n"), &mounts)
    }

    #[test]
    fn reads_version_two_and_takes_the_tightest_of_nested_groups() {
        let mount = tempfile::tempdir().unwrap();
        let own = mount.path().join("a.slice/b");
        write(&own, &[("memory.max", "max\n"), ("memory.current", "1073741824\n"), ("cpu.max", "max 100000\n")]);
        write(&own, &[("cpu.stat", "usage_usec 2500000\nuser_usec 1\n")]);
        let cgroup = two(mount.path(), "/a.slice/b");
        assert_eq!(cgroup.memory(64 * GB), None);
        assert_eq!(cgroup.quota(), None);
        assert_eq!(cgroup.cpu_seconds(), Some(2.5));
        assert_eq!(cgroup.processes(), None);
        write(&own, &[("pids.max", "40\n")]);
        write(&mount.path().join("a.slice"), &[("pids.max", "max\n")]);
        assert_eq!(cgroup.processes(), Some(40));
        write(
            &mount.path().join("a.slice"),
            &[
                ("memory.max", "4294967296\n"),
                ("memory.current", "3221225472\n"),
                ("memory.stat", "anon 5\ninactive_file 1073741824\nactive_file 7\n"),
                ("cpu.max", "150000 100000\n"),
            ],
        );
        assert_eq!(cgroup.memory(64 * GB), Some(Memory { total: 4 * GB, available: 2 * GB }));
        assert_eq!(cgroup.quota(), Some(1.5));
        // A limit above what the host has is none.
        assert_eq!(cgroup.memory(2 * GB), None);
        write(&own, &[("memory.max", "2147483648\n"), ("memory.high", "1610612736\n"), ("cpu.max", "50000 100000\n")]);
        assert_eq!(cgroup.memory(64 * GB), Some(Memory { total: GB / 2 * 3, available: GB / 2 }));
        assert_eq!(cgroup.quota(), Some(0.5));
    }

    #[test]
    fn reads_version_one_where_the_mount_is_the_group() {
        let mount = tempfile::tempdir().unwrap();
        let point = mount.path().join("with space");
        write(
            &point,
            &[
                ("memory.limit_in_bytes", "1073741824\n"),
                ("memory.usage_in_bytes", "805306368\n"),
                ("memory.stat", "inactive_file 1\ntotal_inactive_file 268435456\n"),
            ],
        );
        let escaped = point.display().to_string().replace(' ', "\\040");
        let mounts = format!("35 31 0:32 /docker/abc {escaped} ro,relatime - cgroup cgroup rw,memory\n");
        for group in ["/docker/abc", "/docker/abc/below", "/", "/../elsewhere"] {
            let cgroup = Cgroup::find(&format!("9:name=systemd:/\n4:memory:{group}\n1:cpu,cpuacct:/\n0::/\n"), &mounts);
            assert_eq!(cgroup.memory(64 * GB), Some(Memory { total: GB, available: GB / 2 }), "{group}");
            assert_eq!(cgroup.quota(), None);
        }
        write(&point, &[("memory.limit_in_bytes", "9223372036854771712\n")]);
        assert_eq!(Cgroup::find("4:memory:/docker/abc\n", &mounts).memory(0), None);
    }

    #[test]
    fn reads_a_quota_of_version_one() {
        let mount = tempfile::tempdir().unwrap();
        let files =
            [("cpu.cfs_quota_us", "-1\n"), ("cpu.cfs_period_us", "100000\n"), ("cpuacct.usage", "3000000000\n")];
        write(mount.path(), &files);
        let mounts = format!("32 31 0:29 / {} rw - cgroup cgroup rw,cpu,cpuacct\n", mount.path().display());
        let cgroup = Cgroup::find("1:cpu,cpuacct:/\n", &mounts);
        assert_eq!((cgroup.quota(), cgroup.cpu_seconds()), (None, Some(3.0)));
        write(mount.path(), &[("cpu.cfs_quota_us", "250000\n")]);
        assert_eq!(cgroup.quota(), Some(2.5));
    }

    #[test]
    fn what_cannot_be_read_says_nothing() {
        for (groups, mounts) in
            [("", ""), ("nonsense", "more - nonsense"), ("0::/x\n", "1 2 3 / /nowhere rw - cgroup2 x rw")]
        {
            let cgroup = Cgroup::find(groups, mounts);
            assert_eq!((cgroup.memory(GB), cgroup.quota(), cgroup.cpu_seconds()), (None, None, None));
        }
        let mount = tempfile::tempdir().unwrap();
        write(
            mount.path(),
            &[("memory.max", "many\n"), ("memory.current", "\n"), ("cpu.max", "\n"), ("cpu.stat", "usage_usec")],
        );
        let cgroup = two(mount.path(), "/");
        assert_eq!((cgroup.memory(GB), cgroup.quota(), cgroup.cpu_seconds()), (None, None, None));
        // A limit without a usage is of no use.
        write(mount.path(), &[("memory.max", "1000\n")]);
        assert_eq!(cgroup.memory(GB), None);
        // This process: whatever it is, it must not panic.
        let own = Cgroup::of_this_process();
        let _ = (own.memory(GB), own.quota(), own.cpu_seconds());
    }
}
