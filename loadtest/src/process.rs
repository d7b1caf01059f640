//! What the kernel knows about the server's process.

use std::fs;
use std::ops::Sub;
use std::time::Duration;

use anyhow::{Context, Result};

/// The unit of the times in `/proc/PID/stat`; Linux shows hundredths of a second on every architecture in use.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time that a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// Time on a core, of all living threads.
    pub total: Duration,
    /// Share of it in user space, in seconds of coarse ticks.
    pub user: f64,
    /// Share of it in the kernel, in seconds of coarse ticks.
    pub system: f64,
}

impl Cpu {
    /// Reads the times of a process.
    pub fn of(pid: u32) -> Result<Cpu> {
        let stat =
            fs::read_to_string(format!("/proc/{pid}/stat")).context("read /proc/PID/stat")?;
        // The name in parentheses may hold anything, so count from behind it: state is the first field there.
        let (_, fields) = stat.rsplit_once(')').context("parse /proc/PID/stat")?;
        let ticks = |index: usize| -> Result<f64> {
            let field = fields.split_whitespace().nth(index).context("parse /proc/PID/stat")?;
            Ok(field.parse::<f64>()? / TICKS_PER_SECOND)
        };
        let (user, system) = (ticks(11)?, ticks(12)?);
        let exact = scheduled(pid)?;
        let total = if exact.is_zero() { Duration::from_secs_f64(user + system) } else { exact };
        Ok(Cpu { total, user, system })
    }

    /// The sum over several processes.
    pub fn of_all(pids: &[u32]) -> Result<Cpu> {
        pids.iter().try_fold(Cpu::default(), |sum, &pid| {
            let cpu = Cpu::of(pid)?;
            Ok(Cpu {
                total: sum.total + cpu.total,
                user: sum.user + cpu.user,
                system: sum.system + cpu.system,
            })
        })
    }

    /// Share of the time that was spent in user space.
    pub fn user_share(&self) -> f64 {
        let ticks = self.user + self.system;
        if ticks > 0.0 { self.user / ticks } else { 0.0 }
    }
}

impl Sub for Cpu {
    type Output = Cpu;

    fn sub(self, before: Cpu) -> Cpu {
        Cpu {
            total: self.total.saturating_sub(before.total),
            user: self.user - before.user,
            system: self.system - before.system,
        }
    }
}

/// The sum over all threads in nanoseconds; zero where the kernel does not keep it.
fn scheduled(pid: u32) -> Result<Duration> {
    let mut total = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).context("list the server's threads")? {
        // A thread may end while we look.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        let nanoseconds = text.split_whitespace().next().and_then(|field| field.parse().ok());
        total += Duration::from_nanos(nanoseconds.unwrap_or(0));
    }
    Ok(total)
}

/// The resident memory of a process in bytes.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).context("read /proc/PID/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")).context("find VmRSS")?;
    Ok(kilobytes.parse::<u64>()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_process_has_memory_and_its_cpu_time_grows() {
        let pid = std::process::id();
        assert!(resident_bytes(pid).expect("VmRSS is readable") > 100_000);
        let before = Cpu::of(pid).expect("times are readable");
        let spin =
            (0_u64..3_000_000).fold(1, |a: u64, b| std::hint::black_box(a.wrapping_mul(31) ^ b));
        assert_ne!(spin, 0);
        let used = Cpu::of(pid).expect("times are readable") - before;
        assert!(used.total > Duration::ZERO);
    }
}
