//! What the processor is, and which of its instructions decide how fast vectors are made.

#[cfg(target_os = "linux")]
use std::fs;

use sysinfo::{CpuRefreshKind, System};

/// A processor.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Processor {
    /// As its maker calls it; may be empty.
    pub name: String,
    /// As Rust spells it: `x86_64`, `aarch64`.
    pub architecture: &'static str,
    /// Those that engines look for and it has, as Linux spells them.
    pub instructions: Vec<String>,
}

/// The instructions that engines look for: wider vectors, and products of small numbers.
const INSTRUCTIONS: [&str; 14] = [
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "asimddp",
    "asimdhp",
    "bf16",
    "i8mm",
];

/// The one that this process runs on.
pub fn processor() -> Processor {
    let mut system = System::new();
    system.refresh_cpu_list(CpuRefreshKind::nothing());
    let name = system.cpus().first().map(|cpu| cpu.brand().trim().to_owned()).unwrap_or_default();
    Processor { name, architecture: std::env::consts::ARCH, instructions: instructions() }
}

/// As the kernel lists them: it leaves out what it does not let programs use.
#[cfg(target_os = "linux")]
fn instructions() -> Vec<String> {
    listed(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

/// Where no kernel lists them, as far as the processor can be asked.
#[cfg(not(target_os = "linux"))]
fn instructions() -> Vec<String> {
    #[cfg(target_arch = "x86_64")]
    let has = [
        ("avx", std::is_x86_feature_detected!("avx")),
        ("avx2", std::is_x86_feature_detected!("avx2")),
        ("fma", std::is_x86_feature_detected!("fma")),
        ("f16c", std::is_x86_feature_detected!("f16c")),
        ("avx512f", std::is_x86_feature_detected!("avx512f")),
        ("avx512_vnni", std::is_x86_feature_detected!("avx512vnni")),
        ("avx512_bf16", std::is_x86_feature_detected!("avx512bf16")),
    ];
    #[cfg(target_arch = "aarch64")]
    let has = [
        ("asimd", true),
        ("asimddp", std::arch::is_aarch64_feature_detected!("dotprod")),
        ("asimdhp", std::arch::is_aarch64_feature_detected!("fp16")),
        ("bf16", std::arch::is_aarch64_feature_detected!("bf16")),
        ("i8mm", std::arch::is_aarch64_feature_detected!("i8mm")),
    ];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has: [(&str, bool); 0] = [];
    has.into_iter().filter(|(_, has)| *has).map(|(name, _)| name.to_owned()).collect()
}

#[cfg(any(target_os = "linux", test))]
fn listed(cpuinfo: &str) -> Vec<String> {
    let line = cpuinfo.lines().find_map(|line| {
        let (key, rest) = line.split_once(':')?;
        ["flags", "Features"].contains(&key.trim()).then_some(rest)
    });
    let flags: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
    INSTRUCTIONS.into_iter().filter(|name| flags.contains(name)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_those_that_the_kernel_lists() {
        let intel = "processor\t: 0\nmodel name\t: any\nflags\t\t: fpu avx avx2 avx512f avx512_bf16 amx_bf16\n";
        assert_eq!(listed(intel), ["avx", "avx2", "avx512f", "avx512_bf16", "amx_bf16"]);
        assert_eq!(listed("Features\t: fp asimd i8mm\n"), ["asimd", "i8mm"]);
        assert_eq!(listed("processor: 0\n"), [""; 0]);
        assert_eq!(processor().architecture, std::env::consts::ARCH);
    }
}
