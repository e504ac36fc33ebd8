//! What this machine has.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

/// The name of the machine's processor; that of its sort where the system does not say.
pub fn processor() -> String {
    // The system makes up the text as it is read: no more is asked for than the first core's part.
    let named = fs_err::File::open("/proc/cpuinfo").ok().and_then(|file| {
        let lines = BufReader::with_capacity(512, file).lines();
        let mut lines = lines.map_while(Result::ok);
        let line = lines.find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    named.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// How many bytes of memory this process may use: the machine's, or fewer where its group of processes has a limit (a
/// container, a job of Slurm or systemd); nothing where nobody says.
pub fn memory() -> Option<u64> {
    let groups = fs_err::read_to_string("/proc/self/cgroup").unwrap_or_default();
    // Where there is no limit it says `max`, or a number beyond all memory.
    let limits = limits(&groups).into_iter();
    let limits = limits.filter_map(|path| fs_err::read_to_string(path).ok()?.trim().parse().ok());
    meminfo("MemTotal").into_iter().chain(limits).min()
}

/// What the system says of its memory under this name, in bytes: `MemTotal`, `MemAvailable`.
pub fn meminfo(name: &str) -> Option<u64> {
    let text = fs_err::read_to_string("/proc/meminfo").ok()?;
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(field, _)| *field == name)?;
    let kibibytes: u64 = value.strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// The files with the limits of a process that is in these groups, and of the groups above them. In a container a group
/// may have another name than outside, and its limit stand at the top.
fn limits(groups: &str) -> Vec<PathBuf> {
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (top, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        for above in Path::new(group.trim_start_matches('/')).ancestors() {
            limits.push(Path::new(top).join(above).join(name));
        }
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_groups_stand_at_every_group_above() {
        let paths = |groups| {
            limits(groups)
                .into_iter()
                .map(|path| path.display().to_string())
        };
        let new: Vec<_> = paths("0::/system.slice/job_7\n").collect();
        assert_eq!(
            new,
            [
                "/sys/fs/cgroup/system.slice/job_7/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        let old: Vec<_> = paths("5:cpu,cpuacct:/a\n4:memory:/a\n1:name=systemd:/\n").collect();
        assert_eq!(
            old,
            [
                "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes"
            ]
        );
        assert!(limits("").is_empty());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_machine_has_memory() {
        assert!(memory().is_some_and(|bytes| bytes > 16 << 20));
    }
}
