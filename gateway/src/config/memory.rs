//! The memory that this process may use: the machine's, or the limit of its control group.

use std::{fs, path::Path};

/// Returns the bytes that this process may use; `None` if the system does not report them.
pub(super) fn available() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| total_memory(&text));
    let group = fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|text| cgroup_limit(&text, Path::new("/sys/fs/cgroup")));
    machine.into_iter().chain(group).min()
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

/// Returns the lowest limit of this process's control groups and their parents. In a container, the
/// group's path may not exist; then the limit is at the root.
fn cgroup_limit(groups: &str, root: &Path) -> Option<u64> {
    let mut least: Option<u64> = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            list if list.split(',').any(|controller| controller == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        for folder in Path::new(path.trim_start_matches('/')).ancestors() {
            // "max" and a missing file mean no limit.
            let limit = fs::read_to_string(root.join(folder).join(file))
                .ok()
                .and_then(|text| text.trim().parse().ok());
            least = least.into_iter().chain(limit).min();
        }
    }
    least
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;

    #[test]
    fn total_memory_is_parsed() {
        assert_eq!(
            total_memory("MemFree: 1 kB\nMemTotal:       2048 kB\n"),
            Some(2048 * 1024)
        );
        assert_eq!(total_memory("nonsense"), None);
    }

    #[test]
    fn lowest_limit_of_a_group_and_its_parents_applies() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        fs::write(root.path().join("a/memory.max"), "5000\n").unwrap();
        fs::write(inner.join("memory.max"), "max\n").unwrap();
        assert_eq!(cgroup_limit("0::/a/b\n", root.path()), Some(5000));
        assert_eq!(cgroup_limit("0::/\n", root.path()), None);

        let old = root.path().join("memory/x");
        fs::create_dir_all(&old).unwrap();
        fs::write(old.join("memory.limit_in_bytes"), "700\n").unwrap();
        assert_eq!(
            cgroup_limit("3:cpu:/x\n4:hugetlb,memory:/x\n", root.path()),
            Some(700)
        );
    }
}
