//! Memory and CPU, of the container where it has a limit, else of the host.

use std::time::Instant;

use sysinfo::{MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, System};

use super::{Cgroup, available_cores};

/// Memory that this process shares with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Bytes of the container's limit, or of the host.
    pub total: u64,
    /// Bytes of these that can be had, caches that the kernel gives back included.
    pub available: u64,
}

impl Memory {
    /// How much is in use, 0–100 %.
    pub fn usage(&self) -> f64 {
        let used = self.total.saturating_sub(self.available) as f64;
        if self.total > 0 { used / self.total as f64 * 100.0 } else { 0.0 }
    }
}

/// What a machine offers and how much of it is in use.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Resources {
    /// Memory.
    pub memory: Memory,
    /// Bytes of physical memory that this process holds.
    pub process_memory: u64,
    /// CPU usage since the sample before, 0–100 % of the cores that this process may use, or of its container's quota.
    /// Of the first sample: the load average of a minute for each core.
    pub cpu: f64,
    /// Processes that run or want to, over 1, 5 and 15 minutes. Zeros on Windows.
    pub load_average: [f64; 3],
    /// Cores that this process may use: affinity and quota.
    pub cores: usize,
}

/// Where samples come from. Tests put an invented machine in its place.
pub trait Machine: Send {
    /// What is in use now.
    fn sample(&mut self) -> Resources;
}

/// The machine that this process runs on. A sample costs about a tenth of a millisecond.
pub struct ThisMachine {
    system: System,
    cgroup: Cgroup,
    /// When the container's CPU time was read last, and how much it was in seconds.
    cpu: Option<(Instant, f64)>,
    sampled: bool,
}

impl Default for ThisMachine {
    fn default() -> Self {
        Self { system: System::new(), cgroup: Cgroup::of_this_process(), cpu: None, sampled: false }
    }
}

impl ThisMachine {
    fn cpu(&mut self, cores: usize) -> f64 {
        self.system.refresh_cpu_usage();
        // Without a quota the container shares the host's cores, and their usage is what counts.
        let quota = self.cgroup.quota();
        let before = self.cpu.take();
        self.cpu = quota.and_then(|_| Some((Instant::now(), self.cgroup.cpu_seconds()?)));
        if let (Some(quota), Some((then, before)), Some((now, after))) = (quota, before, self.cpu) {
            let seconds = now.duration_since(then).as_secs_f64();
            return if seconds > 0.0 { (after - before) / (seconds * quota.min(cores as f64)) * 100.0 } else { 0.0 };
        }
        if self.sampled {
            return f64::from(self.system.global_cpu_usage());
        }
        System::load_average().one / cores as f64 * 100.0
    }
}

impl Machine for ThisMachine {
    fn sample(&mut self) -> Resources {
        let cores = available_cores();
        let cpu = self.cpu(cores);
        self.sampled = true;
        self.system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let host = Memory { total: self.system.total_memory(), available: self.system.available_memory() };
        let memory = match self.cgroup.memory(host.total) {
            // A container may be allowed more than its host has left.
            Some(memory) => Memory { available: memory.available.min(host.available), ..memory },
            None => host,
        };
        let own = Pid::from_u32(std::process::id());
        let kind = ProcessRefreshKind::nothing().with_memory();
        self.system.refresh_processes_specifics(ProcessesToUpdate::Some(&[own]), false, kind);
        let load = System::load_average();
        Resources {
            memory,
            process_memory: self.system.process(own).map_or(0, |process| process.memory()),
            cpu: if cpu.is_finite() { cpu.clamp(0.0, 100.0) } else { 0.0 },
            load_average: [load.one, load.five, load.fifteen],
            cores,
        }
    }
}

/// What tells this machine from others of another kind: its processor, as it calls itself, the cores that this process may
/// use, and the system.
pub fn machine_name() -> String {
    let mut system = System::new();
    system.refresh_cpu_list(sysinfo::CpuRefreshKind::nothing());
    let brand = system.cpus().first().map(|cpu| cpu.brand().trim().to_owned()).unwrap_or_default();
    format!("{} {} {brand} × {}", std::env::consts::OS, std::env::consts::ARCH, available_cores())
}

/// Memory of this process alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProcessMemory {
    /// Bytes of physical memory that it holds. 0: could not be measured.
    pub resident: u64,
    /// The most that it ever held. 0 where the system does not say (Windows).
    pub high_water: u64,
}

/// What this process holds now. Takes some microseconds on Linux, some tens elsewhere.
pub fn process_memory() -> ProcessMemory {
    let resident = resident();
    ProcessMemory { resident, high_water: high_water() }
}

#[cfg(target_os = "linux")]
fn resident() -> u64 {
    #[allow(unsafe_code)]
    // SAFETY: takes no pointers.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.as_deref().and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0).saturating_mul(u64::try_from(page).unwrap_or(0))
}

#[cfg(not(target_os = "linux"))]
fn resident() -> u64 {
    let own = Pid::from_u32(std::process::id());
    let mut system = System::new();
    let kind = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[own]), false, kind);
    system.process(own).map_or(0, |process| process.memory())
}

#[cfg(unix)]
fn high_water() -> u64 {
    #[allow(unsafe_code)]
    // SAFETY: an all-zero `rusage` is valid, and the call writes nothing but this one.
    let (failed, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::getrusage(libc::RUSAGE_SELF, &mut usage), usage)
    };
    // Kilobytes, but on Apple's systems bytes.
    let unit = if cfg!(target_vendor = "apple") { 1 } else { 1024 };
    if failed == 0 { u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(unit) } else { 0 }
}

#[cfg(not(unix))]
fn high_water() -> u64 {
    0
}

/// Gives memory that this process has freed back to the system, where its allocator would keep it (glibc). May take
/// some milliseconds.
pub fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code)]
    // SAFETY: takes no pointers, and the allocator locks itself.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory_and_cores() {
        let mut machine = ThisMachine::default();
        for _ in 0..2 {
            let resources = machine.sample();
            assert!(resources.memory.total > 1 << 20 && resources.memory.available <= resources.memory.total);
            assert!(resources.process_memory > 1 << 20 && resources.process_memory < resources.memory.total);
            assert!((0.0..=100.0).contains(&resources.cpu) && (0.0..=100.0).contains(&resources.memory.usage()));
            assert!(resources.cores >= 1 && resources.load_average.iter().all(|load| *load >= 0.0));
        }
        let own = process_memory();
        assert!(own.resident > 1 << 20, "{own:?}");
        assert!(cfg!(not(unix)) || own.high_water > 1 << 20, "{own:?}");
        assert_eq!(Memory::default().usage(), 0.0);
        assert_eq!(Memory { total: 4, available: 1 }.usage(), 75.0);
    }
}
